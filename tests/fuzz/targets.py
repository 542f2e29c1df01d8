"""What reads bytes that others have written: each target gives a value or one of ALLOWED, whatever the bytes."""

import gzip
import hashlib
import io
import json
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from PIL import Image

from photoz.artifacts.file_store import FileStore
from photoz.artifacts.manifest import FileEntry, Manifest, Producer, payload_digest
from photoz.artifacts.parquet import BROKEN, read_bounded
from photoz.artifacts.receipts import PieceReceipt, encode, read_receipt
from photoz.artifacts.refs import Ref, data_prefix
from photoz.catalog.moc import read_moc
from photoz.data.decode import stored_shape
from photoz.data.layout import ImageFormat
from photoz.data.locations import Locations, read_in_threads
from photoz.errors import BadFormat, PhotozError
from photoz.images.formats import read_array
from photoz.images.picture import NoCutout
from photoz.surveys.sdss.sky_jpeg import check_jpeg
from photoz.surveys.sdss.sql_reply import SlowQuery, TransientReply, parse_reply
from photoz.tables.table import read_table

ALLOWED = (PhotozError, NoCutout, TransientReply, SlowQuery)
SIDE = 16
_SCHEMA = pa.schema([("objid", pa.uint64()), ("ra", pa.float64()), ("name", pa.string())])
_FOLDER = data_prefix("catalog", "a", "0" * 16)
_SCRATCH = tempfile.TemporaryDirectory(prefix="photoz-untrusted-")


@dataclass(frozen=True)
class Target:
    """A reader, and bytes that it reads gladly, to be damaged."""

    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


def outcome(target: Target, data: bytes) -> str:
    """`value`, or the name of the allowed error; anything else is raised."""
    try:
        target.read(data)
    except ALLOWED as error:
        assert len(str(error)) < 5000, "a message is one line"
        return type(error).__name__
    return "value"


def _file(name: str, data: bytes) -> Path:
    path = Path(_SCRATCH.name) / name
    path.write_bytes(data)
    return path


# Images


def _npy(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def _picture(array: np.ndarray, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(array).save(sink, kind, **options)
    return sink.getvalue()


def _fits(*units: object) -> bytes:
    sink = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *units]).writeto(sink)
    return sink.getvalue()


_PIXELS = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
_IMAGES = (
    _npy(_PIXELS.astype("f4")),
    _picture(_PIXELS, "PNG"),
    _picture(_PIXELS[..., 0].astype(np.uint16), "PNG"),
    _fits(fits.ImageHDU(_PIXELS[..., 0].astype("i2"))),
    gzip.compress(_fits(fits.ImageHDU(_PIXELS.astype("f4")))),
)
_JPEGS = (_picture(_PIXELS, "JPEG"), _picture(_PIXELS, "JPEG", progressive=True), _picture(_PIXELS[..., 0], "JPEG"))

# A shard: a tar's bytes after 16 that say where a member is thought to lie

_JPEG = ImageFormat(format="jpg", channels=3, height=SIDE, width=SIDE, dtype="uint8", source="files")
_ARRAY = ImageFormat(format="npy", channels=1, height=2, width=3, dtype="int16", source="files")


def _read_member(data: bytes) -> None:
    offset, length = struct.unpack("<qq", data[:16].ljust(16, b"\0"))
    index = pa.table({"key": ["a", "b"], "offset": [offset, offset], "length": [length, length]})
    image = _JPEG if data[16:18] == b"\xff\xd8" else _ARRAY
    with tempfile.NamedTemporaryFile() as tar:
        tar.write(data[16:])
        tar.flush()
        where = Locations.of_shard(tar.name, "train-000000", index, len(data) - 16)
        read_in_threads(where, image, np.empty((2, *stored_shape(image)), image.dtype))


_MEMBERS = (
    struct.pack("<qq", 0, len(_JPEGS[0])) + _JPEGS[0],
    struct.pack("<qq", 0, 140) + _ARRAY.npy_header() + bytes(12),
)


# Documents of a store

_ENTRY = FileEntry(path=_FOLDER + "catalog.parquet", bytes=3, sha256="0" * 64, rows=1)


def manifest() -> Manifest:
    """A small one."""
    return Manifest(
        format_version=1,
        kind="catalog",
        name="a",
        version=1,
        fingerprint="0" * 16,
        created_at="2026-01-01T00:00:00+00:00",
        producer=Producer(
            package="photoz",
            package_version="1",
            commit=None,
            image=None,
            command="photoz-job catalog",
            host="h",
            scheduler={"name": "none"},
        ),
        settings={"limit": 3},
        inputs=(),
        payload_sha256=payload_digest([_ENTRY]),
        files=(_ENTRY,),
        summary={"rows": 1},
    )


