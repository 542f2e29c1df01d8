"""Sums over the ranks of one machine, through memory that they share."""

import fcntl
import mmap
import os
import platform
import secrets
import time
from contextlib import suppress

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from photoz.runtime import World

_TOKEN_BYTES = 64  # at the start, by which the others know the file
_HEADER_BYTES = 4096
_MOST_RANKS = (_HEADER_BYTES - _TOKEN_BYTES) // 16  # with a counter and a mark each
_SPIN_S, _NAP_S, _PROBE_S = 0.05, 0.001, 1.0


class RankLost(dist.DistError):
    """Another rank has left, or says nothing any more."""


class SharedSum:
    """A row of float32 numbers for each rank, and the sum of all rows; each rank adds up a part of every row.

    Ranks meet twice a sum, by counters in the memory. One that has died is known by a lock on the file that it held.
    """

    def __init__(self, file: int, numbers: int, world: World, timeout_s: float) -> None:
        self._file, self._world, self._timeout_s = file, world, timeout_s
        memory = mmap.mmap(file, _bytes(numbers, world))
        self._meetings_r, self._gone_r = np.frombuffer(memory, np.int64, 2 * world.size, _TOKEN_BYTES).reshape(2, -1)
        rows = np.frombuffer(memory, np.float32, offset=_HEADER_BYTES).reshape(world.size + 1, numbers)
        *self._rows, self._sum = torch.from_numpy(rows).unbind()
        first, end = (numbers * rank // world.size for rank in (world.rank, world.rank + 1))
        self._parts = [row[first:end] for row in self._rows]
        self._part_of_sum = self._sum[first:end]
        self._meetings = 0
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, world.rank)

    @property
    def mine(self) -> torch.Tensor:
        """This rank's row, to be written before each sum."""
        return self._rows[self._world.rank]

    def sum(self) -> torch.Tensor:
        """The sum of all rows, the same bits on every rank; to be read before the next sum. Raises RankLost."""
        self._meet()
        torch.add(*self._parts[:2], out=self._part_of_sum)
        for part in self._parts[2:]:
            self._part_of_sum += part
        self._meet()
        return self._sum

    def leave(self) -> None:
        """Tell the others not to wait for this rank any more."""
        self._gone_r[self._world.rank] = 1

    def _meet(self) -> None:
        """Return once all ranks have come here as often as this one."""
        self._meetings += 1
        self._meetings_r[self._world.rank] = self._meetings
        began = probed = time.monotonic()
        while True:
            # In this order: a rank may come here, go on, and leave between the two.
            gone_r = self._gone_r.copy()
            missing_r = self._meetings_r < self._meetings
            if not missing_r.any():
                return
            if gone_r[missing_r].any():
                raise RankLost("it has left")
            now = time.monotonic()
            if now - began > self._timeout_s:
                raise RankLost(f"timed out after {self._timeout_s:g} s")
            if now - probed > _PROBE_S:
                self._look_for_dead(missing_r)
                probed = now
            if now - began < _SPIN_S:
                os.sched_yield()
            else:
                time.sleep(_NAP_S)

    def _look_for_dead(self, missing_r: NDArray[np.bool_]) -> None:
        for rank in np.flatnonzero(missing_r).tolist():
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, rank)
            except OSError:  # its owner lives
                continue
            if self._meetings_r[rank] < self._meetings:  # it has not come and gone on meanwhile
                raise RankLost(f"the process of rank {rank} has died")


def new_file(numbers: int, world: World) -> tuple[int, bytes] | None:
    """A file in memory for so many numbers a rank, and what the other ranks open it by.

    None where not all ranks are on this machine, or it can't share memory in this way.
    """
    # Processors other than x86 may show another core the counter before the numbers.
    able = platform.machine() == "x86_64" and hasattr(os, "memfd_create") and world.size <= _MOST_RANKS
    if world.local_size < world.size or not able:
        return None
    try:
        file = os.memfd_create("photoz-sums")
    except OSError:  # forbidden here
        return None
    token = secrets.token_bytes(_TOKEN_BYTES)
    os.pwrite(file, token, 0)
    os.ftruncate(file, _bytes(numbers, world))
    return file, token + f"/proc/{os.getpid()}/fd/{file}".encode()


def open_file(key: bytes) -> int | None:
    """Rank 0's file; None where it is not to be seen from here."""
    token, path = key[:_TOKEN_BYTES], key[_TOKEN_BYTES:]
    try:
        file = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return None
    with suppress(OSError):
        if os.pread(file, _TOKEN_BYTES, 0) == token:
            return file
    os.close(file)  # of another machine's or container's process with that number
    return None


def _bytes(numbers: int, world: World) -> int:
    return _HEADER_BYTES + 4 * numbers * (world.size + 1)
