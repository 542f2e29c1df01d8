"""Tables that are text: CSV and its relatives with semicolons or tabs, and astropy's ECSV."""

import codecs
import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import yaml

from photoz.errors import BadInput
from photoz.tables.raw_table import RawTable, units_of

ECSV_START = "# %ECSV"
_NULLS = ["", "nan", "NaN", "NAN", "null", "NULL", "NA", "N/A", "None", "--"]
_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_LONGEST_DESCRIPTION = 2**20
_NUMBER_WITH_COMMA = r"^[+-]?\d+(,\d+)?([eE][+-]?\d+)?$"
_OTHER_TEXTS = {
    r"\s*[\\|]": "an IPAC table",
    r"# +1 +\w+": "a SExtractor catalogue (ASCII_HEAD)",
    r"Title:|\s*Byte-by-byte": "a CDS table (machine-readable)",
    r"#ASDF": "an ASDF file",
    r"\s*[{\[]": "JSON",
}


def decoded(data: bytes) -> tuple[str, bool]:
    """The text, and whether it is certain: bytes that are no Unicode are taken as Latin-1, which is a guess."""
    encoding = next((name for bom, name in _BOMS.items() if data.startswith(bom)), None)
    if encoding is None and b"\0" in data[:4]:  # UTF-16 without a mark: every second byte of ASCII is 0
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    try:
        return data.decode(encoding or "utf-8"), True
    except UnicodeDecodeError:
        if encoding is not None:
            raise
        return data.decode("latin-1"), False


def read_text(path: Path, data: bytes) -> RawTable:
    """All columns as text; the delimiter is what the header has most of, or what an ECSV header says."""
    content, certain = decoded(data)
    if "\n" not in content:
        content = content.replace("\r", "\n")  # as old Macs, and Excel's "CSV (Macintosh)"
    if content.startswith(ECSV_START):
        return _ecsv(path, content, certain)
    _refuse_other_texts(path, content)
    delimiter = None
    if content[:4].lower() == "sep=":  # Excel's own line above the header
        delimiter, content = content[4:5], content[_line_end(content, 0) :]
    names, start, delimiter = _header(path, content, delimiter)
    body = content[start:]
    units, below = _vizier_units(body, names, delimiter)
    return _rows(path, names, re.sub(r"#END#\s*$", "", body[below:]), delimiter, certain, units)


def _vizier_units(body: str, names: list[str], delimiter: str) -> tuple[Mapping[str, str] | None, int]:
    """(units, where the rows start) of VizieR's tables: below the names are a line of units and one of dashes."""
    end = _line_end(body, 0)
    if not body.startswith("-", end):
        return None, 0
    below = _line_end(body, end)
    units, dashes = _cells(body[:end], delimiter), _cells(body[end:below], delimiter)
    if len(dashes) != len(names) or not all(re.fullmatch("-+", cell) for cell in dashes):
        return None, 0
    return units_of(zip(names, units, strict=len(units) > len(names))), below


def _refuse_other_texts(path: Path, content: str) -> None:
    for pattern, kind in _OTHER_TEXTS.items():
        if re.match(pattern, content):
            raise BadInput(f"--table {path}: looks like {kind}; convert it to CSV, FITS, Parquet or VOTable")


def _rows(
    path: Path, names: list[str], body: str, delimiter: str, certain: bool, units: Mapping[str, str] | None
) -> RawTable:
    # Spreadsheets write rows that hold nothing but delimiters below the last.
    filled = len(body.rstrip(f'{delimiter} \r\n"'))
    body = body[: _line_end(body, filled)] if filled else ""
    places = [str(place) for place in range(len(names))]  # names can stand twice
    columns = [pa.array([], pa.string())] * len(names)
    if body:
        table = pa_csv.read_csv(
            io.BytesIO(body.encode()),
            read_options=pa_csv.ReadOptions(column_names=places),
            parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values='"' in body),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(places, pa.string()), null_values=_NULLS, strings_can_be_null=True
            ),
        )
        columns = [column.combine_chunks() for column in table.columns]

    def decode(place: int) -> pa.Array:
        values = _trimmed(columns[place])
        _check_cells(values, delimiter, certain)
        masked = f"{names[place]}.mask"  # astropy's, where values under a mask are kept
        if units is not None and names.count(masked) == 1:
            hidden = pc.equal(pc.utf8_lower(_trimmed(columns[names.index(masked)])), "true")
            values = pc.if_else(pc.fill_null(hidden, False), pa.scalar(None, pa.string()), values)
        return values

    return RawTable(path, tuple(names), len(columns[0]) if columns else 0, units or {}, units is not None, decode)


def _trimmed(column: pa.Array) -> pa.Array:
    texts = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.is_in(texts, pa.array(_NULLS)), pa.scalar(None, pa.string()), texts)


