"""The user's own image files as stamps: found below one folder, unchanged since the catalogue, and all alike."""

import errno
import hashlib
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from photoz.data.layout import ImageFormat
from photoz.errors import BadInput
from photoz.images.formats import FITS_START, MAX_FILE_BYTES, PNG_START, FitsImages, read_array, unpacked
from photoz.images.picture import JPEG_START, NoCutout, decode_jpeg, jpeg_shape
from photoz.images.stamps import AmbiguousAxes, Array, centre_crop, check_range, check_values, stamp_dtype, to_chw
from photoz.ordered import in_order
from photoz.runtime import usable_cores

log = logging.getLogger("photoz.shards")

FILES_AT_ONCE = 32  # handed to a thread: one by one, handing over costs more than reading
LOOKED_AT = 101  # files whose shape and type decide for all
MORE_STARTS = 2000  # files whose first bytes are looked at, too, where these are all JPEGs


@dataclass(frozen=True)
class ImageFolder:
    """Where the files lie and how they are to be read."""

    folder: Path
    size_px: int | None
    axes: str | None
    hdus: tuple[str, ...] = ()

    def read(self, name: str | None, sha256: str | None) -> bytes:
        """The file's bytes. Raises NoCutout if the galaxy has none, BadInput if it is not the catalogue's any more."""
        data = self.start(name, sha256, MAX_FILE_BYTES)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BadInput(
                f"image {self.folder}/{name}: not the file that the catalogue was made with; make a new catalogue"
            )
        return data

    def start(self, name: str | None, sha256: str | None, most: int) -> bytes:
        """The file's first bytes, unchecked. Raises as `read` does."""
        if not name:
            raise NoCutout("no_file", "the table's image column is empty")
        if sha256 is None:
            raise NoCutout("no_file", f"{name} was not there when the catalogue was made")
        if "\0" in name:
            raise NoCutout("no_file", f"{name!r} can't be a file's name")
        path = self._place(name)
        try:
            try:
                return self._plain(path, name, most)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                return self._plain(os.path.realpath(path), name, most)  # the file is a link
        except OSError as error:
            raise BadInput(
                f"image {self.folder}/{name}: {error.strerror}; put it back, say --images-from, or make a new catalogue"
            ) from None

    def _place(self, name: str) -> bytes:
        """The file's path, its folder without links. Most files share their folders: to resolve one takes a while.

        The table's names are UTF-8 whatever the locale, so paths are bytes.
        """
        folder, leaf = os.path.split(os.path.join(os.fsencode(self.folder), name.encode()))  # noqa: PTH118
        path = os.path.join(_real_folder(folder), leaf)  # noqa: PTH118
        return path if leaf not in (b"", b".", b"..") else os.path.realpath(path)

    def _plain(self, path: bytes, name: str, most: int) -> bytes:
        """A plain file's first bytes. Raises NoCutout for anything else, a file too large, or outside the folder."""
        if not path.startswith(os.path.join(os.fsencode(self.folder), b"")):  # noqa: PTH118
            raise NoCutout("outside", f"{name} leads out of {self.folder}")
        # A link is not followed, and a pipe would keep waiting whoever opens it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise NoCutout("no_file", f"{name} is not a plain file")
            if status.st_size > MAX_FILE_BYTES:
                raise NoCutout("too_large", f"{name}: more than {MAX_FILE_BYTES} bytes")
            return _read_up_to(descriptor, min(status.st_size, most))
        finally:
            os.close(descriptor)

    def pixels(self, data: bytes) -> Array:
        """Decode a file, unpacked, to (c, h, w), whole. Raises NoCutout if it can't be."""
        if data.startswith(JPEG_START):
            return to_chw(decode_jpeg(data, jpeg_shape(data)[2]), "hwc")
        stacked = data.startswith(FITS_START) and len(self.hdus) > 1
        axes = "hwc" if data.startswith(PNG_START) else "chw" if stacked else self.axes
        return to_chw(read_array(data, self.hdus), axes)

    def said(self, data: bytes) -> "Said":
        """What a file, unpacked, says of the image that is read."""
        if not data.startswith(FITS_START):
            return Said()
        try:
            images = FitsImages.of(data, self.hdus)
        except ValueError as error:
            raise NoCutout("corrupt", str(error)) from None
        several = len(images.there) > 1 and not self.hdus
        return Said(images.unit, str(images) if several else "", str(images.read[0]) if several else "")


