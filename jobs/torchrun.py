"""torchrun with photoz-job's exit codes and its answer to stop signals: `python -m jobs.torchrun … -m jobs train`.

torchrun itself ends with 1 whatever became of the processes that it started, dies of a SIGUSR1, and at a second signal
leaves its processes behind while they save their state. Schedulers send such signals, and go by the exit code.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from types import FrameType

from jobs import last_words
from photoz.errors import ExitCode
from photoz.runtime import GRACE_S, STOP_SIGNALS, ignore_stops

KILLED = 128 + signal.SIGKILL  # as a shell would say it: out of memory, or by hand

# What the user has to mend comes first: other ranks may have ended only because of that one.
_BY_WEIGHT = {
    ExitCode.BAD_INPUT: ExitCode.BAD_INPUT,
    ExitCode.MISSING_ARTIFACT: ExitCode.MISSING_ARTIFACT,
    ExitCode.CONFLICT: ExitCode.CONFLICT,
    ExitCode.BAD_FORMAT: ExitCode.BAD_FORMAT,
    ExitCode.BUG: ExitCode.BUG,
    -signal.SIGKILL: KILLED,
    ExitCode.TRY_AGAIN: ExitCode.TRY_AGAIN,
    -signal.SIGABRT: ExitCode.TRY_AGAIN,  # NCCL's way out when a rank is lost
    ExitCode.PREEMPTED: ExitCode.PREEMPTED,
    -signal.SIGTERM: ExitCode.PREEMPTED,  # while it was starting: there was nothing to save
}


def code_of_all(codes: Iterable[int]) -> int:
    """One exit code for those of several processes, of which -9 means killed by signal 9; 1 if all are strange."""
    found = set(codes)
    return next((int(said) for code, said in _BY_WEIGHT.items() if code in found), int(ExitCode.BUG))


def leave_in_time(grace_s: float = GRACE_S + 5) -> None:
    """From now on a stop signal ends this process after `grace_s`, its ranks having left before, wherever it hangs.

    While it waits for the other hosts it is inside a C call, and no handler written in Python comes to its turn.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def watch() -> None:
        while os.read(reading, 1)[0] not in STOP_SIGNALS:
            pass
        time.sleep(grace_s)
        os._exit(ExitCode.PREEMPTED)

    threading.Thread(target=watch, daemon=True, name="stop watch").start()


def run_torchrun(arguments: Sequence[str]) -> int:
    """Run torchrun and return the exit code of the processes that it started on this machine."""
    last_words.speak_of(list(arguments))
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    def stop_once(number: int, _frame: FrameType | None) -> None:
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise SignalException(f"stopped by {signal.Signals(number).name}", signal.Signals(number))

    for number in STOP_SIGNALS:
        signal.signal(number, stop_once)
    try:
        run(parse_args(["--signals-to-handle", "SIGINT", *arguments]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        return code_of_all(failure.exitcode for failure in error.failures.values())
    except SignalException:
        return int(ExitCode.PREEMPTED)  # passed on to the processes, which have left by now
    except DistError as error:
        reason = " ".join(str(error).split())[:300]
        return last_words.say(f"the hosts have not met: {reason}; try again later", ExitCode.TRY_AGAIN)
    return int(ExitCode.DONE)


if __name__ == "__main__":
    for _number in STOP_SIGNALS:  # torch takes seconds to import, and nothing is lost yet
        signal.signal(_number, lambda *_: os._exit(ExitCode.PREEMPTED))
    leave_in_time()
    _code = run_torchrun(sys.argv[1:])
    ignore_stops()  # they would end a process that only has to say its code
    sys.exit(_code)
