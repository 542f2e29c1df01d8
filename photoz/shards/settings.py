"""What `photoz-job shard` can be told."""

from dataclasses import dataclass
from typing import Literal

from photoz.errors import BadInput
from photoz.settings import setting
from photoz.surveys import surveys

SIZES = range(8, 4097)


@dataclass(frozen=True, kw_only=True)
class ShardSettings:
    """Where the images come from, how large they are, and how many go to a shard."""

    images: Literal["jpeg", "ugriz", "files"] | None = setting(
        None,
        "jpeg: colour cutouts from the survey. files: your own JPEG, PNG, NPY or FITS files, named in the table's "
        "image column. ugriz: five-band frames. Default: files where the catalogue has that column, else jpeg.",
    )
    size: int | None = setting(
        None, "Width and height in pixels (default: 64 for jpeg; files keep their own, or are cut to it).", metavar="PX"
    )
    scale: float | None = setting(
        None, "Arcseconds per pixel of jpeg cutouts (default: the survey's own).", metavar="ARCSEC"
    )
    # At 64 px about 3 MB: an upload of a second, a download of a moment, and half a million galaxies
    # in some 500 shards, which is as many as an array of tasks can use.
    samples_per_shard: int = setting(1000, "Galaxies a shard, at most.", metavar="N")
    axes: Literal["chw", "hwc"] | None = setting(
        None, "Order of a file array's axes, where its shape does not tell: channels first or last."
    )
    hdu: str | None = setting(
        None,
        "Image of each FITS file, by number (0 is the primary) or EXTNAME; several, such as 1,2,3, become bands.",
        metavar="N|NAME",
    )
    images_from: str | None = setting(
        None, "Folder that image paths start in (default: as when the catalogue was made).", metavar="FOLDER"
    )
    survey: str | None = setting(None, "Survey to cut images from (default: the catalogue's own).", metavar="NAME")
    survey_url: str | None = setting(None, "Address of the survey's server, instead of its usual one.", metavar="URL")

    def __post_init__(self) -> None:
        if self.images == "ugriz":
            raise BadInput("--images ugriz: five-band frames are not available yet; cut stamps, use --images files")
        if self.hdu is not None and not all(self.hdus):
            raise BadInput(f"--hdu {self.hdu!r}: expected a number or a name, or several with commas, such as 1,2,3")
        if self.samples_per_shard < 1:
            raise BadInput(f"--samples-per-shard {self.samples_per_shard}: expected at least 1")
        if self.scale is not None and not 0.01 <= self.scale <= 60:
            raise BadInput(f"--scale {self.scale}: expected 0.01 to 60 arcseconds per pixel")
        if self.size is not None:
            self._check_size(self.size)

    def _check_size(self, size: int) -> None:
        """Refuse what no source can have; a survey's own limits are checked once the catalogue names it."""
        limits = [one.cutout_limits for one in surveys() if one.cutout_limits and self.survey in (None, one.name)]
        served = [one.sizes_px for one in limits] if self.images == "jpeg" and limits else [SIZES]
        if not any(size in sizes for sizes in served):
            low, high = min(sizes[0] for sizes in served), max(sizes[-1] for sizes in served)
            raise BadInput(f"--size {size}: expected {low} to {high} pixels")

    @property
    def hdus(self) -> tuple[str, ...]:
        """Numbers or names of the HDUs to read, in the order of the bands."""
        return tuple(part.strip() for part in self.hdu.split(",")) if self.hdu is not None else ()
