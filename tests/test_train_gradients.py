"""The mean of the ranks' gradients on CPUs, through shared memory and through gloo."""

import multiprocessing
import os
import signal
import socket
import threading
import time
from multiprocessing.context import SpawnProcess

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from photoz import runtime
from photoz.errors import BadInput, ExitCode, PhotozError
from photoz.runtime import World
from photoz.train import distributed
from photoz.train.gradients import averaging
from photoz.train.shared_sum import RankLost, SharedSum, new_file, open_file

CPU = torch.device("cpu")
STEPS = 5
Found = tuple[int, list[list[NDArray[np.float32]]], list[list[float]]]  # rank, and gradients and totals of each step


class Network(nn.Module):
    """Weights in two orders in memory, and one that nothing depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.linear = nn.Linear(5, 7)
        self.unused = nn.Parameter(torch.zeros(11))

    def used(self) -> list[nn.Parameter]:
        """All but the one."""
        return [*self.convolution.parameters(), *self.linear.parameters()]


def gradients_of(rank: int, step: int, network: Network) -> list[torch.Tensor]:
    """What a rank's backward pass would leave."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    return [torch.empty_like(p).copy_(torch.randn(p.shape, generator=generator)) for p in network.used()]


def averages(rank: int, size: int, local_size: int, port: int, results: "multiprocessing.Queue[Found]") -> None:
    torch.set_num_threads(1)
    world, network = World(rank, rank, size, local_size), Network()
    means, totals = [], []
    with runtime.acting_as(world, port), distributed.joined(world, CPU, 60):
        with averaging(network, world, CPU, 60) as average:
            for step in range(STEPS):
                for parameter, gradient in zip(network.used(), gradients_of(rank, step, network), strict=True):
                    parameter.grad = gradient
                totals.append(average([rank, step, 0.5]))
                assert network.unused.grad is None
                found = [parameter.grad for parameter in network.used() if parameter.grad is not None]
                means.append([gradient.numpy().copy() for gradient in found])
                for gradient in found:
                    gradient.fill_(torch.nan)  # as an optimizer may; the other ranks do not see it
        distributed.wait_for_all(world)
    results.put((rank, means, totals))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.real
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("one_machine", [True, False])
def test_every_rank_gets_the_mean_of_all_gradients(size: int, one_machine: bool) -> None:
    context, port = multiprocessing.get_context("spawn"), free_port()
    results: multiprocessing.Queue[Found] = context.Queue()
    local_size = size if one_machine else 1
    ranks = [context.Process(target=averages, args=(rank, size, local_size, port, results)) for rank in range(size)]
    for process in ranks:
        process.start()
    found = sorted((results.get(timeout=120) for _ in ranks), key=lambda each: each[0])
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    _, means, totals = found[0]
    assert totals == [[sum(range(size)), size * step, size * 0.5] for step in range(STEPS)]
    for step, of_step in enumerate(means):
        each = [gradients_of(rank, step, Network()) for rank in range(size)]
        for place, mean in enumerate(of_step):
            expected = torch.stack([gradients[place] for gradients in each]).mean(0).numpy()
            np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)
    for _, theirs, told in found[1:]:
        assert told == totals
        assert all(np.array_equal(a, b) for s, t in zip(means, theirs, strict=True) for a, b in zip(s, t, strict=True))


def leaves(rank: int, size: int, port: int, how: str, errors: "multiprocessing.Queue[tuple[int, str]]") -> None:
    """Rank 1 ends in some way after its first step; the others go on."""
    world, network = World(rank, rank, size, size), Network()
    timeout_s = 3.0 if how == "silent" else 60.0
    try:
        with (
            runtime.acting_as(world, port),
            distributed.joined(world, CPU, 60),
            averaging(network, world, CPU, timeout_s) as average,
        ):
            average([0.0])
            if rank == 1 and how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if rank == 1 and how == "bad input":
                raise BadInput("only rank 1 has read it")
            if rank == 1 and how == "silent":
                time.sleep(600)
            average([0.0])
    except PhotozError as error:
        errors.put((int(error.exit_code), str(error)))


@pytest.mark.real
@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("killed", ExitCode.TRY_AGAIN, "process of rank 1 has died"),
        ("bad input", ExitCode.BAD_INPUT, "another rank ended with exit code 2"),
        ("silent", ExitCode.TRY_AGAIN, "another rank says nothing any more"),
    ],
)
def test_a_rank_that_leaves_is_not_waited_for(how: str, code: int, words: str) -> None:
    context, port = multiprocessing.get_context("spawn"), free_port()
    errors: list[multiprocessing.Queue[tuple[int, str]]] = [context.Queue() for _ in range(3)]
    ranks: list[SpawnProcess] = [
        context.Process(target=leaves, args=(rank, 3, port, how, errors[rank])) for rank in range(3)
    ]
    for process in ranks:
        process.start()
    try:
        found = [errors[rank].get(timeout=50) for rank in (0, 2)]
        assert [each[0] for each in found] == [code, code], found
        # One that finds it first leaves, too, and may be what the other one sees.
        assert any(words in message for _, message in found), found
    finally:
        for process in ranks:
            process.kill()
            process.join()


def test_memory_is_known_by_more_than_the_number_of_a_process() -> None:
    made = new_file(10, World(0, 0, 2, 2))
    if made is None:
        pytest.skip("this machine shares no memory between ranks")
    file, key = made
    same, other = open_file(key), open_file(key[::-1][-64:] + key[64:])
    assert same is not None and other is None
    assert os.fstat(same).st_ino == os.fstat(file).st_ino
    assert open_file(key[:64] + b"/proc/self/fd/987654") is None
    os.close(file)
    os.close(same)


def test_a_rank_that_has_the_sum_may_leave_and_is_missed_only_at_the_next() -> None:
    worlds = [World(rank, rank, 2, 2) for rank in range(2)]
    made = new_file(10, worlds[0])
    if made is None:
        pytest.skip("this machine shares no memory between ranks")
    other = open_file(made[1])
    assert other is not None
    first, second = (SharedSum(file, 10, world, 30) for file, world in zip((made[0], other), worlds, strict=True))

    def once() -> None:
        first.mine.fill_(1.0)
        first.sum()
        first.leave()

    thread = threading.Thread(target=once)
    thread.start()
    second.mine.fill_(2.0)
    assert second.sum().tolist() == [3.0] * 10
    thread.join()
    with pytest.raises(RankLost, match="has left"):
        second.sum()


def test_ranks_of_several_machines_share_no_memory() -> None:
    assert new_file(10, World(0, 0, 4, 2)) is None
