"""What a JPEG says of itself, read before it is decoded."""

import simplejpeg

MOST_SCANS = 100  # usual are 1 to 10; each costs as much time as a whole picture, and may take only a few bytes
_SCAN = b"\xff\xda"  # never part of the coded pixels


def jpeg_header(data: bytes) -> tuple[int, int, str]:
    """(height, width, colour space) of a JPEG. Raises ValueError if it has no whole header, or far too many scans."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except KeyError as error:  # a chroma subsampling that simplejpeg has no name for
        raise ValueError(f"unknown chroma subsampling {error}") from None
    check_scans(data)
    return height, width, colours


def check_scans(data: bytes) -> None:
    """Raise ValueError for a JPEG of far too many scans, which would take far too long to decode."""
    # Counting takes a twelfth of the time of decoding; nearly all pictures have one scan, and two searches tell.
    if data.find(_SCAN) != data.rfind(_SCAN) and data.count(_SCAN) > MOST_SCANS:
        raise ValueError(f"more than {MOST_SCANS} scans")
