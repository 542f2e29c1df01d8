"""What the process knows of the machine and the scheduler around it: the only reader of the environment."""

import os
import re
import select
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypeVar

from photoz.errors import BadInput, ExitCode, Preempted

T = TypeVar("T")


@dataclass(frozen=True)
class TaskSlice:
    """Slice `index` of `count` (0-based) of a job's pieces."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.index < self.count:
            raise BadInput(
                f"task {self.index} of {self.count} tasks: expected 0 <= task < tasks; "
                "check --task/--tasks or the array's range"
            )

    def take(self, pieces: Sequence[T]) -> list[T]:
        """This slice's share: every `count`-th piece, from `index` on."""
        return list(pieces[self.index :: self.count])


# Variables of the suite that no flag stands for.
OWN_VARIABLES = (
    "PHOTOZ_CACHE",
    "PHOTOZ_CACHE_SIZE",
    "PHOTOZ_COMMIT",
    "PHOTOZ_IMAGE",
    "PHOTOZ_PATIENCE",
    "PHOTOZ_TERMINATION_LOG",
    "PHOTOZ_TMPDIR",  # of containers/photoz.def
)
# What Kubernetes sets in every pod for each service of the namespace, here for those whose names start with photoz.
_SERVICE_LINK = re.compile(
    r"PHOTOZ_(?:\w+_)?(?:SERVICE_(?:HOST|PORT)(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)


def variable(name: str) -> str:
    """An environment variable's value, empty where it is not set."""
    return os.environ.get(name, "")


def unknown_variables(known: Collection[str]) -> list[str]:
    """Variables named PHOTOZ_… that are set and not in `known`; those that Kubernetes sets for services left out."""
    ours = sorted(name for name in os.environ if name.startswith("PHOTOZ_") and not _SERVICE_LINK.fullmatch(name))
    return [name for name in ours if name not in known]


def task_slice(task: int | None = None, tasks: int | None = None) -> TaskSlice:
    """The slice from the flags, else from a Slurm array or a Kubernetes Indexed Job, else the whole.

    Raises BadInput where only half of a pair is given.
    """
    if task is not None or tasks is not None:
        if tasks is not None and tasks < 1:
            raise BadInput(f"--tasks {tasks}: expected 1 or more")
        if task is None and tasks == 1:
            return TaskSlice()
        if task is None:
            task = _integer("JOB_COMPLETION_INDEX")
        if task is None or tasks is None:
            alone = f"--task {task} without --tasks" if tasks is None else f"--tasks {tasks} without --task"
            raise BadInput(f"{alone}: give both, or neither")
        return TaskSlice(task, tasks)
    first, array_task = _integer("SLURM_ARRAY_TASK_MIN"), _integer("SLURM_ARRAY_TASK_ID")
    if array_task is not None and first is not None:
        step = _integer("SLURM_ARRAY_TASK_STEP") or 1
        return TaskSlice((array_task - first) // step, _integer("SLURM_ARRAY_TASK_COUNT") or 1)
    return TaskSlice()


def _integer(variable: str) -> int | None:
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    if not text.lstrip("-").isdigit():
        raise BadInput(f"{variable}={text!r}: expected a whole number")
    return int(text)


@dataclass(frozen=True)
class World:
    """The processes that train together: this one is `rank` of `size`."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    local_size: int = 1  # processes on this machine


_RANKS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))


def world() -> World:
    """Ranks as torchrun sets them, else those of a Slurm step of several tasks; a process alone is a world of one.

    On Kubernetes torchrun sets them, in each pod of an Indexed Job. Raises BadInput for variables that make no sense.
    """
    for rank_variable, size_variable in _RANKS:
        rank, size = _integer(rank_variable), _integer(size_variable)
        if rank is None or size is None:
            continue
        if not 0 <= rank < size:
            raise BadInput(f"{rank_variable}={rank}, {size_variable}={size}: expected a rank from 0 to {size - 1}")
        if rank_variable == "RANK":
            return World(rank, _integer("LOCAL_RANK") or 0, size, _integer("LOCAL_WORLD_SIZE") or 1)
        if size > 1:
            tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "1")
            return World(
                rank, _integer("SLURM_LOCALID") or 0, size, _tasks_of_node(tasks, _integer("SLURM_NODEID") or 0)
            )
    return World()


def rank_variables() -> str:
    """The variables that make this process a rank, such as `RANK=0, WORLD_SIZE=2`; empty for a process alone."""
    for pair in _RANKS:
        if all(_integer(name) is not None for name in pair):
            return ", ".join(f"{name}={os.environ[name]}" for name in pair)
    return ""


def in_slurm_shell() -> bool:
    """Whether this looks like a command typed into a shell of `srun --pty`, where one process stands for a step."""
    return "SLURM_PROCID" in os.environ and ("SLURM_PTY_PORT" in os.environ or os.isatty(0))


def meeting_point() -> str | None:
    """URL where the ranks of a Slurm step meet: a port of the first host. None where torchrun says it itself."""
    hosts = os.environ.get("SLURM_STEP_NODELIST", "")
    if "MASTER_ADDR" in os.environ or not hosts:
        return None
    # n[01-03,7],m5 and n01,m5 and n1: the first name, with the first of its numbers.
    prefix, numbers = re.match(r"([^,\[]*)(?:\[(\w+))?", hosts).groups("")  # type: ignore[union-attr]
    return f"tcp://{prefix}{numbers}:{20000 + (_integer('SLURM_JOB_ID') or 0) % 10000}"


def meeting_place() -> str:
    """Host and port where the ranks meet. Raises BadInput where the variables that say so are missing."""
    url = meeting_point()
    if url is not None:
        return url.removeprefix("tcp://")
    address, port = os.environ.get("MASTER_ADDR"), _integer("MASTER_PORT")
    if not address or port is None:
        missing = "MASTER_PORT" if address else "MASTER_ADDR"
        raise BadInput(
            f"{rank_variables()}: several processes are to train together, but {missing} is not set, which says where "
            "they meet; start them with torchrun or srun, or unset these variables to train with one process"
        )
    return f"{address}:{port}"


def _tasks_of_node(tasks: str, node: int) -> int:
    """The `node`-th number of Slurm's short form, such as 2(x3),1 for 2, 2, 2, 1."""
    numbers: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", tasks):
        numbers += [int(count)] * int(times or 1)
    if node >= len(numbers):
        raise BadInput(f"SLURM_STEP_TASKS_PER_NODE={tasks!r} says nothing of node {node}")
    return numbers[node]


@contextmanager
def acting_as(role: World, port: int) -> Iterator[None]:
    """Set the variables that torchrun sets for one process of `role` on this machine, while the block runs."""
    variables = {
        "RANK": role.rank,
        "LOCAL_RANK": role.local_rank,
        "WORLD_SIZE": role.size,
        "LOCAL_WORLD_SIZE": role.local_size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update({name: str(value) for name, value in variables.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def scheduler() -> dict[str, str]:
    """Which scheduler runs this process, and the job's ids there; {"name": "none"} outside of any."""
    if "SLURM_JOB_ID" in os.environ:
        variables = {
            "job": "SLURM_JOB_ID",
            "array_task": "SLURM_ARRAY_TASK_ID",
            "restarts": "SLURM_RESTART_COUNT",
        }
        return {"name": "slurm"} | {k: os.environ[v] for k, v in variables.items() if v in os.environ}
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        variables = {"pod": "HOSTNAME", "index": "JOB_COMPLETION_INDEX"}
        return {"name": "kubernetes"} | {k: os.environ[v] for k, v in variables.items() if v in os.environ}
    return {"name": "none"}


def let_threads_sleep() -> None:
    """Let OpenMP's threads sleep while they wait for work; call it before torch is imported.

    Otherwise they wait in a loop: on cores that others use, too, a training takes up to ten times the CPU time.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def computes_on_cpu(device: str) -> bool:
    """Whether `auto`, `cpu` or `cuda` means the CPU for sure; found without torch, by the files of GPUs' drivers."""
    files = ("nvidia*", "nvhost*", "dxg", "kfd")  # NVIDIA's, Jetson's, Windows's under WSL, AMD's
    return device == "cpu" or (device == "auto" and not any(any(Path("/dev").glob(name)) for name in files))


def check_current_folder() -> None:
    """Raise BadInput if the folder that the process was started in is gone or out of bounds."""
    try:
        os.getcwd()  # noqa: PTH109 - the same, without another import
    except OSError as error:
        raise BadInput(f"the current folder can't be used ({error.strerror}); change to another with cd") from error


def termination_log() -> Path | None:
    """Where Kubernetes looks for why a pod's container ended, or the file of PHOTOZ_TERMINATION_LOG; else None."""
    if "PHOTOZ_TERMINATION_LOG" in os.environ:
        return Path(os.environ["PHOTOZ_TERMINATION_LOG"])
    standard = Path("/dev/termination-log")
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ
    return standard if in_pod and os.access(standard, os.W_OK) else None


def one_of_several() -> bool:
    """Whether other ranks run beside this one, as far as its variables can be read."""
    try:
        return world().size > 1
    except BadInput:
        return False


def image_identity() -> tuple[str | None, str | None]:
    """(commit, image) as baked into a container by its build; (None, None) outside one."""
    return os.environ.get("PHOTOZ_COMMIT") or None, os.environ.get("PHOTOZ_IMAGE") or None


def cache_folder() -> Path:
    """Local folder for shards read from S3: PHOTOZ_CACHE, else the user's cache folder.

    Raises BadInput where that lies in a home that is not known.
    """
    explicit = os.environ.get("PHOTOZ_CACHE")
    try:
        if explicit:
            return Path(explicit).expanduser()  # files of variables are often read by no shell
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "photoz"
    except RuntimeError:
        raise BadInput(
            f"PHOTOZ_CACHE={explicit or ''!r}: the home folder is not known; set it to a folder's whole path"
        ) from None


def cache_size() -> int | None:
    """Bytes that the local cache may hold: PHOTOZ_CACHE_SIZE, such as `50GB`; None leaves it to the cache.

    Raises BadInput for anything else than a number and a unit of B, kB, MB, GB or TB.
    """
    text = os.environ.get("PHOTOZ_CACHE_SIZE", "").strip()
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([kMGT]?)B?", text, re.ASCII | re.IGNORECASE)
    if not found:
        raise BadInput(f"PHOTOZ_CACHE_SIZE={text!r}: expected a number and a unit, such as 50GB or 800MB")
    return int(float(found[1]) * 1000 ** " kmgt".index(found[2].lower() or " "))


def visible_gpus() -> str | None:
    """What CUDA_VISIBLE_DEVICES allows, as it stands; None if it is not set."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def usable_cores() -> int:
    """CPU cores that this process may use: affinity, further limited by a container's CPU quota."""
    cores = len(os.sched_getaffinity(0))
    quota = _cgroup_quota()
    return max(1, min(cores, quota)) if quota else cores


def _cgroup_quota() -> int | None:
    """Cores allowed by cgroup v2 (cpu.max) or v1 (cfs quota), rounded up; None if unlimited."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except OSError:
        try:
            quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text().strip()
            period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return -(-int(quota) // int(period))


STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
GRACE_S = 20.0  # Kubernetes and Slurm kill 30 s after their signal; leaving takes a moment, too
INTERRUPTED = 130  # as shells report Ctrl-C
_stop_signal: list[int] = []
_deaf = threading.Event()


def install_stop_handlers(grace_s: float = GRACE_S) -> None:
    """Make SIGTERM (Kubernetes, Slurm) and SIGUSR1 (Slurm's warning) ask for a stop at the next safe point.

    A process that has come to none within `grace_s` is ended there and then, with the same exit code: what is being
    written at any moment is either whole or not to be seen. Only for a process of its own, from its main thread.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # The interpreter writes each signal's number here at once, even while the main thread is inside a C call.
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in STOP_SIGNALS:
        signal.signal(number, _note_stop)
    threading.Thread(target=_watch, args=(reading, grace_s), daemon=True, name="stop watch").start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # see stop_signals_held


def ignore_stops() -> None:
    """From now on stop signals do nothing: the work is done, and a finished job must not look killed.

    Python gives signals with a handler of its own back to the system as it ends; ignored ones it leaves alone.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_signals_held() -> Iterator[None]:
    """Keep stop signals waiting while the block starts processes; one gets its own when it installs its handlers."""
    from multiprocessing import resource_tracker  # not every command starts processes

    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        resource_tracker.ensure_running()  # its start lets SIGTERM through again, but only once
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _note_stop(number: int, _frame: FrameType | None) -> None:
    # Only a flag: whatever is in hand is finished or dropped by the code that polls it.
    _stop_signal.append(number)


def _watch(pipe: int, grace_s: float) -> None:
    """Wait for a stop signal; where the process is still there `grace_s` later, say so and end it."""
    while True:
        for number in os.read(pipe, 64):
            if number == signal.SIGINT and _deaf.is_set():
                _end_now(f"interrupted; {_GO_ON}", INTERRUPTED)
            # A server that has put its own handler in place of ours leaves in its own way.
            if number in STOP_SIGNALS and signal.getsignal(number) is _note_stop:
                _stop_signal.append(number)  # the main thread's handler may be a long C call away
                time.sleep(grace_s)
                _end_now(f"{_stopped_by()} while busy for {grace_s:g} s; {_GO_ON}", ExitCode.PREEMPTED)


def _plain_line(message: str, _code: int) -> bytes:
    return f"photoz-job: error: {message}\n".encode()


_last_line: Callable[[str, int], bytes] = _plain_line


def say_at_forced_end(line: Callable[[str, int], bytes]) -> None:
    """From now on `line` makes of a message and an exit code what a process that is ended by force prints."""
    global _last_line
    _last_line = line


def _end_now(message: str, code: int) -> None:
    # Not through sys.stderr: the main thread may hold its lock, blocked by a pipe that nobody empties.
    with suppress(OSError, ValueError):
        text = _last_line(message, code)
        if select.select([], [2], [], 1.0)[1]:
            os.write(2, text)
    os._exit(code)


@contextmanager
def interrupted_at_once() -> Iterator[None]:
    """While the block waits in C, where Python's own handler gets no turn, Ctrl-C ends the process there and then."""
    _deaf.set()
    try:
        yield
    finally:
        _deaf.clear()


def stop_requested() -> bool:
    """Whether the scheduler has asked this process to stop."""
    return bool(_stop_signal)


_GO_ON = "finished pieces are kept: run the same command to go on"


def check_stop() -> None:
    """Raise Preempted if a stop was asked for; call it between pieces, where nothing is half done."""
    if _stop_signal:
        raise Preempted(f"{_stopped_by()}; {_GO_ON}")


def _stopped_by() -> str:
    return f"stopped by {signal.Signals(_stop_signal[0]).name}"