def _check_cells(values: pa.Array, delimiter: str, certain: bool) -> None:
    """ValueError for cells that could be taken for something else than what was meant."""
    if not certain:
        odd = pc.index(pc.string_is_ascii(values), False).as_py()
        if odd >= 0:
            raise ValueError(
                f"holds {values[odd].as_py()[:40]!r} in row {odd + 1}, and the file is no UTF-8; save it so"
            )
    known = pc.drop_null(values)
    if delimiter != "," and len(known) and pc.all(pc.match_substring_regex(known, _NUMBER_WITH_COMMA)).as_py():
        comma = pc.index(pc.match_substring(values, ","), True).as_py()
        if comma >= 0:
            raise ValueError(
                f"holds {values[comma].as_py()[:40]!r} in row {comma + 1}, a decimal comma; "
                f"expected decimal points: export the table again with them (columns between "
                f"{_DELIMITERS.get(delimiter, repr(delimiter))} are fine)"
            )


def _header(path: Path, content: str, delimiter: str | None) -> tuple[list[str], int, str]:
    """(column names, where the rows start, delimiter). SkyServer's `#Table1` and other comments above are passed over.

    A commented line right above the rows (`# name,ra,dec,z`) is taken as the header, as names are no numbers.
    """
    start, commented = 0, ""
    while content.startswith("#", start) or content[start : start + 1] in ("\n", "\r"):
        end = _line_end(content, start)
        commented, start = content[start:end].lstrip("#").strip() or commented, end
    end = _line_end(content, start)
    line = content[start:end]
    delimiter = delimiter or max(_DELIMITERS, key=lambda one: len(_cells(line, one)))
    header, above = _cells(line, delimiter), _cells(commented, delimiter)
    if len(header) == 1 and len(line.split()) > 1:
        raise BadInput(
            f"--table {path}: its first line {line.strip()[:60]!r} has neither commas, semicolons, tabs nor bars; "
            "expected a header with one of them between the names: write the table as CSV"
        )
    if len(above) == len(header) and all(above) and any(map(_is_number, header)) and not any(map(_is_number, above)):
        return above, start, delimiter
    return header, end, delimiter


def _line_end(content: str, start: int) -> int:
    end = content.find("\n", start)
    return len(content) if end < 0 else end + 1


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line.strip("\r\n")], delimiter=delimiter), [])]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


# ECSV: comment lines with YAML, then a table (github.com/astropy/astropy-APEs, APE 6)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain values only: objects of astropy's come as the mapping or text that they are written as."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge keys (`<<`) are left unknown: a few lines of them unfold to any size."""


def _plain(loader: _Loader, _: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return None if isinstance(node, yaml.SequenceNode) else node.value


_Loader.add_multi_constructor("!", _plain)


def described(text: str) -> tuple[list[tuple[str, str | None]], dict[str, object]]:
    """([(column, its unit or None)], all that the YAML says), of the YAML that astropy writes into ECSV and Parquet."""
    try:
        if len(text) > _LONGEST_DESCRIPTION:
            raise ValueError(f"{len(text)} characters")
        said = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
        columns = [(_plain_text(column["name"]), column.get("unit")) for column in said["datatype"]]
    except (yaml.YAMLError, RecursionError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"its header's description of the columns makes no sense: {str(error)[:100]}") from None
    units = [(name, unit.get("unit") if isinstance(unit, dict) else unit) for name, unit in columns]
    return [(name, None if unit is None else _plain_text(unit)) for name, unit in units], said


def _plain_text(value: object) -> str:
    """A name or unit as text; lists, which aliases can make endless, only by their kind."""
    return str(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def _ecsv(path: Path, content: str, certain: bool) -> RawTable:
    start, said = 0, []
    while content.startswith("#", start):
        end = _line_end(content, start)
        said.append(content[start:end].strip("\r\n").removeprefix("#").removeprefix(" "))
        start = end
    units, header = described("\n".join(said[1:]))
    delimiter = header.get("delimiter", " ")
    if delimiter not in (" ", ","):
        raise ValueError(f"delimiter = {delimiter!r}; expected a space or a comma")
    body = content[start:].lstrip("\r\n")
    if delimiter == " " and '"' not in body:  # written by hand: spaces to line the columns up
        body = re.sub(r"(?m)^ +| +$", "", re.sub(" +", " ", body.replace("\r\n", "\n")))
    end = _line_end(body, 0)
    names = _cells(body[:end], str(delimiter))
    if names != (expected := [name for name, _ in units]):
        raise ValueError(
            f"its header describes columns {', '.join(expected)[:100]}, and they are {', '.join(names)[:100]}"
        )
    return _rows(path, names, body[end:], str(delimiter), certain, units_of(units))
