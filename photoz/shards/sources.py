"""Where a catalogue's images come from: the survey's cutouts, or the user's own files."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa

from photoz.artifacts import Artifact
from photoz.data.layout import ImageFormat
from photoz.errors import BadInput
from photoz.images.files import MORE_STARTS, ImageFolder, open_files
from photoz.images.picture import NoCutout
from photoz.shards.cutouts import CutoutImages, cutout_format
from photoz.shards.galaxies import Galaxies
from photoz.shards.settings import ShardSettings
from photoz.surveys import TABLE, survey_named, surveys


class ImageSource(Protocol):
    """Stamps of galaxies, all of one format."""

    @property
    def image(self) -> ImageFormat:
        """What every stamp looks like."""

    def stamps(self, galaxies: Iterable[pa.Table]) -> Iterator[bytes | NoCutout]:
        """Each galaxy's member for the tar, in order, or why it has none; tables are asked for as they are needed."""


@dataclass(frozen=True)
class Origin:
    """The settings once the catalogue is known: what was left to it is decided."""

    images: Literal["jpeg", "files"]
    survey: dict[str, Any]  # its name, and whatever else decides its content
    size_px: int | None
    settings: ShardSettings
    scale_arcsec_per_px: float | None = None
    simulated: bool = False

    def deciding(self) -> dict[str, Any]:
        """The settings that decide the bytes, and so the fingerprint. Where a folder or a server is, does not."""
        common = {
            "images": self.images,
            "size": self.size_px,
            "samples_per_shard": self.settings.samples_per_shard,
        }
        if self.images == "files":
            chosen = {"hdu": ",".join(self.settings.hdus)} if self.settings.hdus else {}
            return common | {"axes": self.settings.axes} | chosen
        return common | {"scale": self.scale_arcsec_per_px, "survey": self.survey}


def decide_origin(catalog: Artifact, settings: ShardSettings, columns: Sequence[str]) -> Origin:
    """Fill in what the settings leave to the catalogue. Raises BadInput where they don't fit it."""
    has_files = {"image", "image_sha256"} <= set(columns)
    if settings.images == "files" or (settings.images is None and has_files):
        if not has_files:
            raise BadInput(f"{catalog.ref} names no image files; its table needs an image column, or use --images jpeg")
        return Origin("files", {"name": TABLE}, settings.size, settings)
    name = settings.survey if settings.survey not in (None, TABLE) else str(catalog.summary.get("survey", TABLE))
    if name == TABLE:
        names = [one.name for one in surveys() if one.cutout_limits]
        raise BadInput(
            f"{catalog.ref} comes from a table; name the survey to cut images from with --survey "
            f"({' or '.join(names)}), or use --images files"
        )
    survey = survey_named(name)
    limits = survey.cutout_limits
    if limits is None:
        raise BadInput(f"--images jpeg: {name} has no service for colour cutouts")
    size, sizes = settings.size or limits.default_px, limits.sizes_px
    if size not in sizes:
        raise BadInput(f"--size {size}: the survey cuts images of {sizes[0]} to {sizes[-1]} pixels")
    identity = _same_sky(catalog, survey.identity(settings.survey_url))
    scale = settings.scale or limits.scale_arcsec_per_px
    return Origin("jpeg", identity, size, settings, scale, survey.simulated)


def _same_sky(catalog: Artifact, survey: dict[str, Any]) -> dict[str, Any]:
    """Two skies of one name (simulated, with other seeds) share no galaxies: refuse the one for the other's."""
    made_from = catalog.settings.get("survey")
    if isinstance(made_from, dict) and made_from.get("name") == survey["name"] and made_from != survey:
        raise BadInput(
            f"{catalog.ref} was made from the sky {made_from}, but images would come from {survey}; "
            "name the catalogue's server with --survey-url, or make a new catalogue"
        )
    return survey


@contextmanager
def open_images(catalog: Artifact, origin: Origin, galaxies: Galaxies, sharers: int = 1) -> Iterator[ImageSource]:
    """The source of images, for as long as the block lasts; `sharers` tasks ask the survey at the same time.

    Raises BadInput if it can't be used.
    """
    settings = origin.settings
    if origin.images == "files":
        folder = settings.images_from or catalog.summary.get("table_folder")
        if folder is None:
            raise BadInput(f"{catalog.ref} does not say where its table was; name the folder with --images-from")
        files = ImageFolder(Path(folder).resolve(), origin.size_px, settings.axes, settings.hdus)
        yield open_files(files, galaxies.spread(MORE_STARTS, ["image", "image_sha256"]))
        return
    survey = survey_named(origin.survey["name"])
    limits, size, scale = survey.cutout_limits, origin.size_px, origin.scale_arcsec_per_px
    assert limits is not None and size is not None and scale is not None
    with survey.open(settings.survey_url) as opened:
        yield CutoutImages(opened, cutout_format(limits, size, scale), sharers)
