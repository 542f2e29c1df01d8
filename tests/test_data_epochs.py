"""The order in which training sees samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from photoz.data import EpochPlan
from photoz.errors import BadInput


@st.composite
def plans(draw: st.DrawFn) -> list[EpochPlan]:
    """The plans of all ranks of a world."""
    world, seed = draw(st.integers(1, 7)), draw(st.integers(0, 9))
    samples, batch_size = draw(st.integers(world, 300)), draw(st.integers(world, 40))
    return [EpochPlan(samples, batch_size, seed, rank, world) for rank in range(world)]


def together(ranks: list[EpochPlan], epoch: int, start: int = 0) -> list[list[int]]:
    """The samples of all ranks at each step, sorted."""
    steps = zip(*(plan.batches(epoch, start) for plan in ranks), strict=True)
    return [sorted(int(i) for batch in step for i in batch) for step in steps]


@given(plans(), st.integers(0, 5))
def test_every_sample_comes_exactly_once_an_epoch(ranks: list[EpochPlan], epoch: int) -> None:
    seen = [sample for step in together(ranks, epoch) for sample in step]
    assert sorted(seen) == list(range(ranks[0].samples))


@given(plans())
def test_all_ranks_take_the_same_steps_in_batches_of_equal_size_and_none_is_idle(ranks: list[EpochPlan]) -> None:
    shares = [[len(batch) for batch in plan.batches(0)] for plan in ranks]
    totals = [sum(step) for step in zip(*shares, strict=True)]
    assert totals == [ranks[0].step_size(step) for step in range(ranks[0].steps)]
    assert max(totals) - min(totals) <= 1
    for step in zip(*shares, strict=True):
        assert min(step) >= 1 and max(step) - min(step) <= 1


@given(plans())
def test_batches_are_as_large_as_asked_for_wherever_every_rank_can_have_a_share(ranks: list[EpochPlan]) -> None:
    plan = ranks[0]
    sizes = [plan.step_size(step) for step in range(plan.steps)]
    assert max(sizes) <= plan.batch_size or plan.steps == plan.samples // plan.world


@given(plans(), st.integers(0, 5), st.floats(0, 1))
def test_an_epoch_taken_up_at_any_step_goes_on_as_if_unbroken(ranks: list[EpochPlan], epoch: int, share: float) -> None:
    for plan in ranks:
        start = int(share * plan.steps)
        unbroken, resumed = list(plan.batches(epoch)), list(plan.batches(epoch, start))
        assert len(resumed) == plan.steps - start
        assert all(np.array_equal(a, b) for a, b in zip(unbroken[start:], resumed, strict=True))


@given(
    samples=st.integers(50, 300), batch=st.integers(8, 30), worlds=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    share=st.floats(0, 1),
)  # fmt: skip
def test_another_number_of_ranks_takes_an_epoch_up_where_it_was(
    samples: int, batch: int, worlds: tuple[int, int], share: float
) -> None:
    before, after = ([EpochPlan(samples, batch, 3, rank, world) for rank in range(world)] for world in worlds)
    start = int(share * before[0].steps)
    assert together(before, 2)[:start] + together(after, 2, start) == together(before, 2)


def test_epochs_and_seeds_are_shuffled_each_in_its_own_way() -> None:
    orders = [tuple(EpochPlan(100, 10, seed=seed).order(epoch)) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9


def test_the_order_is_the_same_on_every_machine() -> None:
    assert EpochPlan(10, 4, seed=0).order(0).tolist() == [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]


@pytest.mark.parametrize("wrong", [{"samples": 1}, {"batch_size": 1}, {"rank": 2}, {"seed": -1}])
def test_a_plan_that_can_t_work_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(BadInput):
        EpochPlan(**{"samples": 10, "batch_size": 2, "world": 2} | wrong)
