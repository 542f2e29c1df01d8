"""What slurm/ says twice is what Python says, and what submit.sh makes of its settings."""

import os
import re
import shlex
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
    assert site == set(re.findall(r"SITE_[A-Z_]+", scripts)) - {"SITE_TASKS"}  # an older name


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a user's, with slurm/ as it comes."""
    shutil.copytree(SLURM, tmp_path / "slurm")
    return tmp_path


def dry_run(folder: Path, caller: Path = Path("/"), **given: str) -> "subprocess.CompletedProcess[str]":
    """submit.sh --dry-run with nothing in its environment but these variables."""
    return subprocess.run(
        ["bash", folder / "slurm/submit.sh", "--dry-run"],
        env={"PATH": os.environ["PATH"], "HOME": "/nowhere"} | given,
        cwd=caller, capture_output=True, text=True, check=False,
    )  # fmt: skip


def commands_of(folder: Path, **given: str) -> dict[str, list[str]]:
    """What a dry run would submit: each job's words after sbatch, without the dependency."""
    done = dry_run(folder, **given)
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        program, *words = shlex.split(line.replace("<", "").replace(">", ""))
        (script,) = [word for word in words if word.endswith(".sh")]
        assert program == "sbatch"
        found[Path(script).stem] = [
            word for word in words if not word.startswith(("--dependency", "--kill-on-invalid-dep"))
        ]
    assert list(found) == list(JOBS)
    return found


