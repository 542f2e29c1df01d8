"""What slurm/ says twice is what Python says."""

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import typer

from jobs.app import app
from photoz import runtime
from photoz.artifacts import KINDS
from photoz.errors import ExitCode
from tests.test_manifests import JOBS

SLURM = Path(__file__).parents[1] / "slurm"
OF_THE_SHELL = {"PHOTOZ_CACHE", "PHOTOZ_CACHE_SIZE", "PHOTOZ_IMAGE"}  # read by photoz.runtime, not flags


def commands() -> dict[str, click.Command]:
    root = typer.main.get_command(app)
    assert isinstance(root, click.Group) or hasattr(root, "commands")
    return dict(root.commands)


def variables(command: click.Command) -> set[str]:
    return {parameter.envvar for parameter in command.params if isinstance(parameter.envvar, str)}


def job_script(job: str) -> str:
    return (SLURM / f"{job}.sh").read_text()


def test_there_is_a_script_for_each_job_that_runs_that_job() -> None:
    assert len(JOBS) == len(KINDS) and set(JOBS) <= set(commands())
    for job in JOBS:
        program = "-m jobs train" if job == "train" else f"photoz-job {job}"
        assert f'{program} "${{{job.upper()}_FLAGS[@]}}" "$@"' in job_script(job)
    assert f"JOBS=({' '.join(JOBS)})" in (SLURM / "submit.sh").read_text()
    written = re.findall(r"^(\w+)_FLAGS=", (SLURM / "photoz.env").read_text(), re.MULTILINE)
    assert written == [job.upper() for job in JOBS]


def test_every_variable_of_the_site_is_used_and_every_one_of_photoz_is_a_flag() -> None:
    settings = (SLURM / "photoz.env").read_text()
    scripts = "".join(file.read_text() for file in SLURM.glob("*.sh"))
    named = set(re.findall(r"^#?([A-Z_0-9]+)=", settings, re.MULTILINE))
    flags = set().union(*(variables(commands()[job]) for job in JOBS)) | OF_THE_SHELL
    assert {name for name in named if name.startswith("PHOTOZ_")} <= flags
    site = {name for name in named if name.startswith("SITE_")}
    assert site == set(re.findall(r"SITE_[A-Z_]+", scripts))


def test_jobs_restart_at_the_exit_codes_that_say_so_and_at_no_other_of_photoz() -> None:
    finish = (SLURM / "job.sh").read_text().split("finish() {")[1].split("esac")[0]
    cases = [
        set(map(int, found.split(" | "))) for found in re.findall(r"^\s+(\d+(?: \| \d+)*)\) ", finish, re.MULTILINE)
    ]
    assert cases == [{ExitCode.TRY_AGAIN, ExitCode.PREEMPTED}, {128 + 9, 128 + 15}]


@pytest.mark.parametrize("job", JOBS)
def test_each_resource_is_explained_and_a_stop_comes_in_time(job: str) -> None:
    lines = [line for line in job_script(job).splitlines() if line.startswith("#SBATCH")]
    assert lines and all(" # " in line for line in lines)
    asked = " ".join(lines)
    (lead,) = re.findall(r"--signal=B:USR1@(\d+) ", asked)
    assert int(lead) >= 2 * runtime.GRACE_S
    assert "--export=NONE" in asked and "--requeue" in asked and "--open-mode=append" in asked
    assert ("--array=" in asked) == (job in ("shard", "infer"))


def test_a_dry_run_prints_the_chain_and_needs_no_slurm(tmp_path: Path) -> None:
    shutil.copytree(SLURM, tmp_path / "slurm")
    with (tmp_path / "slurm/photoz.env").open("a") as file:
        file.write("PHOTOZ_STORE=s3://bucket/x\nSITE_ACCOUNT=sky\nSITE_PARTITION=cpu\nSITE_GPU_PARTITION=gpu\n")
        file.write("SITE_TASKS=16\nSITE_NODES=3\nSITE_GPUS=4\n")
    done = subprocess.run(
        ["bash", tmp_path / "slurm/submit.sh", "--dry-run"], capture_output=True, text=True, check=True
    )
    after = "--dependency=afterok:<{}> --kill-on-invalid-dep=yes slurm/{}.sh"
    assert done.stdout.splitlines() == [
        "sbatch --account=sky --partition=cpu slurm/catalog.sh",
        "sbatch --account=sky --partition=cpu --array=0-15 " + after.format("catalog", "shard"),
        "sbatch --account=sky --partition=gpu --nodes=3 --gpus-per-node=4 " + after.format("shard", "train"),
        "sbatch --account=sky --partition=gpu --array=0-15 --gpus-per-node=1 " + after.format("train", "infer"),
        "sbatch --account=sky --partition=cpu " + after.format("infer", "evaluate"),
    ]


def test_without_a_store_nothing_is_submitted() -> None:
    done = subprocess.run(["bash", SLURM / "submit.sh", "--dry-run"], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and done.stdout == ""
    assert "PHOTOZ_STORE" in done.stderr and "slurm/photoz.env" in done.stderr