@dataclass(frozen=True)
class Said:
    """What a FITS file says beside its pixels: their unit, and which of several images was chosen for the user."""

    unit: str = ""
    images: str = ""
    chosen: str = ""


@lru_cache(maxsize=4096)
def _real_folder(folder: bytes) -> bytes:
    return os.path.realpath(folder)


def _read_up_to(descriptor: int, size: int) -> bytes:
    """The next `size` bytes of a file, or as many as there are."""
    data = os.read(descriptor, size)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):  # a file server may give less
        data += more
    return data


@dataclass(frozen=True)
class FileImages:
    """A source of stamps; see `open_files`."""

    files: ImageFolder
    image: ImageFormat
    usual: Said = Said()

    def stamps(self, galaxies: Iterable[pa.Table]) -> Iterator[bytes | NoCutout]:
        """Each galaxy's member for the tar, in order, or why it has none."""
        tables = map(_named, galaxies)
        some = (named[at : at + FILES_AT_ONCE] for named in tables for at in range(0, len(named), FILES_AT_ONCE))
        for stamps in in_order(lambda few: list(map(self._stamp, few)), some, usable_cores()):
            yield from stamps

    def _stamp(self, named: tuple[str | None, str | None]) -> bytes | NoCutout:
        try:
            data = self.files.read(*named)
            return self._as_it_is(data) if self.image.format == "jpg" else self.as_npy(data)
        except NoCutout as fault:
            return fault

    def _as_it_is(self, data: bytes) -> bytes:
        if not data.startswith(JPEG_START):
            start = data[:8]
            raise NoCutout("other_type", f"no JPEG, as most files are: it starts with {start!r}; save it as one")
        height, width, channels = jpeg_shape(data)
        self._check_shape((channels, height, width))
        check_values(decode_jpeg(data, channels))
        return data

    def as_npy(self, data: bytes) -> bytes:
        """A file's image as an NPY member. Raises NoCutout if it can't be one like the others."""
        data = unpacked(data)
        self._check_said(self.files.said(data))
        image = centre_crop(self.files.pixels(data), self.files.size_px)
        self._check_shape(image.shape)
        if stamp_dtype(image) != self.image.dtype:  # levels and counts are no fluxes
            raise NoCutout("other_type", f"{image.dtype} values, most files have {self.image.dtype}")
        check_range(image)
        with np.errstate(over="ignore"):  # beyond float32: caught as not finite
            stamp = np.ascontiguousarray(image, np.dtype(self.image.dtype).newbyteorder("<"))
        check_values(stamp)
        return self.image.npy_header() + stamp.tobytes()

    def _check_said(self, said: Said) -> None:
        if said.unit and said.unit != self.usual.unit:
            usual = repr(self.usual.unit) if self.usual.unit else "none"
            raise NoCutout("other_unit", f"BUNIT = {said.unit!r}, most files say {usual}; convert it first")
        if said.chosen and self.usual.chosen and said.chosen != self.usual.chosen:
            raise NoCutout(
                "ambiguous_hdu", f"of its images {said.images} one would read {said.chosen}, of most files' "
                f"{self.usual.chosen}; say --hdu N or NAME"
            )  # fmt: skip

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape != self.image.shape:
            raise NoCutout("other_shape", f"{_by(shape)} (c, h, w), most files have {_by(self.image.shape)}")


