"""Slurm, Kubernetes, compose, their docs and Python say the same about jobs, settings, sizes, exit codes and images."""

import os
import re
import subprocess
from dataclasses import dataclass
from fractions import Fraction

import pytest
import typer

from jobs.app import app
from jobs.options import DEFAULT_NAME
from photoz import __version__
from photoz.errors import ExitCode
from tests.kubectl import ROOT
from tests.pods import action_for, quantity
from tests.test_manifests import JOBS, compose, compose_settings, container, job, named, pod_templates, settings

GIB = 2**30
KILLED = 128 + 9
RESTARTED_ON_SLURM = re.compile(r"^finish\(\) \{.*?^\}$", re.M | re.S)


@dataclass(frozen=True)
class Size:
    """What a job asks for: processes, and what each of them gets."""

    processes: int
    cpus: Fraction
    memory_gib: Fraction
    gpus: Fraction


def read(path: str) -> str:
    return (ROOT / path).read_text()


def table(path: str, heading: str) -> list[dict[str, str]]:
    """Rows of the table that comes first after a heading, or whose first column has that name."""
    after = read(path).split(heading, 1)[1]
    lines = re.findall(r"^\|.*\|$", after, re.M)
    wanted = re.match(r"(?:\|.*\|\n)+", after[after.index(lines[0]) :])
    assert wanted
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in wanted[0].splitlines()]
    assert rows and all(len(row) == len(header) for row in rows), (path, heading)
    return [dict(zip(header, row, strict=True)) for row in rows]


