"""Headers of FITS files (FITS standard 4.0), read before anything is unpacked, and gzip undone up to a limit."""

import gzip
import io
import math
import re
import zlib
from collections.abc import Iterator
from typing import Protocol

GZIP_START = b"\x1f\x8b"
BLOCK, CARD = 2880, 80
MOST_HEADER_BLOCKS = 2000  # 72,000 keywords: more is no header
MOST_AXES = 999  # of the standard; also the most columns of a table

_PART_BYTES = 2**20
_EXTENSION = b"XTENSION"
_QUOTED = re.compile(r"'((?:[^']|'')*)'")

Header = dict[str, str]


class Readable(Protocol):
    """A file that can be read in parts."""

    def read(self, size: int, /) -> bytes: ...


def gunzip(data: bytes, limit: int) -> bytes:
    """The bytes that were gzipped, of all members. ValueError if they are cut short, broken, or more than `limit`."""
    return unpacked(gzip.open(io.BytesIO(data)), limit)


def unpacked(stream: Readable, limit: int) -> bytes:
    """What a file that unpacks itself gives. ValueError if it is cut short, broken, or more than `limit` bytes."""
    found = io.BytesIO()
    try:
        while part := stream.read(_PART_BYTES):
            found.write(part)
            if found.tell() > limit:
                raise ValueError(f"more than {limit} bytes once it is unpacked")
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"packed data are cut short or broken: {error}") from None
    return found.getvalue()


def fits_units(data: bytes) -> Iterator[tuple[Header, int, int]]:
    """Each header as raw text by keyword, where its data start and how many bytes they should have.

    Ends at the first block that is no header, such as padding. Raises ValueError for a header that makes no sense or
    is cut short; that all data are there is for the caller to check.
    """
    at = 0
    while at < len(data) and (at == 0 or _EXTENSION.startswith(data[at : at + len(_EXTENSION)])):
        header, at = _header(data, at)
        size = _data_bytes(header)
        yield header, at, size
        at += -(-size // BLOCK) * BLOCK


def _header(data: bytes, at: int) -> tuple[Header, int]:
    header: Header = {}
    for start in range(at, at + MOST_HEADER_BLOCKS * BLOCK, BLOCK):
        block = data[start : start + BLOCK]
        if len(block) < BLOCK:
            raise ValueError("FITS header is cut short")
        header |= _cards(block)
        if "END" in header:
            return header, start + BLOCK
    raise ValueError(f"FITS header without END in {MOST_HEADER_BLOCKS} blocks")


def _data_bytes(header: Header) -> int:
    axes = whole(header, "NAXIS")
    if not 0 <= axes <= MOST_AXES:
        raise ValueError(f"FITS keyword NAXIS = {axes}; expected 0 to {MOST_AXES}")
    sizes = [whole(header, f"NAXIS{n}") for n in range(1, axes + 1)]
    # Random groups, long out of use, say with a first axis of 0 that it does not count.
    counted = sizes[1:] if sizes and sizes[0] == 0 and "GROUPS" in header else sizes
    parameters, groups = whole(header, "PCOUNT", 0), whole(header, "GCOUNT", 1)
    if min([*sizes, parameters, groups]) < 0:
        raise ValueError("FITS header gives a negative size")
    return abs(whole(header, "BITPIX")) // 8 * groups * ((math.prod(counted) if counted else 0) + parameters)


def _cards(block: bytes) -> Header:
    cards: Header = {}
    for at in range(0, BLOCK, CARD):
        card = block[at : at + CARD].decode("latin-1")
        keyword = card[:8].rstrip()
        if keyword == "END":
            return cards | {"END": ""}
        if card[8:10] == "= ":
            value = card[10:]
            cards[keyword] = value.strip() if value.lstrip().startswith("'") else value.partition("/")[0].strip()
    return cards


def whole(header: Header, keyword: str, default: int | None = None) -> int:
    """A keyword's whole number; ValueError if it is none, or missing without a default."""
    text = header.get(keyword)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise ValueError(f"FITS keyword {keyword} = {text!r}; expected a whole number") from None


def real(header: Header, keyword: str, default: float) -> float:
    """A keyword's number; ValueError if it is none."""
    text = header.get(keyword)
    try:
        return float(text.replace("D", "E")) if text else default
    except ValueError:
        raise ValueError(f"FITS keyword {keyword} = {text!r}; expected a number") from None


def text(header: Header, keyword: str) -> str:
    """A keyword's text without quotes and the spaces at its end; empty if there is none."""
    quoted = _QUOTED.match(header.get(keyword, ""))
    return quoted[1].replace("''", "'").rstrip() if quoted else ""
