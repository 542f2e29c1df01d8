"""Plain USTAR tars in the WebDataset convention, written by hand: no owner, no time, so the same bytes every time."""

from pathlib import Path
from types import TracebackType
from typing import Self

from photoz.errors import TryAgain

BLOCK = 512
NAME_BYTES = 100
_MODE_AND_OWNER = b"0000644\0" + b"0000000\0" * 2
_TIME = b"00000000000\0"
_TAIL = b"0" + bytes(NAME_BYTES) + b"ustar\x0000" + bytes(64 + 16 + 155 + 12)
# The checksum adds up all bytes, its own field taken as spaces; only the name and the size change.
_FIXED_SUM = sum(_MODE_AND_OWNER) + sum(_TIME) + sum(b" " * 8) + sum(_TAIL)


def ustar_header(name: str, size: int) -> bytes:
    """The 512-byte header of a regular file (POSIX.1-1988): mode 644, owner 0, time 0."""
    encoded, octal = name.encode("ascii"), b"%011o\0" % size
    if len(encoded) > NAME_BYTES or size >= 8**11:
        raise ValueError(f"{name!r} of {size} bytes does not fit a USTAR header")
    checksum = b"%06o\0 " % (_FIXED_SUM + sum(encoded) + sum(octal))
    return encoded.ljust(NAME_BYTES, b"\0") + _MODE_AND_OWNER + octal + _TIME + checksum + _TAIL


class ShardTar:
    """A tar in the making at a local path. Whoever opened it publishes it; an unfinished one has no end mark.

    Raises TryAgain where the local disk fails or is full.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def __enter__(self) -> Self:
        try:
            self._file = self._path.open("wb", buffering=2**20)
        except OSError as error:
            raise self._failed(error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._file.write(bytes(2 * BLOCK))
            self._file.close()
        except OSError as closing:
            raise self._failed(closing) from None

    def add(self, name: str, data: bytes) -> int:
        """Append a member; the offset of its bytes in the tar."""
        padding = bytes(-len(data) % BLOCK)
        try:
            self._file.writelines((ustar_header(name, len(data)), data, padding))
        except OSError as error:
            raise self._failed(error) from None
        start = self._offset + BLOCK
        self._offset = start + len(data) + len(padding)
        return start

    def _failed(self, error: OSError) -> TryAgain:
        return TryAgain(
            f"scratch {self._path}: {error.strerror}; free some space there (TMPDIR moves it) and try again"
        )
