"""`--where "zconf >= 2 and class == 'GALAXY'"`: a small language of comparisons over a table's own columns."""

import difflib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from photoz.errors import BadInput
from photoz.tables.rows import TableRows, as_floats, is_text, without_excel

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<text>'[^']*'|"[^"]*")|(?P<quoted>`[^`]+`)"""
    r"""|(?P<name>[^\W\d]\w*)|(?P<sign><=|>=|==|!=|<>|[<>=(),\[\]-])|(?P<odd>\S))"""
)
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal, "==": pc.equal, "!=": pc.not_equal,
}  # fmt: skip
_SPELT = {"=": "==", "<>": "!="}  # as SQL writes them
_EXPECTED = (
    "expected comparisons with numbers or 'text', joined by and, or, not, such as "
    "\"zconf >= 2 and class == 'GALAXY'\"; "
    "names with signs or spaces go into `backticks`"
)
_DEEPEST = 50
_NARROW = {pa.float16(): np.float16, pa.float32(): np.float32}
_EXACT = 2**53  # up to here float64 holds every whole number

Mask = npt.NDArray[np.bool_]


class _Token(NamedTuple):
    kind: str
    text: str


class _Operand(NamedTuple):
    """A column or a literal, and how the user wrote it."""

    value: Any
    written: str


def select_rows(rows: TableRows, expression: str) -> TableRows:
    """The rows for which the expression is true; an empty cell makes a comparison neither true nor false.

    BadInput for a name that is no column, or for anything else than comparisons, `in`, and, or, not and parentheses.
    """
    selected = _Parser(rows, expression).parse()
    return TableRows(rows.path, rows.raw, np.flatnonzero(selected))