def in_job(folder: Path, script: str, *words: str, **given: str) -> "subprocess.CompletedProcess[str]":
    """Run shell code as a job would after reading its settings, with these words before its flags."""
    return subprocess.run(
        ["bash", "-c", f"source slurm/job.sh; {script}", "job", *words],
        env={"PATH": os.environ["PATH"], "HOME": "/nowhere"} | given,
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def add(folder: Path, *lines: str) -> None:
    with (folder / "slurm/photoz.env").open("a") as file:
        file.write("\n".join([*lines, ""]))


def test_a_dry_run_prints_the_chain_and_needs_no_slurm(folder: Path) -> None:
    add(folder, "PHOTOZ_STORE=s3://bucket/x", "SITE_ACCOUNT=sky", "SITE_PARTITION=cpu", "SITE_GPU_PARTITION=gpu")
    add(folder, "SITE_SHARD_TASKS=8", "SITE_INFER_TASKS=16", "SITE_NODES=3", "SITE_GPUS=4")
    after = "--dependency=afterok:<{}> --kill-on-invalid-dep=yes slurm/{}.sh"
    assert dry_run(folder).stdout.splitlines() == [
        "sbatch --account=sky --partition=cpu slurm/catalog.sh",
        "sbatch --account=sky --partition=cpu --array=0-7 " + after.format("catalog", "shard"),
        "sbatch --account=sky --partition=gpu --nodes=3 --gpus-per-node=4 --cpus-per-task=32 --mem=128G "
        + after.format("shard", "train"),
        "sbatch --account=sky --partition=gpu --array=0-15 --gpus-per-node=1 " + after.format("train", "infer"),
        "sbatch --account=sky --partition=cpu " + after.format("infer", "evaluate"),
    ]


def test_as_it_comes_it_needs_no_editing_and_asks_for_what_the_scripts_ask_for(folder: Path) -> None:
    assert commands_of(folder) == {
        "catalog": ["slurm/catalog.sh"],
        "shard": ["--array=0-3", "slurm/shard.sh"],
        "train": ["--nodes=1", "--gpus-per-node=1", "--cpus-per-task=8", "--mem=32G", "slurm/train.sh"],
        "infer": ["--array=0-3", "--gpus-per-node=1", "slurm/infer.sh"],
        "evaluate": ["slurm/evaluate.sh"],
    }
    assert in_job(folder, 'echo "$PHOTOZ_STORE"').stdout == f"{folder}/photoz-store\n"


@pytest.mark.parametrize(
    ("gpus", "train", "infer"),
    [
        ("a100:4", ["--gpus-per-node=a100:4", "--cpus-per-task=32", "--mem=128G"], "--gpus-per-node=a100:1"),
        ("a100", ["--gpus-per-node=a100:1", "--cpus-per-task=8", "--mem=32G"], "--gpus-per-node=a100:1"),
        ("1g.10gb:2", ["--gpus-per-node=1g.10gb:2", "--cpus-per-task=16", "--mem=64G"], "--gpus-per-node=1g.10gb:1"),
        ("0", ["--gpus-per-node=0"], "--gpus-per-node=0"),
        ("h100:0", ["--gpus-per-node=0"], "--gpus-per-node=0"),
    ],
)
def test_gpus_are_a_number_or_a_type_and_a_number_and_cores_and_memory_follow(
    folder: Path, gpus: str, train: list[str], infer: str
) -> None:
    found = commands_of(folder, SITE_GPUS=gpus)
    assert found["train"] == ["--nodes=1", *train, "slurm/train.sh", f"SITE_GPUS={gpus}"]
    assert found["infer"] == ["--array=0-3", infer, "slurm/infer.sh", f"SITE_GPUS={gpus}"]


@pytest.mark.parametrize("name", ["SITE_GPUS", "SITE_NODES", "SITE_SHARD_TASKS", "SITE_RESTARTS", "SITE_RUNTIME"])
@pytest.mark.parametrize("value", ["-1", "08", "2x", "1.5", "4 4", "$(id)", "a:b", "4:4", "a100:", ":4", "x[$(id)]"])
def test_a_setting_that_can_not_work_is_one_line_and_nothing_is_submitted(folder: Path, name: str, value: str) -> None:
    done = dry_run(folder, **{name: value})
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert f"{name}={value}: expected " in done.stderr


def test_a_container_without_image_is_refused(folder: Path) -> None:
    done = dry_run(folder, SITE_RUNTIME="apptainer")
    assert done.returncode == 2 and "SITE_IMAGE=: expected an image for SITE_RUNTIME=apptainer" in done.stderr


def test_a_file_that_bash_can_not_read_is_refused_with_its_line(folder: Path) -> None:
    add(folder, "TRAIN_FLAGS=(--epochs 3")
    done = dry_run(folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(r"slurm/photoz.env: line \d+: ", done.stderr)


@pytest.mark.parametrize(
    "line",
    [
        "PHOTOZ_NAME=deep field",
        "PHOTOZ_NAME=deep ls",  # a command that there is
        "export PHOTOZ_NAME=deep field",
        'PHOTOZ_NAME=deep "field"',
        "PHOTOZ_NAME= deep",
        "PHOTOZ_NAME = deep",
        "export PHOTOZ_NAME = deep",
        "PHOTOZ_NAME: deep",
        "TRAIN_FLAGS=--epochs 3",
        "PHOTOZ_WHERE=zconf >= 2",
        "PHOTOZ_WHERE=zconf>=2",
        "PHOTOZ_WHERE=zconf<2",
        "PHOTOZ_COLUMNS=ra=RA, dec=DEC",
        "PHOTOZ_WHERE=a&b",
        "PHOTOZ_WHERE=a|b",
        "PHOTOZ_WHERE='a b' and c",
        "PHOTOZ_WHERE=${a:-b} and c",
        "  PHOTOZ_SURVEY=table PHOTOZ_NAME=deep field",
        "[[ -d / ]] && PHOTOZ_NAME=deep field",
    ],
)
def test_a_line_that_sets_nothing_is_refused_with_its_number(folder: Path, line: str) -> None:
    add(folder, line, "PHOTOZ_LIMIT=5")
    number = (folder / "slurm/photoz.env").read_text().splitlines().index(line) + 1
    before = sorted(folder.rglob("*"))
    for done in (dry_run(folder), in_job(folder, "echo runs")):
        assert (done.returncode, done.stdout) == (2, "")
        said = done.stderr.splitlines()[-1]
        assert said.startswith(f"slurm/photoz.env: line {number} ")
        assert "quotes around a value with spaces" in said
    assert sorted(folder.rglob("*")) == before  # no file called `=`


def test_values_with_quotes_arrays_and_commands_are_no_words_too_many(folder: Path) -> None:
    add(folder, "PHOTOZ_WHERE='zconf >= 2'  # a comment", "PHOTOZ_SELECTION=a\\ b; PHOTOZ_SEED=7 PHOTOZ_BINS=8")
    add(folder, "PHOTOZ_TABLE=$(echo a  b) ", 'PHOTOZ_MOC="$(basename "/x/a b")/c $HOME ${none:-a b}"')
    add(folder, "export PHOTOZ_TTA=1 NCCL_DEBUG=INFO https_proxy=http://p:1", "source ./other", "nothing_x || :")
    (folder / "other").write_text("nothing_y\n")  # a file of the site's may call what is not everywhere
    add(folder, "TRAIN_FLAGS=(--epochs 3", "  --seed 1)", "TRAIN_FLAGS+=(--bins 9)", "PHOTOZ_REGION='cone 1 2", "3'")
    add(folder, "export PHOTOZ_SIZE=4 \\", "  PHOTOZ_SCALE=${none:-a b}", 'PHOTOZ_HDU=a"b $none c"d#e && false')
    names = ("WHERE", "SELECTION", "SEED", "BINS", "TABLE", "MOC", "REGION", "SIZE", "SCALE", "HDU")
    shown = in_job(folder, "; ".join(f"echo \"${{PHOTOZ_{name}//$'\\n'/ }}\"" for name in names))
    assert shown.stdout.splitlines() == [
        "zconf >= 2", "a b", "7", "8", "a b", "a b/c /nowhere a b", "cone 1 2 3", "4", "a b", "ab  cd#e",
    ]  # fmt: skip
    assert in_job(folder, 'echo "${TRAIN_FLAGS[@]}"').stdout == "--epochs 3 --seed 1 --bins 9\n"
    assert dry_run(folder).returncode == 0


def test_what_the_callers_environment_sets_wins_over_the_file_and_reaches_the_jobs(folder: Path) -> None:
    add(folder, "PHOTOZ_NAME=file", "SITE_RESTARTS=3", "AWS_REGION=eu-west-1")
    given = {
        "PHOTOZ_STORE": "s3://mine/x,y",
        "PHOTOZ_NAME": "mine",
        "PHOTOZ_TABLE": "/data/my table.csv",
        "SITE_RESTARTS": "7",
        "SITE_SHARD_TASKS": "2",
        "AWS_REGION": "us-east-2",
        "TRAIN_FLAGS": "none of ours",
    }
    found = commands_of(folder, **given)
    words = [f"{name}={value}" for name, value in sorted(given.items()) if name != "TRAIN_FLAGS"]
    assert found["shard"] == ["--array=0-1", "slurm/shard.sh", *words]
    show = 'printf "%s\\n" "$PHOTOZ_STORE" "$PHOTOZ_NAME" "$PHOTOZ_TABLE" "$SITE_RESTARTS" "$AWS_REGION" "$@"'
    seen = in_job(folder, show, *words, "--epochs", "3").stdout.splitlines()
    assert seen == ["s3://mine/x,y", "mine", "/data/my table.csv", "7", "us-east-2", "--epochs", "3"]


def test_a_relative_store_is_meant_from_where_it_was_written(folder: Path) -> None:
    assert "PHOTOZ_STORE=//mine" in " ".join(commands_of(folder, PHOTOZ_STORE="mine")["train"])  # called from /
    add(folder, "PHOTOZ_STORE=shared/store")
    assert in_job(folder, 'echo "$PHOTOZ_STORE"').stdout == f"{folder}/shared/store\n"


def test_a_store_in_a_home_or_in_a_file_url_is_a_folder_with_its_whole_path(folder: Path) -> None:
    whole = {
        "~": "/nowhere", "~/x": "/nowhere/x", "file:///data/store": "/data/store", "FILE:///x": "/x",
        "s3://bucket/x": "s3://bucket/x", "/a b": "/a b", "./~": f"{folder}/./~",
    }  # fmt: skip
    for written, meant in whole.items():
        assert in_job(folder, 'echo "$PHOTOZ_STORE"', f"PHOTOZ_STORE={written}").stdout == f"{meant}\n"
    assert commands_of(folder, PHOTOZ_STORE="~/x")["train"][-1] == "PHOTOZ_STORE=/nowhere/x"
    add(folder, "PHOTOZ_STORE='~/y'")
    assert in_job(folder, 'echo "$PHOTOZ_STORE"').stdout == "/nowhere/y\n"


@pytest.mark.parametrize("store", ["file:/data", "file://data", "file:x", "file:///a%20b", "file:///a?b", "file://h/x"])
def test_other_file_urls_are_refused_before_anything_is_submitted(folder: Path, store: str) -> None:
    done = dry_run(folder, PHOTOZ_STORE=store)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"PHOTOZ_STORE={store}: expected s3://bucket/prefix, a folder's path, or file:///folder" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert in_job(folder, "echo runs", f"PHOTOZ_STORE={store}").returncode == 2


def test_the_callers_relative_paths_are_meant_from_where_the_caller_is(folder: Path) -> None:
    relative = {
        "AWS_CONFIG_FILE": "conf", "AWS_SHARED_CREDENTIALS_FILE": "keys", "PHOTOZ_CACHE": "c",
        "PHOTOZ_CHECKPOINTS": "k", "PHOTOZ_IMAGES_FROM": "../images", "PHOTOZ_MOC": "moc.fits", "PHOTOZ_STORE": "store",
        "PHOTOZ_TABLE": "mine.fits[2]", "SITE_VENV": "venv",
    }  # fmt: skip
    (folder / "elsewhere").mkdir()
    done = dry_run(folder, folder / "elsewhere", **relative, PHOTOZ_NAME="x")
    words = [f"{name}={folder}/elsewhere/{value}" for name, value in relative.items()]
    assert sorted(shlex.split(done.stdout.splitlines()[0])[2:]) == sorted([*words, "PHOTOZ_NAME=x"])
    stay = {"PHOTOZ_CACHE": "~/c", "PHOTOZ_MOC": "https://host/moc.fits", "PHOTOZ_TABLE": "/t.csv", "SITE_VENV": ""}
    assert commands_of(folder, **stay)["catalog"][1:] == [f"{name}={value}" for name, value in stay.items()]


def test_a_secret_in_the_query_of_a_url_is_refused_without_showing_it(folder: Path) -> None:
    for query in ("api_key", "x=1&token", "sig", "a=b&X-Amz-Signature", "client_secret", "passwd", "API-Key"):
        done = dry_run(folder, PHOTOZ_SURVEY_URL=f"https://host/x?{query}=hush")
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert "PHOTOZ_SURVEY_URL in your environment: its URL holds a secret" in done.stderr
        assert "hush" not in done.stderr
    for url in ("https://host/x?sigma=3&design=1", "https://host/token=1/x", "https://host/x?monkey=1"):
        assert f"PHOTOZ_SURVEY_URL={url}" in commands_of(folder, PHOTOZ_SURVEY_URL=url)["catalog"]


def test_variables_of_others_are_neither_passed_on_nor_named(folder: Path) -> None:
    done = dry_run(folder, PHOTOZ_STORE="s3://bucket/x", MY_PASSWORD="hush", PHOTOZ_PASSWORD="hush")
    assert "MY_PASSWORD" not in done.stdout + done.stderr and "hush" not in done.stdout + done.stderr
    assert "PHOTOZ_PASSWORD;" in done.stderr


def test_no_secret_is_among_the_words_that_slurm_keeps(folder: Path) -> None:
    secrets = {
        "AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": "hush1", "AWS_SESSION_TOKEN": "hush2",
        "AWS_SECURITY_TOKEN": "hush3", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "hush4",
    }  # fmt: skip
    done = dry_run(folder, PHOTOZ_STORE="s3://bucket/x", AWS_WEB_IDENTITY_TOKEN_FILE="/run/token", **secrets)
    assert done.returncode == 0
    assert "AWS_WEB_IDENTITY_TOKEN_FILE=/run/token" in done.stdout
    assert not [value for value in secrets.values() if value in done.stdout + done.stderr]
    assert all(name in done.stderr for name in secrets) and "AWS_SHARED_CREDENTIALS_FILE" in done.stderr
    assert dry_run(folder, **secrets).stderr == ""  # a folder needs no keys
    login = dry_run(folder, AWS_ENDPOINT_URL_S3="https://me:hush5@s3.example.org")
    assert login.returncode == 2 and "hush5" not in login.stdout + login.stderr


def test_options_of_the_site_come_last_and_those_for_gpus_go_to_train_and_infer(folder: Path) -> None:
    add(folder, "SITE_SBATCH=(--qos=long '--comment=two words')", "SITE_GPU_SBATCH=(--constraint=a100)")
    for job, words in commands_of(folder).items():
        options = words[: words.index(f"slurm/{job}.sh")]
        last = ["--qos=long", "--comment=two words", *(["--constraint=a100"] if job in ("train", "infer") else [])]
        assert options[-len(last) :] == last
    given = commands_of(folder, SITE_SBATCH="--qos=short --time=1-0")
    assert given["catalog"][:2] == ["--qos=short", "--time=1-0"]


def test_the_older_name_of_the_number_of_tasks_still_counts(folder: Path) -> None:
    for found in (commands_of(folder, SITE_TASKS="9"), add(folder, "SITE_TASKS=9") or commands_of(folder)):
        assert found["shard"][0] == found["infer"][0] == "--array=0-8"
    assert commands_of(folder, SITE_SHARD_TASKS="2")["shard"][0] == "--array=0-1"


def test_the_file_may_load_modules_and_name_variables_that_are_not_set(folder: Path) -> None:
    add(folder, "module load cuda", "test -d /nowhere", "module() { return 1; }", "module load none")
    add(folder, "PHOTOZ_CACHE=$SLURM_TMPDIR/cache", "[[ -d /nowhere ]] && PHOTOZ_NAME=other")
    done = in_job(folder, 'echo "$PHOTOZ_NAME $PHOTOZ_CACHE"; false; echo "not reached"', SLURM_TMPDIR="/local/7")
    assert done.stdout == "mgs /local/7/cache\n"
    assert done.returncode == 1
    assert len(commands_of(folder)) == len(JOBS)


def test_the_cache_is_on_the_jobs_own_disk_and_never_in_a_home_directory(folder: Path) -> None:
    show = 'echo "$PHOTOZ_CACHE"'
    own = f"photoz-cache-{os.getuid()}"
    assert in_job(folder, show, SLURM_TMPDIR="/local/7", TMPDIR="/scratch").stdout == f"/local/7/{own}\n"
    assert in_job(folder, show, TMPDIR="/scratch").stdout == f"/scratch/{own}\n"
    assert in_job(folder, show).stdout == f"/tmp/{own}\n"  # noqa: S108 - of a host
    assert in_job(folder, show, "PHOTOZ_CACHE=/fast", SLURM_TMPDIR="/local/7").stdout == "/fast\n"


@pytest.mark.parametrize(
    ("variables", "device"),
    [
        ({"SLURM_GPUS_ON_NODE": "2"}, "cuda"),
        ({"SLURM_JOB_GPUS": "0,3"}, "cuda"),
        ({}, "auto"),
        ({"SLURM_GPUS_ON_NODE": "0"}, "auto"),
    ],
)
def test_a_job_with_gpus_has_to_use_them(folder: Path, variables: dict[str, str], device: str) -> None:
    assert in_job(folder, 'echo "$PHOTOZ_DEVICE"', **variables).stdout == f"{device}\n"
    assert in_job(folder, 'echo "$PHOTOZ_DEVICE"', "PHOTOZ_DEVICE=cpu", **variables).stdout == "cpu\n"