def _read_manifest(data: bytes) -> None:
    Manifest.decode(data, "store: catalog/a@v1").encode().decode()


def _read_receipt(data: bytes) -> None:
    _file("receipt.json", data)
    read_receipt(FileStore(Path(_SCRATCH.name)), "receipt.json", _FOLDER, PieceReceipt)


def _read_image(data: bytes) -> None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return
    image = ImageFormat.from_summary(found)
    assert image.image_bytes <= 2**28
    image.npy_header()


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _read_index(data: bytes) -> None:
    try:
        index = read_bounded(data, ["key", "offset", "length"])
    except BROKEN as error:
        raise BadFormat(str(error)[:300]) from None
    Locations.of_shard("train-000000.tar", "train-000000", index, 10_000)


_INDEX = pa.table({"key": ["a", "b"], "offset": [512, 2048], "length": [700, 700], "ra": [1.0, None]})

# What users and surveys send

_TABLE = {"ra": [1.0, 2.0], "dec": [-1.0, 3.0], "object_id": ["a", "b"], "z_spec": [0.1, 0.2]}
_VOTABLE = b"""<?xml version="1.0"?><VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE
nrows="1"><FIELD name="ra" datatype="double" unit="deg"/><FIELD name="dec" datatype="double" unit="deg"/><FIELD
name="object_id" datatype="char" arraysize="8*"/><DATA><TABLEDATA><TR><TD>1</TD><TD>2</TD><TD>x</TD></TR></TABLEDATA>
</DATA></TABLE></RESOURCE></VOTABLE>"""
_ECSV = b"""# %ECSV 1.0
# ---
# datatype:
# - {name: ra, unit: &deg !astropy.units.Unit {unit: deg}, datatype: float64}
# - {name: dec, unit: *deg, datatype: float64}
# - {name: object_id, datatype: string}
ra dec object_id
1 2 a
3 4 "b c"
"""
_UNITED = [fits.Column("ra", "D", "deg", array=[1.0, 2.0]), fits.Column("dec", "D", "deg", array=[1.0, 2.0])]
_MORE = [fits.Column("object_id", "3A", array=["a", "b"]), fits.Column("v", "PD()", array=[np.arange(3), np.arange(2)])]


def _table(suffix: str) -> Callable[[bytes], object]:
    return lambda data: read_table(_file(f"table{suffix}", data), {})


TARGETS = {
    "formats": Target(read_array, _IMAGES),
    "jpeg": Target(lambda data: check_jpeg(data, SIDE), _JPEGS),
    "members": Target(_read_member, _MEMBERS),
    "manifest": Target(_read_manifest, (manifest().encode(),)),
    "receipt": Target(_read_receipt, (encode(PieceReceipt(piece="a", files=(_ENTRY,), facts={"rows": 3})),)),
    "image": Target(_read_image, (json.dumps(_JPEG.to_summary()).encode(),)),
    "index": Target(_read_index, (_parquet(_INDEX),)),
    "reply": Target(
        lambda data: parse_reply(data.decode("utf-8", "replace"), _SCHEMA, 100),
        (b"#Table1\nobjid,ra,name\n1,2.5,x\n", b"<html><script>x</script><p>Timeout expired</p>", b"Incorrect syntax"),
    ),
    "ref": Target(lambda data: Ref.parse(data.decode("utf-8", "replace")), (b"shards/mgs@v3", b"model/a@latest")),
    "csv": Target(_table(".csv"), (b'# a comment\nra,dec,object_id,z_spec\n1,2,"a",0.1\n3,4,b,\n',)),
    "ecsv": Target(_table(".ecsv"), (_ECSV, gzip.compress(_ECSV))),
    "parquet": Target(_table(".parquet"), (_parquet(pa.table(_TABLE)),)),
    "fits": Target(
        _table(".fits"),
        (_fits(fits.BinTableHDU.from_columns(_UNITED + _MORE)), _fits(fits.TableHDU.from_columns(_UNITED))),
    ),
    "votable": Target(_table(".vot"), (_VOTABLE,)),
    "moc": Target(lambda data: read_moc(_file("moc", data)), (b'{"3":[1,2,3],"5":[999]}',)),
}


def repaired(data: bytes) -> bytes:
    """A PNG with the checksums that their bytes call for, so that damage gets past them."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    fixed, at = bytearray(data), 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + size
        if end + 4 > len(data):
            break
        fixed[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(fixed)


def digest_of(data: bytes) -> str:
    """A short name for a finding."""
    return hashlib.sha256(data).hexdigest()[:12]
