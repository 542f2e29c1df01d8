"""The user's own image files as stamps: found below one folder, unchanged since the catalogue, and all alike."""

import errno
import hashlib
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from photoz.data.layout import ImageFormat
from photoz.errors import BadInput
from photoz.ordered import in_order
from photoz.runtime import usable_cores
from photoz.shards.formats import MAX_FILE_BYTES, PNG_START, read_array
from photoz.shards.stamps import AmbiguousAxes, Array, centre_crop, check_values, stamp_dtype, to_chw
from photoz.survey.picture import JPEG_START, NoCutout, decode_jpeg, jpeg_shape

log = logging.getLogger("photoz.shards")

FILES_AT_ONCE = 32  # handed to a thread: one by one, handing over costs more than reading
LOOKED_AT = 101  # files whose shape and type decide for all
_JPEG_NAMES = (".jpg", ".jpeg")


@dataclass(frozen=True)
class ImageFolder:
    """Where the files lie and how they are to be read."""

    folder: Path
    size_px: int | None
    axes: str | None

    def read(self, name: str | None, sha256: str | None) -> bytes:
        """The file's bytes. Raises NoCutout if the galaxy has none, BadInput if it is not the catalogue's any more."""
        if not name:
            raise NoCutout("no_file", "the table's image column is empty")
        if sha256 is None:
            raise NoCutout("no_file", f"{name} was not there when the catalogue was made")
        if "\0" in name:
            raise NoCutout("no_file", f"{name!r} can't be a file's name")
        path = self._place(name)
        try:
            try:
                data = self._plain(path, name)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                path = os.path.realpath(path)  # the file is a link
                data = self._plain(path, name)
        except OSError as error:
            raise BadInput(
                f"image {path}: {error.strerror}; put it back, say --images-from, or make a new catalogue"
            ) from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BadInput(f"image {path}: not the file that the catalogue was made with; make a new catalogue")
        return data

    def _place(self, name: str) -> str:
        """The file's path, its folder without links. Most files share their folders: to resolve one takes a while."""
        folder, leaf = os.path.split(os.path.join(self.folder, name))  # noqa: PTH118
        path = os.path.join(_real_folder(folder), leaf)  # noqa: PTH118
        return path if leaf not in ("", ".", "..") else os.path.realpath(path)

    def _plain(self, path: str, name: str) -> bytes:
        """A plain file's bytes. Raises NoCutout for anything else, for one that is too large, or outside the folder."""
        if not path.startswith(os.path.join(self.folder, "")):  # noqa: PTH118
            raise NoCutout("outside", f"{name} leads out of {self.folder}")
        # A link is not followed, and a pipe would keep waiting whoever opens it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise NoCutout("no_file", f"{name} is not a plain file")
            if status.st_size > MAX_FILE_BYTES:
                raise NoCutout("too_large", f"{name}: more than {MAX_FILE_BYTES} bytes")
            return _read_up_to(descriptor, status.st_size)
        finally:
            os.close(descriptor)

    def pixels(self, data: bytes) -> Array:
        """Decode a file to (c, h, w), whole. Raises NoCutout if it can't be."""
        if data.startswith(JPEG_START):
            return to_chw(decode_jpeg(data, jpeg_shape(data)[2]), "hwc")
        return to_chw(read_array(data), "hwc" if data.startswith(PNG_START) else self.axes)


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
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

    def stamps(self, galaxies: Iterable[pa.Table]) -> Iterator[bytes | NoCutout]:
        """Each galaxy's member for the tar, in order, or why it has none."""
        tables = map(_named, galaxies)
        some = (named[at : at + FILES_AT_ONCE] for named in tables for at in range(0, len(named), FILES_AT_ONCE))
        for stamps in in_order(lambda few: list(map(self._stamp, few)), some, usable_cores()):
            yield from stamps

    def _stamp(self, named: tuple[str | None, str | None]) -> bytes | NoCutout:
        try:
            data = self.files.read(*named)
            return self._as_it_is(data) if self.image.format == "jpg" else self._as_npy(data)
        except NoCutout as fault:
            return fault

    def _as_it_is(self, data: bytes) -> bytes:
        height, width, channels = jpeg_shape(data)
        self._check_shape((channels, height, width))
        check_values(decode_jpeg(data, channels))
        return data

    def _as_npy(self, data: bytes) -> bytes:
        image = centre_crop(self.files.pixels(data), self.files.size_px)
        self._check_shape(image.shape)
        if not np.can_cast(stamp_dtype(image), self.image.dtype):
            raise NoCutout("other_type", f"{image.dtype} values, most files have {self.image.dtype}")
        with np.errstate(over="ignore"):  # beyond float32: caught as not finite
            stamp = np.ascontiguousarray(image, np.dtype(self.image.dtype).newbyteorder("<"))
        check_values(stamp)
        return self.image.npy_header() + stamp.tobytes()

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape != self.image.shape:
            raise NoCutout("other_shape", f"{_by(shape)} (c, h, w), most files have {_by(self.image.shape)}")


@dataclass
class _Seen:
    """What the files looked at are like, cut to the size asked for."""

    kinds: Counter[tuple[tuple[int, ...], str]] = field(default_factory=Counter)
    cut: bool = False  # whether any of them is larger than asked for
    fault: str = ""  # of the last file that can't be used


def open_files(files: ImageFolder, some: pa.Table, names: Iterable[str | None]) -> FileImages:
    """Find out what the files have in common, from `some` galaxies' and the `names` of all.

    JPEGs stay as they are if all files are JPEGs that need no cutting; else all becomes NPY. The shape and type of
    most files is that of the set, and files that differ become failures. Raises BadInput if no file can be used, or
    if fewer than half have the same shape.
    """
    if not files.folder.is_dir():
        raise BadInput(f"folder {files.folder}: not there; name where the images are now with --images-from")
    seen = _look(files, some)
    if not seen.kinds:
        raise BadInput(f"images in {files.folder}: none can be used, such as {seen.fault}")
    (shape, dtype), times = seen.kinds.most_common(1)[0]
    if 2 * times < seen.kinds.total():
        shapes = ", ".join(f"{n} of {_by(other)} {kind}" for (other, kind), n in seen.kinds.most_common(3))
        raise BadInput(f"images in {files.folder} are of many shapes ({shapes}); cut all to one with --size PX")
    as_they_are = not seen.cut and _all_jpeg(names)
    channels, height, width = shape
    image = ImageFormat(
        format="jpg" if as_they_are else "npy",
        channels=channels,
        height=height,
        width=width,
        dtype=dtype,
        source="files",
    )
    log.info("%s: %s of %s, kept as %s", files.folder, _by(shape), dtype, image.format)
    return FileImages(files, image)


def _look(files: ImageFolder, some: pa.Table) -> _Seen:
    seen = _Seen()
    for named in _named(some):
        try:
            whole = files.pixels(files.read(*named))
            image = centre_crop(whole, files.size_px)
        except AmbiguousAxes as fault:
            raise BadInput(f"image {named[0]}: {fault.detail}") from None
        except NoCutout as fault:
            seen.fault = f"{named[0]}: {fault}"
        else:
            seen.kinds[image.shape, stamp_dtype(image)] += 1
            seen.cut |= whole.shape != image.shape
    return seen


def _named(galaxies: pa.Table) -> list[tuple[str | None, str | None]]:
    return list(zip(galaxies["image"].to_pylist(), galaxies["image_sha256"].to_pylist(), strict=True))


def _all_jpeg(names: Iterable[str | None]) -> bool:
    return all(name.lower().endswith(_JPEG_NAMES) for name in names if name)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
