from collections import Counter

import pytest

from photoz.errors import BadInput
from photoz.sky.faults import KINDS, corrupted, parse_faults


def test_no_specification_means_no_faults() -> None:
    faults = parse_faults("")
    assert [faults.next_for("/x") for _ in range(20)] == [None] * 20


def test_rates_are_kept_over_many_requests() -> None:
    faults = parse_faults("429:0.2,500:0.05,reset:0.05")
    fates = Counter(faults.next_for(f"/cutout?{number}") for number in range(5000))
    assert fates["429"] / 5000 == pytest.approx(0.2, abs=0.03)
    assert fates["500"] / 5000 == pytest.approx(0.05, abs=0.015)
    assert fates[None] / 5000 == pytest.approx(0.7, abs=0.03)


def test_an_attempt_has_the_same_fate_whatever_the_order_of_requests() -> None:
    paths = [f"/cutout?{number}" for number in range(50)]
    forth, back = parse_faults("429:0.5", seed=3), parse_faults("429:0.5", seed=3)
    there = {path: [forth.next_for(path), forth.next_for(path)] for path in paths}
    again = {path: [back.next_for(path)] for path in reversed(paths)}
    for path in paths:
        again[path].append(back.next_for(path))
    assert there == again
    assert any(first != second for first, second in there.values())


@pytest.mark.parametrize("spec", ["430:0.1", "429", "429:often", "429:1.5", "429:0.7,500:0.7", ":0.1"])
def test_bad_specifications_are_refused_by_name(spec: str) -> None:
    with pytest.raises(BadInput, match="--faults"):
        parse_faults(spec)


def test_every_kind_can_be_asked_for_at_once() -> None:
    spec = ",".join(f"{kind}:{0.9 / len(KINDS):.3f}" for kind in KINDS)
    assert set(parse_faults(spec).rates) == set(KINDS)


def test_corruption_keeps_the_length_and_changes_the_bytes() -> None:
    body = bytes(range(256)) * 4
    damaged = corrupted(body, "/x")
    assert len(damaged) == len(body)
    assert damaged != body
    assert damaged == corrupted(body, "/x")
