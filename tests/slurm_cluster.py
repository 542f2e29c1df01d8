"""A real Slurm cluster on one machine: each host is a network, UTS and process namespace of its own behind one bridge.

Everything lies in one folder, and several clusters can run side by side. GPUs are stand-in device files: Slurm deals
them out, but there is no CUDA behind them.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "munged", "mungekey", "ip", "nsenter", "unshare")
HOSTS = ("n1", "n2", "n3")
START_LIMIT_S = 60

_CONF = """
ClusterName=photoz
SlurmctldHost={controller}({subnet}.254)
SlurmctldPort={port}
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# A busy machine is slow to answer; still, a host that is cut off must be given up within the test's time.
MessageTimeout=20
SlurmdTimeout=40
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=100000,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
GresTypes=gpu
MinJobAge=3600
KillWait=30
Waittime=0
NodeName={first} NodeAddr={subnet}.1 CPUs=16 RealMemory=64000 Gres=gpu:h100:4 State=UNKNOWN
NodeName={second} NodeAddr={subnet}.2 CPUs=16 RealMemory=64000 Gres=gpu:h100:4 State=UNKNOWN
NodeName={third} NodeAddr={subnet}.3 CPUs=16 RealMemory=64000 Gres=gpu:h100:4 State=UNKNOWN
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=10 GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=100
"""


def missing() -> str | None:
    """Why no cluster can run here; None if one can."""
    if os.geteuid() != 0:
        return "a Slurm cluster in network namespaces needs root"
    absent = [program for program in PROGRAMS if not shutil.which(program)]
    if absent:
        return f"not installed: {', '.join(absent)} (apt-get install slurmctld slurmd slurm-client munge iproute2)"
    if subprocess.run(["unshare", "--net", "--uts", "--pid", "--fork", "--mount-proc", "true"], check=False).returncode:
        return "namespaces can't be made here"
    return None


@dataclass(frozen=True)
class Cluster:
    """A running cluster; `address` is that of this machine on its bridge, `wires` the hosts' links to it."""

    folder: Path
    address: str
    wires: dict[str, str]
    inits: dict[str, int]  # each host's first process

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """Run a Slurm command on this machine and return its stdout."""
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=self.environment(), timeout=120)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout} {done.stderr}"
        return done.stdout

    def environment(self) -> dict[str, str]:
        """The variables that Slurm's commands need."""
        return os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def job(self, job: str) -> dict[str, str]:
        """What Slurm knows of a job or array task, by its own names: JobState, Restarts, BatchHost, …"""
        line = self.run("scontrol", "show", "job", "-o", job).splitlines()[0]
        return dict(pair.split("=", 1) for pair in line.split() if "=" in pair)

    def state(self, job: str) -> str:
        """State of a job, or of an array: that of all its tasks if they agree, else all of them."""
        states = self.run("squeue", "--noheader", "--array", "--states=all", "--jobs", job, "--format=%T").split()
        return " ".join(sorted(set(states)))

    def wait(self, job: str, until: Callable[[str], bool], limit_s: float = 240) -> str:
        """Return a job's state once it is as wanted; one that waits to be started again is started at once."""
        deadline = time.monotonic() + limit_s
        while not until(state := self.state(job)):
            assert time.monotonic() < deadline, f"job {job} is {state}\n{self.run('scontrol', 'show', 'job', job)}"
            if "PENDING" in state:
                self.start_now(job)
            time.sleep(0.5)
        return state

    def start_now(self, job: str) -> None:
        """Cut short the pause of a minute or two that Slurm puts before a requeued job."""
        listed = ("--noheader", "--array", "--states=PD", "--jobs", job, "--format=%i %r %S")
        for task in self.run("squeue", *listed).splitlines():
            name, reason, start = task.split()
            if (
                reason == "BeginTime"
                and start != "N/A"
                and datetime.fromisoformat(start) > datetime.now() + timedelta(seconds=10)
            ):
                # Not at once: hosts refuse a job within the second in which they ended it.
                self.run("scontrol", "update", f"jobid={name}", "starttime=now+3")

    def finished(self, job: str, limit_s: float = 240) -> str:
        """Wait for a job's end and return its state."""
        ended = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY"}
        return self.wait(job, lambda state: set(state.split()) <= ended, limit_s)

    def cut(self, host: str, mend: bool = False) -> None:
        """Take a host off the network, or bring it back."""
        _ip("link", "set", self.wires[host], "up" if mend else "down")

    def processes(self, host: str, word: str) -> list[int]:
        """Ids of the processes on a host in whose command line the word stands, oldest first."""
        namespace = Path(f"/proc/{self.inits[host]}/ns/net").readlink()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_text(errors="replace").split("\0")
                there = (folder / "ns/net").readlink()
            except OSError:
                continue  # it has ended meanwhile
            if there == namespace and word in command:
                found.append(int(folder.name))
        return sorted(found)


