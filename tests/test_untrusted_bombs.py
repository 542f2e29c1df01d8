"""Small inputs that ask for much memory or time are refused before they get it."""

import gzip
import io
import json
import resource
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from photoz.artifacts import Artifact, Destination, Draft, Ref, load, open_store, upkeep
from photoz.artifacts.manifest import sha256_hex
from photoz.artifacts.parquet import read_bounded
from photoz.artifacts.refs import manifest_key
from photoz.data.layout import ImageFormat
from photoz.data.locations import Locations, read_in_threads
from photoz.data.shard_set import open_shards
from photoz.errors import BadFormat, BadInput
from photoz.images.formats import read_array
from photoz.images.picture import NoCutout, jpeg_shape
from photoz.jpeg import MOST_SCANS
from photoz.surveys.sdss.sql_reply import TransientReply, parse_reply
from photoz.tables.table import read_table
from tests.fuzz.targets import manifest
from tests.shards_support import files_table, make_shards, noise_jpeg, save_catalog, write_jpegs

MEMORY_BYTES = 1500 * 2**20  # more than now; the largest image that is read takes three quarters of it
ZEROS = zlib.compress(bytes(2**28), 9)
ANY_IMAGE = ImageFormat(format="jpg", channels=3, height=64, width=64, dtype="uint8", source="files")


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """So little memory that a bomb which goes off is a MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY_BYTES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def cards(*pairs: tuple[str, object]) -> bytes:
    text = "".join(f"{key:<8}= {value}".ljust(80) for key, value in [("SIMPLE", "T"), ("BITPIX", 8), *pairs]) + "END"
    return text.ljust(-(-len(text) // 2880) * 2880).encode()


PIXELS = chunk(b"IDAT", zlib.compress(b"\0\1\2\3\4" * 4))
IMAGES = {
    "npy of objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 2)}", b"cos\nsystem\n(S'x'\ntR."),
    "npy of a true size": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (True, 2)}", bytes(16)),
    "npy of a hundred axes": npy("{'descr':'|u1','fortran_order':False,'shape':(" + "1," * 100 + ")}", b"1"),
    "npy of an unknown type": npy("{'descr': '<i16', 'fortran_order': False, 'shape': (1, 2)}", bytes(32)),
    "npy of huge sizes": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000000000)}"),
    "png with a text bomb": png(4, 4, chunk(b"zTXt", b"a\0\0" + ZEROS), PIXELS),
    "png with a profile bomb": png(4, 4, chunk(b"iCCP", b"a\0\0" + ZEROS), PIXELS),
    "png with a second size": png(
        4, 4, chunk(b"IHDR", struct.pack(">IIBBBBB", 9_000, 9_000, 8, 2, 0, 0, 0)), chunk(b"IDAT", ZEROS)
    ),
    "png of one huge side": png(2**31 - 1, 1, chunk(b"IDAT", ZEROS)),
    "fits of a billion axes": cards(("NAXIS", 10**9)),
    "fits of a negative size": cards(("NAXIS", 1), ("NAXIS1", -5760)),
    "fits of fewer than no axes": cards(("NAXIS", -3)),
    "fits of a huge size": cards(("NAXIS", 2), ("NAXIS1", 10**9), ("NAXIS2", 10**9)),
    "fits with an endless header": b"SIMPLE  =" + bytes(2**24),
    "gzip of zeros": gzip.compress(b"SIMPLE  =" + bytes(2**29 + 2880)),
}


@pytest.mark.parametrize("name", list(IMAGES))
def test_an_image_that_lies_is_a_recorded_failure(name: str) -> None:
    with pytest.raises(NoCutout):
        read_array(IMAGES[name])


def test_more_pixels_than_the_header_says_are_never_unpacked() -> None:
    assert read_array(png(4, 4, chunk(b"IDAT", ZEROS))).shape == (4, 4)


def resized(jpeg: bytes, width: int, height: int) -> bytes:
    """The JPEG with other dimensions in its header."""
    at = next(jpeg.find(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in jpeg)
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def scans(jpeg: bytes, count: int) -> bytes:
    """The JPEG with its last scan repeated: each costs as much time as the picture."""
    at = jpeg.rfind(b"\xff\xda")
    return jpeg[:at] + jpeg[at:-2] * count + jpeg[-2:]


def test_a_jpeg_of_other_dimensions_or_of_a_thousand_scans_is_refused_by_its_header() -> None:
    jpeg = noise_jpeg(1, 64)
    with pytest.raises(NoCutout, match="too_large"):
        jpeg_shape(resized(jpeg, 65_000, 65_000))
    with pytest.raises(NoCutout, match="scans"):
        jpeg_shape(scans(jpeg, MOST_SCANS + 1))
    assert jpeg_shape(jpeg) == (64, 64, 3)


@pytest.mark.parametrize(
    "member",
    [
        resized(noise_jpeg(1, 64), 8000, 8000),
        scans(noise_jpeg(1, 64), 1000),
        noise_jpeg(1, 64)[:-40],
        noise_jpeg(1, 32),
    ],
)
def test_a_member_that_is_not_the_picture_declared_is_named(member: bytes, tmp_path: Path) -> None:
    out = np.empty((1, 64, 64, 3), np.uint8)
    (tmp_path / "s.tar").write_bytes(member)
    index = pa.table({"key": ["a"], "offset": [0], "length": [len(member)]})
    where = Locations.of_shard(str(tmp_path / "s.tar"), "s", index, len(member))
    with pytest.raises(BadFormat, match=r"s: a\.jpg: "):
        read_in_threads(where, ANY_IMAGE, out)


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"key": ["a"], "offset": [-1], "length": [5]}, "inside its tar"),
        ({"key": ["a"], "offset": [0], "length": [101]}, "inside its tar"),
        ({"key": ["a"], "offset": [2**62], "length": [2**62]}, "inside its tar"),
        ({"key": ["a"], "offset": [0], "length": [-5]}, "inside its tar"),
        ({"key": ["a", "a"], "offset": [0, 5], "length": [5, 5]}, "twice"),
        ({"key": ["a"], "offset": [None], "length": [5]}, "offset in its index is null with 1 nulls"),
        ({"key": ["a"], "offset": [0.5], "length": [5]}, "offset in its index is double"),
        ({"key": [1], "offset": [0], "length": [5]}, "key in its index is int64"),
    ],
)
def test_an_index_that_points_elsewhere_is_refused(columns: dict[str, list[Any]], what: str) -> None:
    with pytest.raises(BadFormat, match=what):
        Locations.of_shard("train-000000.tar", "train-000000", pa.table(columns), 100)


@pytest.mark.parametrize(
    "field",
    [
        {"channels": 0}, {"height": 10**9}, {"width": -1}, {"channels": True}, {"width": 64.0}, {"bands": [1]},
        {"bands": 5}, {"channels": 2}, {"dtype": "float32"}, {"dtype": ["uint8"]}, {"source": None},
        {"height": 10**4, "width": 10**4}, {"scale_arcsec_per_px": "0.4"}, {"scale_arcsec_per_px": float("nan")},
    ],
)  # fmt: skip
def test_an_image_format_that_no_image_has_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(BadFormat, match=r"summary\.image"):
        ImageFormat.from_summary(ANY_IMAGE.to_summary() | field)


@pytest.mark.parametrize("found", [None, [], 3, "jpg", {}])
def test_what_is_no_image_format_at_all_is_refused(found: Any) -> None:
    with pytest.raises(BadFormat, match=r"summary\.image"):
        ImageFormat.from_summary(found)


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", **options)
    return sink.getvalue()


def test_parquet_that_unfolds_to_far_more_than_it_is_is_refused() -> None:
    rows = 40_000_000
    with pytest.raises(pa.ArrowInvalid, match="unfold"):
        read_bounded(parquet(pa.table({"ra": pa.array(np.zeros(rows))})))
    one_text_again_and_again = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2000, np.int32)), ["x" * 2**20])
    with pytest.raises(pa.ArrowInvalid, match="unfold"):
        read_bounded(parquet(pa.table({"a": one_text_again_and_again}), store_schema=False))
    lists = pa.ListArray.from_arrays(pa.array(np.arange(2001, dtype=np.int32)), one_text_again_and_again)
    with pytest.raises(pa.ArrowInvalid, match="expected numbers or texts"):
        read_bounded(parquet(pa.table({"a": lists})))
    with pytest.raises(pa.ArrowInvalid, match="expected numbers or texts"):
        read_bounded(Path(__file__).parent.joinpath("fuzz/findings/index/oom-empty-record").read_bytes())
    few = pa.table({"a": ["x", None], "n": pa.array([1, 2], pa.uint64())})
    assert read_bounded(parquet(few)).equals(few)


@pytest.fixture
def shards(tmp_path: Path) -> Artifact:
    folder = tmp_path / "images"
    catalog = save_catalog(tmp_path / "store", files_table(folder, write_jpegs(folder, 5)), folder)
    from photoz.shards import ShardSettings

    return make_shards(catalog, ShardSettings())


def republished(artifact: Artifact, **changes: Any) -> Artifact:
    """The artifact as one who can write to the store would have it: its manifest changed, and whole."""
    document = json.loads(artifact.manifest.encode()) | changes
    lines = sorted(f"{entry['path'].split('/', 4)[4]}\0{entry['sha256']}\n" for entry in document["files"])
    document["payload_sha256"] = sha256_hex("".join(lines).encode())
    artifact.store.put(manifest_key(artifact.ref), json.dumps(document).encode())
    return load(artifact.store, artifact.ref)


def test_a_manifest_that_promises_a_billion_images_takes_no_memory(shards: Artifact) -> None:
    files = [entry.model_dump() for entry in shards.entries]
    for entry in files:
        if entry["path"].endswith(".index.parquet"):
            entry["rows"] = 10**9
    opened = open_shards(republished(shards, files=files))
    with pytest.raises(BadFormat, match="1000000000 images"):
        opened.load("train")


def test_an_index_of_other_rows_than_the_manifest_says_is_refused(shards: Artifact) -> None:
    files = [entry.model_dump() for entry in shards.entries]
    for entry in files:
        if entry["path"].endswith("train-000000.index.parquet"):
            entry["rows"] = 2
    with pytest.raises(BadFormat, match="3 rows, the manifest says 2"):
        open_shards(republished(shards, files=files)).read_shard("train-000000")


def test_export_writes_nothing_outside_of_its_folder(shards: Artifact, tmp_path: Path) -> None:
    for path in ("../../outside", "a/../../../outside", "/outside", "manifest.json", "_manifest.json"):
        files = [entry.model_dump() for entry in shards.entries]
        files[0]["path"] = files[0]["path"].rpartition("/")[0] + "/" + path
        with pytest.raises(BadFormat):
            upkeep.export(republished(shards, files=files), tmp_path / "exported")
    assert not any(tmp_path.rglob("outside*"))


def test_a_manifest_of_ten_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    path = tmp_path / manifest_key(Ref("catalog", "a", 1))
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(10 * 2**30)
    with pytest.raises(BadFormat, match="more than"):
        load(store, Ref("catalog", "a", 1))


def test_a_file_that_a_job_reads_whole_is_not_read_if_it_is_huge(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with Draft.begin(Destination(store, "a"), kind="model", recipe=1, settings={}) as draft:
        draft.put("model.json", b"{}")
        draft.commit({})
    model = load(store, Ref("model", "a"))
    files = [entry.model_dump() | {"bytes": 10 * 2**30} for entry in model.entries]
    with pytest.raises(BadFormat, match="small"):
        republished(model, files=files).read("model.json")


# Users' tables

POSITIONS = '<FIELD name="ra" datatype="double" unit="deg"/><FIELD name="dec" datatype="double" unit="deg"/>'
ROW = "<TABLEDATA><TR><TD>1</TD><TD>2</TD></TR></TABLEDATA>"
TEN = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 9))


def votable(data: str = ROW, fields: str = "", table: str = "", doctype: str = "") -> bytes:
    return (
        f'<?xml version="1.0"?>{doctype}<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE>'
        f"<TABLE {table}>{POSITIONS}{fields}<DATA>{data}</DATA></TABLE></RESOURCE></VOTABLE>"
    ).encode()


VOTABLES = {
    "a link to a file": votable('<BINARY><STREAM href="file:///etc/passwd"/></BINARY>'),
    "a link to a server": votable('<BINARY><STREAM href="http://127.0.0.1:9/"/></BINARY>'),
    "packed data": votable('<BINARY><STREAM encoding="gzip">AAAA</STREAM></BINARY>'),
    "a FITS file inside": votable('<FITS><STREAM encoding="base64">AAAA</STREAM></FITS>'),
    "an entity of a billion": votable(doctype=f'<!DOCTYPE x [<!ENTITY a0 "aaaaaaaaaa">{TEN}]>'),
    "an entity that is a file": votable(doctype='<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'),
    "a billion rows announced": votable(table='nrows="3000000000"'),
    "rows that are no number": votable(table='nrows="-5"'),
    "a cell of a billion": votable(fields='<FIELD name="x" datatype="double" arraysize="2000000000"/>'),
    "wide rows": votable(
        f"<TABLEDATA>{'<TR><TD>1</TD><TD>2</TD></TR>' * 9}</TABLEDATA>",
        '<FIELD name="x" datatype="char" arraysize="16000000"/>',
    ),
}


@pytest.mark.parametrize("name", list(VOTABLES))
def test_a_votable_follows_no_link_and_takes_no_memory_it_only_announces(name: str, tmp_path: Path) -> None:
    path = tmp_path / "t.vot"
    path.write_bytes(VOTABLES[name])
    with pytest.raises(BadInput, match="can't be read as VOTable"):
        read_table(path, {})
    path.write_bytes(votable())
    assert read_table(path, {}).rows.num_rows == 1


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz", ".vot"])
def test_a_gzipped_table_is_unzipped_to_a_limit(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t{suffix}"
    path.write_bytes(gzip.compress(bytes(2**28 + 2**20)))
    with pytest.raises(BadInput, match="more than 268435456 bytes once it is unpacked"):
        read_table(path, {})


@pytest.mark.parametrize(
    "header",
    [
        [("NAXIS", 2), ("NAXIS1", 16), ("NAXIS2", 10**10), ("TFIELDS", 2)],
        [("NAXIS", 2), ("NAXIS1", 0), ("NAXIS2", 0), ("TFIELDS", 2 * 10**9)],
        [("NAXIS", 2), ("NAXIS1", 16), ("NAXIS2", 1), ("PCOUNT", -(10**12)), ("TFIELDS", 2)],
        [("NAXIS", 10**9), ("TFIELDS", 2)],
    ],
)
def test_a_fits_table_that_lies_about_its_size_is_refused(header: list[tuple[str, object]], tmp_path: Path) -> None:
    path = tmp_path / "t.fits"
    table = cards(*header).replace(b"SIMPLE  = T", b"XTENSION= 'BINTABLE'", 1)[:2880]
    path.write_bytes(cards(("NAXIS", 0)) + table + bytes(2880))
    with pytest.raises(BadInput, match="can't be read as FITS"):
        read_table(path, {})


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/../../x", "..\\x", "a\0b", "x" * 5000, "y" * 300 + "/z", "link", "..", "down/../.."],
)
def test_an_image_path_that_leads_out_of_the_folder_or_nowhere_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    pq.write_table(pa.table({"ra": [1.0], "dec": [2.0], "image": [name]}), tmp_path / "t.parquet")
    with pytest.raises(BadInput, match="outside the table's folder, or no path"):
        read_table(tmp_path / "t.parquet", {})


def test_a_table_with_a_hundred_thousand_columns_gets_a_short_message(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(",".join(f"c{n}" for n in range(20_000)) + "\n" + ",".join("1" * 20_000))
    with pytest.raises(BadInput) as refused:
        read_table(path, {})
    assert len(str(refused.value)) < 1000
    path.write_text("ra,dec," + "a" * 200_000 + "\n1,2,3")
    with pytest.raises(BadInput, match="field larger than field limit"):
        read_table(path, {})


def test_a_page_of_unclosed_scripts_is_looked_at_only_in_part() -> None:
    with pytest.raises(TransientReply, match="web page"):
        parse_reply("<html>" + "<script" * 5_000_000, pa.schema([("n", pa.int64())]), 10)


def test_the_fixture_does_keep_memory_short() -> None:
    with pytest.raises(MemoryError):
        np.zeros(2 * MEMORY_BYTES, np.uint8)
    assert manifest().kind == "catalog"
