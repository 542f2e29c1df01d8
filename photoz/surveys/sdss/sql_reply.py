"""SkyServer's CSV replies: told apart from errors, web pages and cut-off text, then parsed with exact types."""

import io
import re

import pyarrow as pa
import pyarrow.csv as pa_csv

from photoz.errors import PhotozError

LOOKED_AT = 20_000  # characters of what is no table: a message stands at the start
NULLS = ["", "null", "NULL", "nan", "NaN"]
_BUSY = re.compile(
    r"queries allowed per minute|too many (queries|requests)|server (is )?(too )?busy|deadlock|"
    r"transport-level error|connection (was )?(closed|reset|lost)|temporarily unavailable|under maintenance",
    re.IGNORECASE,
)
_TOO_SLOW = re.compile(r"timeout (period|expired)|time limit|timed out|exceeded .{0,40}seconds", re.IGNORECASE)
_SQL_COMPLAINT = re.compile(
    r"incorrect syntax|invalid (column|object) name|not a recognized|ambiguous|could not be bound|overflow|"
    r"conver(sion|ting)|divide by zero|must declare|(is|are) not allowed|permission|is too long",
    re.IGNORECASE,
)


class TransientReply(Exception):
    """A reply that the same query may not get again: cut off, a web page, or `busy`."""


class SlowQuery(Exception):
    """The server gave up on the query; asking again at once would only keep it busy."""


class RefusedQuery(PhotozError):
    """The server read the query and will not answer it, however often it is asked."""


def parse_reply(text: str, schema: pa.Schema, row_limit: int) -> pa.Table:
    """The rows of a CSV reply, its columns checked against `schema`.

    Raises TransientReply, SlowQuery or RefusedQuery for anything but a whole table with fewer rows than `row_limit`.
    """
    body = text.removeprefix("﻿").lstrip()
    if not body:
        raise TransientReply("the reply is empty")
    if body.startswith("<"):
        _raise_page(body)
    header, start = _header(body)
    if not header:
        raise TransientReply("the reply ends before the names of its columns")
    names = [name.strip().lower() for name in header.split(",")]
    if names != [name.lower() for name in schema.names]:
        _raise_error(body, schema)
    if not body.endswith("\n"):
        raise TransientReply("the reply ends in the middle of a line")
    rows = _parse_rows(body[start:], schema)
    if rows.num_rows >= row_limit:
        raise RefusedQuery(f"a reply came back with {rows.num_rows} rows, the server's limit, so rows are missing")
    return rows


def _header(body: str) -> tuple[str, int]:
    """(header line, where the rows start), past SkyServer's `#Table1`."""
    start = 0
    while body.startswith("#", start):
        start = body.find("\n", start) + 1
        if start == 0:
            raise TransientReply("the reply ends in the middle of a line")
    end = body.find("\n", start)
    end = len(body) if end < 0 else end + 1
    return body[start:end].strip("\r\n"), end


def _parse_rows(body: str, schema: pa.Schema) -> pa.Table:
    if not body.strip():
        return schema.empty_table()
    try:
        return pa_csv.read_csv(
            io.BytesIO(body.encode()),
            read_options=pa_csv.ReadOptions(column_names=schema.names, use_threads=False),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict(zip(schema.names, schema.types, strict=True)), null_values=NULLS
            ),
        ).cast(schema)
    except pa.ArrowInvalid as error:
        refuse_error(body)
        raise TransientReply(f"the reply is no table: {_first_line(str(error))}") from None


def _raise_page(body: str) -> None:
    plain = re.sub(r"<(script|style).*?</\1>|<[^<>]+>", " ", body[:LOOKED_AT], flags=re.DOTALL | re.IGNORECASE)
    refuse_error(plain)
    raise TransientReply(f"a web page came instead of a table: {_first_line(plain)}")


def _raise_error(body: str, schema: pa.Schema) -> None:
    refuse_error(body)
    if re.search(r"error", body[:500], re.IGNORECASE):
        raise RefusedQuery(f"the server refuses the query: {_first_line(body)}")
    if not body.endswith("\n"):
        raise TransientReply("the reply ends in the middle of a line")
    # A server that knows the columns gives them their names: bytes were damaged on the way.
    raise TransientReply(f"the columns {_first_line(body)} came back, expected {','.join(schema.names)[:80]}")


def refuse_error(text: str) -> None:
    """Raise what a known error message calls for; do nothing if the text holds none."""
    text = text[:LOOKED_AT]
    said = _first_line(text)
    if _BUSY.search(text):
        raise TransientReply(f"the server is busy: {said}")
    if _TOO_SLOW.search(text):
        raise SlowQuery(f"the query takes longer than the server allows: {said}")
    if _SQL_COMPLAINT.search(text):
        raise RefusedQuery(f"the server refuses the query: {said}")


def _first_line(text: str) -> str:
    return " ".join(text[:LOOKED_AT].split())[:200]