def slurm_settings() -> dict[str, str]:
    """The variables of slurm/photoz.env, as bash reads them."""
    done = subprocess.run(
        ["bash", "-euc", "set -a; source slurm/photoz.env; env -0"],
        cwd=ROOT, env={"PATH": os.environ["PATH"], "HOME": "/"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair)
    return {name: value.replace(str(ROOT), "$PWD") for name, value in found.items()}


def slurm_option(name: str, option: str) -> str | None:
    found = re.findall(rf"^#SBATCH --{option}=(\S+)", read(f"slurm/{name}.sh"), re.M)
    assert len(found) <= 1
    return found[0] if found else None


def slurm_size(name: str) -> Size:
    first, last = re.fullmatch(r"(\d+)-(\d+)", slurm_option(name, "array") or "0-0").groups()  # type: ignore[union-attr]
    hosts, gpus = int(slurm_option(name, "nodes") or 0), int(slurm_option(name, "gpus-per-node") or 0)
    ranks = gpus if name == "train" else 1  # of a host
    memory = re.fullmatch(r"(\d+)G", slurm_option(name, "mem") or "")
    assert memory and first == "0" and hosts and ranks
    return Size(
        (int(last) + 1) * hosts * ranks,
        Fraction(slurm_option(name, "cpus-per-task") or 0) / ranks,
        Fraction(int(memory[1]), ranks),
        Fraction(gpus, ranks),
    )


def kubernetes_size(name: str) -> Size:
    asked = container(name)["resources"]["requests"]
    return Size(
        job(name)["spec"].get("completions", 1),
        Fraction(quantity(asked["cpu"])),
        Fraction(quantity(asked["memory"])) / GIB,
        Fraction(asked.get("nvidia.com/gpu", 0)),
    )


def test_the_jobs_are_those_of_the_program_everywhere() -> None:
    commands = list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    program = commands[: commands.index("run")]
    assert list(JOBS) == program
    assert f"JOBS=({' '.join(program)})" in read("slurm/submit.sh")
    assert {path.stem for path in (ROOT / "slurm").glob("*.sh")} == {*program, "job", "settings", "submit"}
    jobs_of_kubernetes = {each["metadata"]["name"] for each in named("plain") if each["kind"] == "Job"}
    assert jobs_of_kubernetes == {f"photoz-{name}" for name in program}
    assert [name for name in compose()["services"] if name not in ("seaweedfs", "train-gpu")] == program
    assert [row["job"].strip("`") for row in table("docs/running/platforms.md", "## Sizes")] == program


def test_settings_agree_and_the_docs_say_why_where_they_do_not() -> None:
    given = {"Slurm": slurm_settings(), "Kubernetes": settings(), "compose": compose_defaults()}
    rows = table("docs/running/platforms.md", "## Settings")
    documented = [row["setting"].strip("`") for row in rows]
    ours = {name for each in given.values() for name in each if name.startswith("PHOTOZ_")}
    assert sorted(documented) == sorted(ours)
    for name, row in zip(documented, rows, strict=True):
        values = [each.get(name, "") for each in given.values()]
        assert [row[platform].strip("`") for platform in given] == values, name
        assert (len(set(values)) == 1) == (row["why they differ"] == ""), name


def compose_defaults() -> dict[str, str]:
    """Settings of compose.yaml, where the caller's shell sets none."""
    (one,) = {tuple(compose_settings(name).items()) for name in (*JOBS, "train-gpu")}
    return {name: re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", value) for name, value in one}


def test_artifacts_go_by_the_programs_own_default_name_and_small_machines_have_one_limit() -> None:
    assert {slurm_settings()["PHOTOZ_NAME"], settings()["PHOTOZ_NAME"], compose_defaults()["PHOTOZ_NAME"]} == {
        DEFAULT_NAME
    }
    small = next(each for each in named("cpu-small") if each["kind"] == "ConfigMap")["data"]
    assert small["PHOTOZ_LIMIT"] == compose_defaults()["PHOTOZ_LIMIT"]


@pytest.mark.parametrize("name", JOBS)
def test_sizes_agree_and_the_docs_say_why_where_they_do_not(name: str) -> None:
    (row,) = [row for row in table("docs/running/platforms.md", "## Sizes") if row["job"] == f"`{name}`"]
    slurm, kubernetes = slurm_size(name), kubernetes_size(name)
    assert (slurm.processes, slurm.cpus, slurm.memory_gib) == (
        kubernetes.processes,
        kubernetes.cpus,
        kubernetes.memory_gib,
    )
    written = [row[column] for column in ("processes", "CPUs", "memory", "GPUs on Slurm", "GPUs on Kubernetes")]
    assert written == [
        str(slurm.processes),
        str(slurm.cpus),
        f"{slurm.memory_gib} GiB",
        str(slurm.gpus),
        str(kubernetes.gpus),
    ]
    assert (slurm.gpus == kubernetes.gpus) == (row["why they differ"] == "")
    assert container(name)["resources"]["limits"] == container(name)["resources"]["requests"]
    assert compose()["services"][name]["mem_limit"] == f"{slurm.memory_gib}g"


def test_the_sizes_of_photoz_env_are_those_of_the_scripts_it_overrides() -> None:
    site = slurm_settings()
    for name in ("shard", "infer"):
        assert slurm_size(name).processes == int(site[f"SITE_{name.upper()}_TASKS"])
    options = {name: slurm_option("train", name) for name in ("nodes", "gpus-per-node", "cpus-per-task", "mem")}
    gpus = int(site["SITE_GPUS"])
    assert options == {
        "nodes": site["SITE_NODES"],
        "gpus-per-node": str(gpus),
        "cpus-per-task": str(gpus * int(site["SITE_CORES_PER_GPU"])),
        "mem": f"{gpus * int(site['SITE_MEMORY_PER_GPU'])}G",
    }
    # As many ranks on CPUs as on GPUs: it would be another model.
    assert int(site["SITE_NODES"]) * int(site["SITE_RANKS"]) == kubernetes_size("train").processes


@pytest.mark.parametrize("name", JOBS)
def test_the_pages_of_slurm_and_kubernetes_have_the_sizes_of_their_files(name: str) -> None:
    per_host = slurm_size(name)
    ranks = per_host.processes if name == "train" else 1
    gpus = int(per_host.gpus * ranks)
    parts = [
        "1 host" if name == "train" else "",
        f"{gpus} GPU{'s' * (gpus > 1)}" if gpus else "",
        f"{per_host.cpus * ranks} cores",
        f"{per_host.memory_gib * ranks} GB",
    ]
    expected = ", ".join(filter(None, parts))
    if name in ("shard", "infer"):
        expected = f"array of {per_host.processes}; {expected} each"
    (row,) = [row for row in table("docs/running/slurm.md", "Five scripts") if row["file"] == f"`slurm/{name}.sh`"]
    assert row["what it requests"] == expected

    pods = kubernetes_size(name)
    (row,) = [row for row in table("docs/running/kubernetes.md", "finds its own") if row["file"] == f"`{name}.yaml`"]
    gpu = f"{pods.gpus} GPU, " if pods.gpus else ""
    assert row["each pod"] == f"{gpu}{pods.cpus} CPUs, {pods.memory_gib} GiB"
    assert row["pods"].split()[0] == str(pods.processes)


def test_the_small_clusters_size_in_the_docs_is_that_of_its_pods() -> None:
    limits = {
        (pod["containers"][0]["resources"]["limits"]["cpu"], pod["containers"][0]["resources"]["limits"]["memory"])
        for name, pod in pod_templates(named("cpu-small")).items()
        if name != "seaweedfs"
    }
    ((cpus, memory),) = limits
    (row,) = [row for row in table("docs/running/kubernetes.md", "## Overlays") if row["overlay"] == "`cpu-small`"]
    assert f"{cpus} CPU and {memory.replace('Gi', ' GiB')} a pod" in row["for"]


def restarts_on_slurm(code: int) -> int:
    """How often the job scripts put a job back into the queue after an exit code: their own function, asked."""
    finish = RESTARTED_ON_SLURM.search(read("slurm/job.sh"))
    assert finish
    for done_so_far in range(100):
        script = (
            f"source slurm/photoz.env; squeue() {{ echo RUNNING; }}; scontrol() {{ echo asked: $*; }}\n{finish[0]}\n"
            f"finish {code}"
        )
        variables = {"PATH": os.environ["PATH"], "HOME": "/", "SLURM_JOB_ID": "7"}
        done = subprocess.run(
            ["bash", "-uc", script], cwd=ROOT, capture_output=True, text=True, check=False,
            env=variables | {"SLURM_RESTART_COUNT": str(done_so_far)},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        if "asked: requeue 7" not in done.stdout:
            return done_so_far
    raise AssertionError(f"exit code {code}: restarts without end")


def restarts_on_kubernetes(name: str, code: int) -> int | None:
    """How often a Job starts a pod again after an exit code; None without end."""
    spec = job(name)["spec"]
    action = action_for(spec["podFailurePolicy"]["rules"], code, disrupted=False)
    limit = int(spec["backoffLimitPerIndex"] if "backoffLimitPerIndex" in spec else spec["backoffLimit"])
    return {"FailJob": 0, "Count": limit, "Ignore": None}[action]


def wording(code: int, restarts: int | None) -> str:
    if code == ExitCode.DONE:
        return "ends"
    if restarts is None:
        return "again"
    return f"again, {restarts} times" if restarts else "fails"


def test_exit_codes_mean_the_same_everywhere_and_are_documented() -> None:
    rows = {int(row["exit code"]): row for row in table("docs/running/platforms.md", "## Exit codes")}
    assert list(rows) == [*ExitCode, KILLED]
    (restart,) = {compose()["services"][name]["restart"] for name in (*JOBS, "train-gpu")}
    (times,) = re.fullmatch(r"on-failure:(\d+)", restart).groups()  # type: ignore[union-attr]
    for code, row in rows.items():
        names = {each.value: each.name.lower().replace("_", " ") for each in ExitCode} | {KILLED: "killed"}
        assert row["meaning"].removeprefix("a ") == names[code]
        assert row["Slurm"] == wording(code, restarts_on_slurm(code))
        for name in JOBS:
            assert row["Kubernetes"] == wording(code, restarts_on_kubernetes(name, code)), name
        assert row["compose"] == wording(code, int(times))
        # Whether a job is worth another try is one question, whoever asks.
        if code != ExitCode.DONE:
            assert row["Slurm"].split(",")[0] == row["Kubernetes"].split(",")[0]


def numbers(cell: str) -> set[int]:
    return {int(found) for found in re.findall(r"\b\d+\b", cell)}


def test_the_failure_tables_of_slurm_and_kubernetes_name_the_same_exit_codes() -> None:
    again, fails = {75, 85, 137}, {1, 2, 3, 4, 5}
    assert {code for code in (*ExitCode, KILLED) if restarts_on_slurm(code)} == again
    for path, heading in (
        ("docs/running/slurm.md", "## Preemption"),
        ("docs/running/kubernetes.md", "## Preemption"),
    ):
        rows = [list(row.values()) for row in table(path, heading)]
        failing = set().union(*(numbers(what) for what, then in rows if then.startswith("fails")))
        others = set().union(*(numbers(what) for what, then in rows if not then.startswith("fails")))
        assert failing == fails, path
        assert again - {85} <= others <= again | {143}, path


def test_every_image_in_files_and_docs_is_that_of_this_version() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    shipped = ("README.md", "slurm/", "k8s/", "containers/", "docs/", "tests/images.py")
    paths = [path for path in listed.split("\0") if path.startswith(shipped) and not path.endswith((".png", ".lock"))]
    seen = {(path, tag) for path in paths for tag in re.findall(r"\bphotoz:([\w.$-]+)", read(path))}
    assert {path for path, _ in seen} >= {"README.md", "tests/images.py", "docs/running/docker.md", "k8s/train.yaml"}
    wrong = {
        (path, tag) for path, tag in seen if not re.fullmatch(rf"{re.escape(__version__)}(-|-cpu|-cuda|-cu126)?", tag)
    }
    assert wrong == {("slurm/photoz.env", "TAG")}  # the site's own
