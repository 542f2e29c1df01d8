"""Whatever bytes a store, a survey or a user's folder holds: a value or one clear error, never a traceback."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import ALLOWED, TARGETS, Target, manifest, outcome, repaired

FINDINGS = Path(__file__).parent / "fuzz" / "findings"
EXAMPLES = 60
FIGURES = [0, -1, 1, 2, 7, 255, 256, 1000, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63, 10**30, -(2**63)]
ODD_TEXTS = ["", "..", "../../etc/passwd", "/etc/passwd", "\x00", "\x1b[2J", "a" * 300, "é", "con", "NaN", "\u202e"]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(FIGURES),
    st.floats(),
    st.sampled_from(ODD_TEXTS),
    st.text(max_size=20),
    st.just([]),
    st.just({}),
    st.just([[[[[]]]]]),
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Readers may warn of what they find odd; here that is no error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def damaged(seed: bytes, data: st.DataObject) -> bytes:
    """The bytes with a few of them changed, left out, put in, repeated, or replaced by a number in digits."""
    found = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(found) - 1, 0)))
        length = data.draw(st.integers(0, 40))
        kind = data.draw(st.sampled_from(["flip", "cut", "drop", "repeat", "insert", "number", "binary"]))
        if kind == "flip" and found:
            found[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del found[at:]
        elif kind == "drop":
            del found[at : at + length]
        elif kind == "repeat":
            found[at:at] = found[at : at + length] * data.draw(st.integers(1, 20))
        elif kind == "insert":
            found[at:at] = data.draw(st.binary(max_size=12))
        elif kind == "number":
            digits = str(data.draw(st.sampled_from(FIGURES))).encode()
            found[at : at + len(digits)] = digits
        else:
            found[at : at + 4] = (data.draw(st.sampled_from(FIGURES)) % 2**32).to_bytes(4, "big")
    return repaired(bytes(found))


@pytest.mark.parametrize("name", sorted(TARGETS))
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_damaged_bytes_give_a_value_or_a_clear_error(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    outcome(target, damaged(data.draw(st.sampled_from(target.seeds)), data))


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_undamaged_bytes_are_read(name: str) -> None:
    target = TARGETS[name]
    found = {outcome(target, seed) for seed in target.seeds}
    assert "value" in found
    assert outcome(target, b"") != "value" or name == "image"


@pytest.mark.parametrize("path", sorted(FINDINGS.rglob("*-*")), ids=lambda path: f"{path.parent.name}-{path.name[:16]}")
def test_what_fuzzing_once_found_stays_mended(path: Path) -> None:
    outcome(TARGETS[path.parent.name], repaired(path.read_bytes()))


def altered(document: Any, data: st.DataObject) -> Any:
    """The document with one value, somewhere in it, replaced, removed or renamed."""
    if isinstance(document, dict) and document and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(document)))
        kind = data.draw(st.sampled_from(["inside", "drop", "rename", "more"]))
        rest = {name: value for name, value in document.items() if name != key}
        if kind == "drop":
            return rest
        if kind == "rename":
            return rest | {data.draw(st.text(max_size=5)): document[key]}
        if kind == "more":
            return document | {data.draw(st.text(max_size=5)): data.draw(ODD)}
        return rest | {key: altered(document[key], data)}
    if isinstance(document, dict) and document:
        key = data.draw(st.sampled_from(sorted(document)))
        return document | {key: altered(document[key], data)}
    if isinstance(document, list) and document:
        at = data.draw(st.integers(0, len(document) - 1))
        return [*document[:at], altered(document[at], data), *document[at + 1 :]]
    return data.draw(ODD)


@pytest.mark.parametrize("name", ["manifest", "receipt", "image"])
@settings(max_examples=3 * EXAMPLES)
@given(data=st.data())
def test_altered_documents_give_a_value_or_a_clear_error(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    document = json.loads(target.seeds[0])
    for _ in range(data.draw(st.integers(1, 3))):
        document = altered(document, data)
    outcome(target, json.dumps(document).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"version": 10**9},
        {"version": 0},
        {"summary": {"rows": float("nan")}},
        {"inputs": [{"ref": "../../x", "manifest_sha256": "0" * 64, "payload_sha256": "0" * 64}]},
        {"name": "a\n"},
        {"created_at": "\ud800"},
        {"files": [1]},
        {"kind": "pickle"},
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    document = json.loads(manifest().encode()) | change
    assert outcome(TARGETS["manifest"], json.dumps(document).encode()) == "BadFormat"


@pytest.mark.parametrize("depth", [200, 100_000])
def test_deep_nesting_is_no_way_to_stop_a_reader(depth: int) -> None:
    nested = manifest().encode()[:-1] + b', "summary": {"a": ' + b"[" * depth + b"]" * depth + b"}}"
    assert outcome(TARGETS["manifest"], nested) == ("value" if depth == 200 else "BadFormat")
    assert outcome(TARGETS["receipt"], b"[" * depth) == "BadFormat"


def test_the_outcome_of_a_reader_that_breaks_is_no_allowed_one() -> None:
    with pytest.raises(ZeroDivisionError):
        outcome(Target(lambda data: 1 // len(data), (b"x",)), b"")
    assert all(issubclass(error, Exception) and error is not Exception for error in ALLOWED)