@dataclass
class _Seen:
    """What the files looked at are like, cut to the size asked for."""

    kinds: Counter[tuple[tuple[int, ...], str]] = field(default_factory=Counter)
    cut: bool = False  # whether any of them is larger than asked for
    other: bool = False  # whether any of them is no JPEG
    units: Counter[str] = field(default_factory=Counter)  # that files state, "" where they state none
    chosen: Counter[Said] = field(default_factory=Counter)  # where a file has several images
    fault: str = ""  # of the last file that can't be used


def open_files(files: ImageFolder, some: pa.Table) -> FileImages:
    """Find out what the files have in common, from `some` galaxies', of which LOOKED_AT are read whole.

    JPEGs stay as they are if all of these files start as JPEGs and need no cutting; else all becomes NPY. The shape,
    type and unit of most files is that of the set, and files that differ become failures. Raises BadInput if no file
    can be used, or if fewer than half have the same shape.
    """
    if not files.folder.is_dir():
        raise BadInput(f"folder {files.folder}: not there; name where the images are now with --images-from")
    spread = np.unique(np.linspace(0, len(some) - 1, LOOKED_AT).astype(np.int64))
    seen = _look(files, some.take(pa.array(spread)))
    if not seen.kinds:
        raise BadInput(f"images in {files.folder}: none can be used, such as {seen.fault}")
    (shape, dtype), times = seen.kinds.most_common(1)[0]
    if 2 * times < seen.kinds.total():
        shapes = ", ".join(f"{n} of {_by(other)} {kind}" for (other, kind), n in seen.kinds.most_common(3))
        raise BadInput(f"images in {files.folder} are of many shapes ({shapes}); cut all to one with --size PX")
    as_they_are = not seen.cut and not seen.other and dtype == "uint8" and _all_start_as_jpeg(files, some)
    channels, height, width = shape
    image = ImageFormat(
        format="jpg" if as_they_are else "npy",
        channels=channels,
        height=height,
        width=width,
        dtype=dtype,
        source="files",
        unit=seen.units.most_common(1)[0][0],
    )
    log.info("%s: %s of %s, kept as %s", files.folder, _by(shape), dtype, image.format)
    usual = Said(unit=image.unit)
    if seen.chosen:
        usual = replace(seen.chosen.most_common(1)[0][0], unit=image.unit)
        log.warning(
            "%s: FITS files hold %d images (%s), of which %s is read; --hdu N|NAME reads another, --hdu 1,2,3 several",
            files.folder, usual.images.count(",") + 1, usual.images, usual.chosen,
        )  # fmt: skip
    return FileImages(files, image, usual)


def _look(files: ImageFolder, some: pa.Table) -> _Seen:
    seen = _Seen()
    for named in _named(some):
        try:
            data = unpacked(files.read(*named))
            said, whole = files.said(data), files.pixels(data)
            image = centre_crop(whole, files.size_px)
        except AmbiguousAxes as fault:
            raise BadInput(f"image {named[0]}: {fault.detail}") from None
        except NoCutout as fault:
            seen.fault = f"{named[0]}: {fault}"
        else:
            seen.kinds[image.shape, stamp_dtype(image)] += 1
            seen.cut |= whole.shape != image.shape
            seen.other |= not data.startswith(JPEG_START)
            seen.units[said.unit] += 1
            if said.chosen:
                seen.chosen[replace(said, unit="")] += 1
    return seen


def _named(galaxies: pa.Table) -> list[tuple[str | None, str | None]]:
    return list(zip(galaxies["image"].to_pylist(), galaxies["image_sha256"].to_pylist(), strict=True))


def _all_start_as_jpeg(files: ImageFolder, some: pa.Table) -> bool:
    """Whether these files are JPEGs, whatever their names say; those that can't be used do not count."""

    def starts_as_jpeg(named: tuple[str | None, str | None]) -> bool:
        try:
            return files.start(*named, most=len(JPEG_START)) == JPEG_START
        except NoCutout:
            return True

    return all(map(starts_as_jpeg, _named(some)))


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
