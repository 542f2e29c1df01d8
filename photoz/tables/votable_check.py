"""A VOTable looked through before it is parsed: astropy would follow its links and take the memory it announces."""

import math
from dataclasses import dataclass, field
from xml.parsers import expat

from photoz.redaction import shown

_BYTES = {"boolean": 1, "bit": 1, "unsignedByte": 1, "short": 2, "int": 4, "long": 8, "char": 4, "unicodeChar": 4}
_BYTES |= {"float": 4, "double": 8, "floatComplex": 8, "doubleComplex": 16}


@dataclass(frozen=True)
class FieldSeen:
    """A column as its FIELD says."""

    name: str
    unit: str
    datatype: str
    arraysize: str


@dataclass
class TableSeen:
    """A table's name, columns, and the number of rows that are written as TR."""

    name: str
    rows: int = 0
    cut_off: bool = False  # the server says that it left rows out
    fields: list[FieldSeen] = field(default_factory=list)


def look_through(data: bytes, most_bytes: int) -> list[TableSeen]:
    """The document's tables. Raises ValueError for one with entities, links to data elsewhere, packed data, or more
    than `most_bytes` of memory in its tables; also for the error that a server sent instead of a table."""
    parser = expat.ParserCreate(namespace_separator=" ")
    look = _Look(most_bytes, parser)
    parser.StartDoctypeDeclHandler = look.doctype
    parser.StartElementHandler = look.element
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(str(error)) from None
    for table in look.tables:
        table.cut_off = look.cut_off
    return look.tables


class _Look:
    """What was seen of one document."""

    def __init__(self, most_bytes: int, parser: expat.XMLParserType) -> None:
        self._most_bytes, self._parser = most_bytes, parser
        self._error: list[str] = []
        self.cut_off = False
        self._row_bytes = self._rows = 0
        self.tables: list[TableSeen] = []

    def doctype(self, *_: object) -> None:
        raise ValueError("it has a document type declaration; remove it")

    def element(self, name: str, attributes: dict[str, str]) -> None:
        tag = name.rpartition(" ")[2]
        if tag == "STREAM" and ("href" in attributes or attributes.get("encoding", "base64") != "base64"):
            raise ValueError("its data are elsewhere, or packed; save it with the data inside (TABLEDATA or BINARY)")
        if tag == "FITS":
            raise ValueError("it wraps a FITS file; save the table as FITS")
        if tag == "INFO" and attributes.get("name", "").upper() == "QUERY_STATUS":  # DALI 1.1, section 4.4
            self._status(attributes.get("value", "").upper())
        if tag == "TABLE":
            self._row_bytes = self._rows = 0
            self._announced(attributes.get("nrows", "0"))
            self.tables.append(TableSeen(attributes.get("name") or attributes.get("ID") or ""))
        elif tag == "FIELD":
            if not self.tables:
                raise ValueError("it has a FIELD outside of a TABLE")
            self.tables[-1].fields.append(_field(attributes))
            self._row_bytes += _BYTES.get(attributes.get("datatype", ""), 8) * _values(attributes.get("arraysize", "1"))
            self._check()
        elif tag == "TR":
            self._rows += 1
            if self.tables:
                self.tables[-1].rows += 1
            self._check()

    def _status(self, value: str) -> None:
        self.cut_off |= value == "OVERFLOW"
        if value == "ERROR":
            self._parser.CharacterDataHandler = self._error.append
            self._parser.EndElementHandler = self._failed

    def _failed(self, _: str) -> None:
        said = shown(" ".join("".join(self._error)[:2000].split()))[:200] or "it gives no reason"
        raise ValueError(f"it holds the error of a server and no table: {said}")

    def _announced(self, rows: str) -> None:
        self._rows = _whole(rows, "nrows")
        if self._rows > self._most_bytes:
            raise ValueError(f"nrows = {rows}, more than there can be")
        self._check()

    def _check(self) -> None:
        if self._row_bytes * max(self._rows, 1) > self._most_bytes:
            raise ValueError(f"its tables would take more than {self._most_bytes} bytes of memory")


def _field(attributes: dict[str, str]) -> FieldSeen:
    name = attributes.get("name") or attributes.get("ID") or ""
    unit, datatype = attributes.get("unit", "").strip(), attributes.get("datatype", "")
    return FieldSeen(name, unit, datatype, attributes.get("arraysize", ""))


def _values(arraysize: str) -> int:
    """How many values a cell holds: 16 for `8x2`; what follows a star is as long as the data are."""
    fixed = [part for part in arraysize.split("x") if not part.endswith("*")]
    return math.prod(_whole(part, "arraysize") for part in fixed)


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.strip().isdigit() and len(text) < 20):
        raise ValueError(f"{name} = {text[:40]!r}; expected a whole number")
    return int(text)
