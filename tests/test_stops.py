"""Stop signals: a job leaves with 85 in time, whatever it is doing, and goes on to the same bytes."""

import signal
import subprocess
import sys
import textwrap

import pytest

from photoz.errors import ExitCode

SIGNALS = [signal.SIGTERM, signal.SIGUSR1]
BUSY = {
    "a lock that C never gives back": """
        import ctypes
        mutex = ctypes.create_string_buffer(128)
        while True:  # the second call never returns, and no signal interrupts it
            ctypes.CDLL(None).pthread_mutex_lock(mutex)
    """,
    "a server that never answers": """
        import socket
        here, there = socket.socketpair()
        here.recv(1)
    """,
    "threads that nobody can end": """
        import socket, threading
        here, there = socket.socketpair()
        threading.Thread(target=here.recv, args=(1,)).start()
    """,
}


def python(body: str) -> "subprocess.Popen[str]":
    """Start a program that has said `ready`."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def handling(grace_s: float) -> str:
    return f"from photoz import runtime\nruntime.install_stop_handlers(grace_s={grace_s})\nprint('ready')\n"


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("busy", BUSY)
def test_a_process_that_can_come_to_no_safe_point_is_ended_all_the_same(busy: str, number: signal.Signals) -> None:
    process = python(handling(0.3) + textwrap.dedent(BUSY[busy]))
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.PREEMPTED
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"photoz-job: error: stopped by {number.name} while busy for 0.3 s")
    assert "run the same command" in line


def test_a_full_pipe_on_stderr_keeps_nobody_from_leaving() -> None:
    process = python(handling(0.3) + "import sys\nwhile True:\n    sys.stderr.write('x' * 4096)\n")
    process.terminate()
    assert process.wait(timeout=60) == ExitCode.PREEMPTED
    process.communicate()


def test_a_process_that_ends_by_itself_in_time_keeps_its_exit_code() -> None:
    waits = "import signal, time\nwhile not runtime.stop_requested():\n    time.sleep(0.01)\nprint('done')\n"
    process = python(handling(30) + waits)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "done\n", "")


def test_a_signal_to_a_finished_job_changes_nothing() -> None:
    """Not even once Python has given up its handlers, as the last objects go."""
    late = """
        import os
        from jobs.session import leave
        class Late:
            def __del__(self, kill=os.kill, process=os.getpid()):
                kill(process, 15)
        late = Late()
        leave(0)
    """
    process = python(handling(30) + textwrap.dedent(late))
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_server_with_handlers_of_its_own_is_left_alone() -> None:
    own = """
        import signal, time
        asked = []
        signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
        print('own')
        while not asked:
            time.sleep(0.01)
        time.sleep(0.5)
        print('served to the end')
    """
    process = python(handling(0.1) + textwrap.dedent(own))
    assert process.stdout is not None and process.stdout.readline() == "own\n"
    process.terminate()
    assert process.communicate(timeout=60)[0] == "served to the end\n"
    assert process.returncode == 0


def test_a_program_that_uses_the_library_is_ended_by_the_signal_itself() -> None:
    process = python("import time\nimport photoz.train, photoz.infer, photoz.shards\nprint('ready')\ntime.sleep(60)\n")
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM


def test_a_signal_held_back_while_processes_start_reaches_them() -> None:
    """The child has the signal from before it could handle it, and leaves as it should."""
    child = "from photoz import runtime\\nimport time\\nruntime.install_stop_handlers(30)\\n"
    child += "while True:\\n    runtime.check_stop()\\n    time.sleep(0.01)\\n"
    parent = f"""
        import os, signal, subprocess, sys
        from photoz import runtime
        with runtime.stop_signals_held():
            child = subprocess.Popen([sys.executable, "-c", "{child}"], stderr=subprocess.PIPE)
            child.terminate()  # most likely before it has begun to run Python
        print('ready')
        print(b"Preempted: stopped by SIGTERM" in child.communicate()[1])
    """
    process = python(parent)
    assert process.communicate(timeout=60)[0] == "True\n"
