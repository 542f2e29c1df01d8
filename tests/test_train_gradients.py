"""The mean of the ranks' gradients on CPUs."""

import multiprocessing
import os
import signal
import socket
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
from photoz.train.gradients import Told, average_gradients

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


def averages(rank: int, size: int, port: int, results: "multiprocessing.Queue[Found]") -> None:
    torch.set_num_threads(1)
    world, network = World(rank, rank, size, size), Network()
    means, totals = [], []
    with runtime.acting_as(world, port), distributed.joined(world, CPU, 60):
        for step in range(STEPS):
            for parameter, gradient in zip(network.used(), gradients_of(rank, step, network), strict=True):
                parameter.grad = gradient
            told = average_gradients(list(network.parameters()), Told(stop=rank, loss_sum=step), world, CPU)
            assert told is not None
            totals.append(list(told))
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
def test_every_rank_gets_the_mean_of_all_gradients(size: int) -> None:
    context, port = multiprocessing.get_context("spawn"), free_port()
    results: multiprocessing.Queue[Found] = context.Queue()
    ranks = [context.Process(target=averages, args=(rank, size, port, results)) for rank in range(size)]
    for process in ranks:
        process.start()
    found = sorted((results.get(timeout=120) for _ in ranks), key=lambda each: each[0])
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    _, means, totals = found[0]
    assert totals == [list(Told(stop=sum(range(size)), loss_sum=size * step)) for step in range(STEPS)]
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
    timeout_s = 8.0 if how == "silent" else 60.0
    try:
        with runtime.acting_as(world, port), distributed.joined(world, CPU, timeout_s):
            average_gradients(list(network.parameters()), Told(), world, CPU)
            if rank == 1 and how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if rank == 1 and how == "bad input":
                raise BadInput("only rank 1 has read it")
            if rank == 1 and how == "silent":
                time.sleep(600)
            average_gradients(list(network.parameters()), Told(), world, CPU)
    except PhotozError as error:
        errors.put((int(error.exit_code), str(error)))


@pytest.mark.real
@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("killed", ExitCode.TRY_AGAIN, "another rank is gone"),
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