class _Parser:
    """Recursive descent; each rule returns an Arrow array of booleans with nulls."""

    def __init__(self, rows: TableRows, expression: str) -> None:
        self.rows, self.expression = rows, expression
        self.tokens = [
            _Token(str(match.lastgroup), match[match.lastgroup or 0]) for match in _TOKEN.finditer(expression)
        ]
        self.at = self.depth = 0

    def parse(self) -> Mask:
        odd = next((token for token in self.tokens if token.kind == "odd"), None)
        if odd is not None:
            raise self.refusal(f"{odd.text!r} can't be used; {_EXPECTED}")
        selected = self.either()
        if self.at < len(self.tokens):
            raise self.refusal(f"did not expect {self.tokens[self.at].text!r}; {_EXPECTED}")
        mask: Mask = pc.fill_null(selected, False).to_numpy(zero_copy_only=False)
        return mask

    def refusal(self, message: str) -> BadInput:
        return BadInput(f"--where {self.expression[:200]!r}: {message}")

    def word(self, *texts: str) -> str | None:
        """Take the next token if it is one of these words or signs."""
        if self.at == len(self.tokens) or self.tokens[self.at].kind not in ("name", "sign"):
            return None
        text = self.tokens[self.at].text.lower()
        if text in texts:
            self.at += 1
            return text
        return None

    def either(self) -> pa.Array:
        found = self.both()
        while self.word("or"):
            found = pc.or_kleene(found, self.both())
        return found

    def both(self) -> pa.Array:
        found = self.one()
        while self.word("and"):
            found = pc.and_kleene(found, self.one())
        return found

    def one(self) -> pa.Array:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.refusal(f"nested more than {_DEEPEST} deep; expected a simpler condition")
        if self.word("not"):
            found = pc.invert(self.one())
        elif self.word("("):
            found = self.either()
            if not self.word(")"):
                raise self.refusal("a parenthesis is not closed; expected ')'")
        else:
            found = self.comparison()
        self.depth -= 1
        return found

    def comparison(self) -> pa.Array:
        left = self.operand()
        negated = self.word("not")
        if self.word("in"):
            found = self.member(left)
            return pc.invert(found) if negated else found
        found = None
        while sign := self.word(*_COMPARE, *_SPELT):
            right = self.operand()
            one = self.compare(_SPELT.get(sign, sign), left, right)
            found, left = (one if found is None else pc.and_kleene(found, one)), right
        if found is not None:
            return found
        if isinstance(left.value, pa.Array) and pa.types.is_boolean(left.value.type):
            return left.value
        raise self.refusal(f"{left.written} is compared with nothing; {_EXPECTED}")

    def member(self, left: _Operand) -> pa.Array:
        if not self.word("(", "["):
            raise self.refusal("expected a list after in, such as flag in (0, 1)")
        found = self.compare("==", left, self.operand())
        while self.word(","):
            found = pc.or_kleene(found, self.compare("==", left, self.operand()))
        if not self.word(")", "]"):
            raise self.refusal("the list after in is not closed; expected ')'")
        return found

    def operand(self) -> _Operand:
        minus = -1 if self.word("-") else 1
        if self.at == len(self.tokens):
            raise self.refusal(f"it ends too early; {_EXPECTED}")
        kind, text = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            return _Operand(minus * (int(text) if text.isdigit() and len(text) < 20 else float(text)), text)
        if minus == -1 or kind == "sign" or (kind == "name" and text.lower() in ("and", "or", "not", "in")):
            raise self.refusal(f"did not expect {text!r}; {_EXPECTED}")
        if kind == "text":
            return _Operand(text[1:-1], text)
        name = text.strip("`")
        if name in self.rows.names:
            return _Operand(self.rows.column(name), name)
        if name.lower() in ("true", "false"):
            return _Operand(name.lower() == "true", name)
        near = difflib.get_close_matches(name, self.rows.names, n=3, cutoff=0.5)
        near += [other for other in self.rows.names if other.lower() == name.lower() and other not in near]
        said = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(self.rows.names)[:400]}"
        raise self.refusal(f"the table has no column {name!r}; {said} (text needs quotes: '{name}')")

    def compare(self, sign: str, left: _Operand, right: _Operand) -> pa.Array:
        literals = [one for one in (left, right) if not isinstance(one.value, pa.Array)]
        if len(literals) == 2:
            raise self.refusal(f"{left.written} {sign} {right.written} compares no column; {_EXPECTED}")
        if literals and isinstance(literals[0].value, str):
            if sign not in ("==", "!="):
                raise self.refusal(f"{literals[0].written} is text; expected == or != with it, or a number")
            return _COMPARE[sign](self.texts(left), self.texts(right))
        if literals and isinstance(literals[0].value, bool):
            return _COMPARE[sign](self.booleans(left), self.booleans(right))
        return _COMPARE[sign](*self.numbers(left, right))

    def texts(self, one: _Operand) -> Any:
        if not isinstance(one.value, pa.Array):
            return one.value
        if not is_text(one.value):
            raise self.refusal(f"column {one.written} holds {one.value.type}, no text; expected a number beside it")
        return pc.utf8_trim_whitespace(without_excel(one.value.cast(pa.string())))

    def booleans(self, one: _Operand) -> Any:
        if isinstance(one.value, pa.Array) and not pa.types.is_boolean(one.value.type):
            raise self.refusal(f"column {one.written} holds {one.value.type}; expected a number or 'text' beside it")
        return one.value

    def numbers(self, left: _Operand, right: _Operand) -> list[Any]:
        """Both as whole numbers if they are, as float64 has no room for long ids; else as float64."""
        for kind in (pa.int64(), pa.uint64()):
            try:
                return [_whole(one.value, kind) for one in (left, right)]
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OverflowError):
                continue
        columns = [one for one in (left, right) if isinstance(one.value, pa.Array)]
        inexact = [one for one in columns if is_text(one.value) or pa.types.is_floating(one.value.type)]
        long = [one for one in (left, right) if isinstance(one.value, int) and abs(one.value) > _EXACT]
        if long and inexact:
            raise self.refusal(
                f"{long[0].value} has more digits than column {inexact[0].written} ({inexact[0].value.type}) can be "
                f"compared by; expected a column of whole numbers, or == '{long[0].value}' with text"
            )
        narrow = next((_NARROW[one.value.type] for one in columns if one.value.type in _NARROW), float)
        return [self.floats(one, narrow) for one in (left, right)]

    def floats(self, one: _Operand, literal: Callable[[Any], Any]) -> Any:
        """As float64, a literal beside a column of float32 as that float32: 3.4 is another number there."""
        if not isinstance(one.value, pa.Array):
            with np.errstate(over="ignore"):
                return pa.scalar(float(literal(one.value)), pa.float64())
        values = as_floats(one.value.cast(pa.int64()) if pa.types.is_boolean(one.value.type) else one.value)
        return self.rows.floats(one.written) if values is None else values


def _whole(value: Any, kind: pa.DataType) -> Any:
    """A number or a column as whole numbers of that type; ArrowInvalid or OverflowError if some do not fit."""
    if isinstance(value, float) or (isinstance(value, pa.Array) and pa.types.is_floating(value.type)):
        raise pa.ArrowInvalid("a fraction")
    if not isinstance(value, pa.Array):
        return pa.scalar(value, kind)
    return (pc.utf8_trim_whitespace(without_excel(value.cast(pa.string()))) if is_text(value) else value).cast(kind)
