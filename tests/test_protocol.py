"""The protocol of many writers: every order of steps of a small model, and drawn orders of the real code."""

from dataclasses import fields, replace

import pytest

from tests.protocol_model import Process, Rules, explore

WRITE = Process("write", "f", "bytes")
OTHERWISE = Process("write", "f", "other bytes")  # the same fingerprint made on other hardware
ANOTHER = Process("write", "g", "bytes")
REMOVE = Process("rm", "f")
SWEEP = Process("sweep", "f")

CASES = {
    "two twins and another job": [WRITE, WRITE, ANOTHER],
    "twins that make other bytes": [WRITE, OTHERWISE, WRITE],
    "a twin beside a removal": [WRITE, OTHERWISE, REMOVE],
    "two removals": [WRITE, REMOVE, REMOVE],
    "a removal that died": [WRITE, REMOVE, SWEEP, WRITE],
    "two jobs and a removal": [WRITE, ANOTHER, REMOVE],
}


@pytest.mark.parametrize("case", CASES)
def test_in_no_order_of_steps_and_deaths_is_a_promise_broken(case: str) -> None:
    states, wrong = explore(CASES[case], Rules())
    assert wrong is None
    assert states > 500


@pytest.mark.parametrize("rule", [rule.name for rule in fields(Rules)])
def test_each_rule_is_needed_and_the_model_tells(rule: str) -> None:
    bent = replace(Rules(), **{rule: False})
    assert any(explore(processes, bent)[1] for processes in CASES.values())