@contextmanager
def running_slurm() -> Iterator[Cluster]:
    """Start controller and hosts; all of it is gone afterwards."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # a socket's path must be short
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)  # munge wants its socket to be in everyone's reach
        bridge, subnet, number = _bridge(stack)
        _write_configuration(folder, subnet, number)
        environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        _start_munge(folder, stack)
        _spawn(stack, folder / "ctld.out", ["slurmctld", "-D"], environment)
        inits, wires = {}, {}
        for place, host in enumerate(HOSTS, 1):
            wires[host] = f"{bridge}-{host}"
            namespace = _namespace(stack, bridge, wires[host], f"{subnet}.{place}")
            inside = (
                f"mount --bind {folder}/hosts /etc/hosts; mount --bind {folder}/resolv.conf /etc/resolv.conf; "
                f"hostname {host}; exec slurmd -D -N {host}"
            )
            # Not "ip netns exec": that remounts /sys, which breaks containers inside jobs.
            enter = ["nsenter", f"--net=/run/netns/{namespace}", "unshare", "--uts", "--mount", "--pid", "--fork"]
            command = [*enter, "--mount-proc", "--kill-child", "sh", "-c", inside]
            inits[host] = _spawn(stack, folder / f"slurmd.{host}.out", command, environment).pid
        cluster = Cluster(folder, f"{subnet}.254", wires, inits)
        _wait_until_idle(cluster)
        yield cluster


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _bridge(stack: ExitStack) -> tuple[str, str, int]:
    """(name, subnet, number) of a bridge that no other cluster has."""
    for number in range(77, 117):
        name = f"pz{number}"
        if subprocess.run(["ip", "link", "add", name, "type", "bridge"], capture_output=True, check=False).returncode:
            continue
        stack.callback(_ip, "link", "delete", name)
        _ip("address", "add", f"10.{number}.0.254/24", "dev", name)
        _ip("link", "set", name, "up")
        return name, f"10.{number}.0", number
    raise AssertionError("no free bridge: are clusters of earlier runs left over? see `ip link`")


def _namespace(stack: ExitStack, bridge: str, wire: str, address: str) -> str:
    """A network namespace with one link to the bridge; returns its name."""
    _ip("netns", "add", wire)
    stack.callback(_ip, "netns", "delete", wire)
    _ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", wire)
    _ip("link", "set", wire, "master", bridge, "up")
    _ip("-n", wire, "address", "add", f"{address}/24", "dev", "eth0")
    _ip("-n", wire, "link", "set", "eth0", "up")
    _ip("-n", wire, "link", "set", "lo", "up")
    return wire


def _write_configuration(folder: Path, subnet: str, number: int) -> None:
    controller = socket.gethostname().split(".")[0]
    first, second, third = HOSTS
    settings = {"controller": controller, "subnet": subnet, "port": 16900 + number, "folder": folder}
    (folder / "slurm.conf").write_text(_CONF.format(**settings, first=first, second=second, third=third))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
    hosts = [f"{subnet}.{place} {host}" for place, host in enumerate(HOSTS, 1)]
    (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", f"{subnet}.254 {controller}", *hosts, ""]))
    (folder / "resolv.conf").write_text("")  # no name server: an unknown name fails at once
    gres = []
    for host in HOSTS:
        for gpu in range(4):
            os.mknod(folder / f"{host}-gpu{gpu}", 0o020666, os.makedev(1, 3))
        gres.append(f"NodeName={host} Name=gpu Type=h100 File={folder}/{host}-gpu[0-3]")
    (folder / "gres.conf").write_text("\n".join([*gres, ""]))
    for name in ("ctld", *(f"spool.{host}" for host in HOSTS)):
        (folder / name).mkdir()


def _start_munge(folder: Path, stack: ExitStack) -> None:
    """Slurm's authentication, with a key and a socket of this cluster's own."""
    key = folder / "munge.key"
    subprocess.run(["mungekey", "--create", f"--keyfile={key}"], check=True)
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    command = ["munged", "--foreground", f"--key-file={key}", f"--socket={folder}/munge.socket", *files]
    _spawn(stack, folder / "munge.out", command, dict(os.environ))
    deadline = time.monotonic() + START_LIMIT_S
    while not (folder / "munge.socket").exists():
        assert time.monotonic() < deadline, (folder / "munge.out").read_text()
        time.sleep(0.05)


def _spawn(stack: ExitStack, out: Path, command: list[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start a program that ends with the stack."""
    with out.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)

    def end() -> None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)
    return process


def _wait_until_idle(cluster: Cluster) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        done = subprocess.run(
            ["sinfo", "--noheader", "--partition=batch", "--states=idle", "--format=%D"],
            capture_output=True,
            text=True,
            env=cluster.environment(),
            check=False,
        )
        if done.stdout.strip() == str(len(HOSTS)):
            return
        logs = [f"{file.name}: {file.read_text()[-1000:]}" for file in cluster.folder.glob("*.out")]
        assert time.monotonic() < deadline, "\n".join([done.stdout + done.stderr, *logs])
        time.sleep(0.1)
