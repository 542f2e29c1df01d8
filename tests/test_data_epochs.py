"""The order in which training sees samples."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from photoz.data import EpochPlan
from photoz.errors import BadInput

SIZES = {"samples": st.integers(1, 300), "batch_size": st.integers(1, 40), "world": st.integers(1, 7)}


def ranks(samples: int, batch_size: int, world: int) -> list[EpochPlan]:
    return [EpochPlan(samples, batch_size, seed=5, rank=rank, world=world) for rank in range(world)]


@given(**SIZES)
def test_every_sample_comes_once_an_epoch_but_for_the_few_that_fill_the_last_turn(
    samples: int, batch_size: int, world: int
) -> None:
    seen = Counter(int(i) for plan in ranks(samples, batch_size, world) for batch in plan.batches(3) for i in batch)
    assert set(seen) == set(range(samples))
    assert seen.total() - samples < world
    assert samples < world or max(seen.values()) <= 2


@given(**SIZES)
def test_all_ranks_take_the_same_steps_in_batches_of_equal_size(samples: int, batch_size: int, world: int) -> None:
    plans = ranks(samples, batch_size, world)
    sizes = {tuple(map(len, plan.batches(0))) for plan in plans}
    assert len(sizes) == 1
    (one,) = sizes
    assert len(one) == plans[0].steps
    assert max(one) <= batch_size and max(one) - min(one) <= 1


@given(**SIZES, epoch=st.integers(0, 5), share=st.floats(0, 1))
def test_an_epoch_taken_up_at_any_step_goes_on_as_if_unbroken(
    samples: int, batch_size: int, world: int, epoch: int, share: float
) -> None:
    plan = EpochPlan(samples, batch_size, seed=1, rank=world - 1, world=world)
    start = int(share * plan.steps)
    unbroken = list(plan.batches(epoch))
    resumed = list(plan.batches(epoch, start))
    assert len(resumed) == plan.steps - start
    assert all(np.array_equal(a, b) for a, b in zip(unbroken[start:], resumed, strict=True))


def test_epochs_and_seeds_are_shuffled_each_in_its_own_way() -> None:
    orders = [tuple(EpochPlan(100, 10, seed=seed).order(epoch)) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9


def test_the_order_is_the_same_on_every_machine() -> None:
    assert EpochPlan(10, 4, seed=0).order(0).tolist() == [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"batch_size": 0}, {"rank": 2}, {"seed": -1}])
def test_a_plan_that_can_t_work_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(BadInput):
        EpochPlan(**{"samples": 10, "batch_size": 2, "world": 2} | wrong)
