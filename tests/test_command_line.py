"""What all commands have in common: repeated flags, variables, hints for typos, and who says why a job failed."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.core import TyperOption

from jobs import last_words
from jobs.app import app
from jobs.options import JobOptions, takes
from jobs.session import exit_code_of
from photoz import runtime
from photoz.errors import did_you_mean
from photoz.evaluate import EvaluateSettings
from photoz.train import TrainSettings
from tests.images import ROOT
from tests.test_cli import one_line, photoz_job


def every_command(command: Any = None, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    command = command or typer.main.get_command(app)
    below = getattr(command, "commands", None)
    if below is None:
        return [(path, command)]
    return [found for name, sub in below.items() for found in every_command(sub, (*path, name))]


EVERY = [
    pytest.param(path, option, id=" ".join([*path, option.opts[0]]))
    for path, command in every_command()
    for option in command.params
    if isinstance(option, TyperOption) and not option.is_flag and not option.multiple
]


@pytest.fixture(autouse=True)
def a_store_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOZ_STORE", str(tmp_path / "store"))


def test_there_are_flags_to_try() -> None:
    tried = {param.id for param in EVERY}
    assert {"train --epochs", "run --model", "artifacts gc --older-than", "sky serve --port", "doctor --store"} <= tried


@pytest.mark.parametrize(("path", "option"), EVERY)
def test_a_flag_of_one_value_is_refused_where_it_is_given_twice(
    path: tuple[str, ...], option: TyperOption, capsys: pytest.CaptureFixture[str]
) -> None:
    flag = option.opts[0]
    assert photoz_job(*path, flag, "1", f"{flag}=2") == 2
    line = one_line(capsys.readouterr().err)
    assert line == f"photoz-job: error: {flag}: given 2 times ('1', '2'); expected one value"


def test_the_same_value_twice_is_refused_too_and_a_switch_twice_is_the_switch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert photoz_job("train", "--epochs", "3", "--epochs", "3") == 2
    assert "--epochs: given 2 times" in one_line(capsys.readouterr().err)
    assert photoz_job("train", "--force", "--force") == 3  # only its input is missing
    assert "shards/mgs" in one_line(capsys.readouterr().err)


def test_a_list_flag_may_be_repeated_and_a_short_one_of_one_value_may_not(capsys: pytest.CaptureFixture[str]) -> None:
    from jobs.command_line import install

    small = typer.Typer()

    @small.command("join")
    def join(
        model: Annotated[list[str] | None, typer.Option()] = None,
        name: Annotated[str, typer.Option("--name", "-n")] = "x",
    ) -> None:
        assert model
        print(*model, name)

    @small.command("other")
    def other() -> None:
        pass

    install(small)

    def call(*arguments: str) -> int:
        return exit_code_of(lambda: small(list(arguments), standalone_mode=False))

    assert call("join", "--model", "a", "--model", "b", "-n", "y") == 0
    assert capsys.readouterr().out == "a b y\n"
    assert call("join", "-n", "y", "--name=z") == 2
    assert "--name: given 2 times ('y', 'z')" in one_line(capsys.readouterr().err)
    assert call("join", "-ny", "-nz") == 2


@pytest.mark.parametrize(
    ("variable", "value", "arguments", "says"),
    [
        ("PHOTOZ_MODEL", "menko2024", ["infer"], "PHOTOZ_MODEL='menko2024': the name of a network"),
        ("PHOTOZ_MODEL", "torchvision:resnet18", ["infer"], "--model model/NAME, such as model/mgs"),
        ("PHOTOZ_MODEL", "model/mgs@v3", ["train"], "PHOTOZ_MODEL=model/mgs@v3: the ref of a trained model"),
        ("PHOTOZ_MODEL", "model/mgs", ["run"], "PHOTOZ_MODEL=model/mgs: the ref of a trained model"),
        ("PHOTOZ_MODEL", "shards/mgs", ["infer"], "PHOTOZ_MODEL: ref 'shards/mgs': expected an artifact of kind model"),
        ("PHOTOZ_MODEL", "aperture_cnn", ["train"], "PHOTOZ_MODEL: model 'aperture_cnn': expected"),
        ("PHOTOZ_EPOCHS", "many", ["train"], "PHOTOZ_EPOCHS='many': expected a whole number"),
        ("PHOTOZ_EPOCHS", "-1", ["train"], "PHOTOZ_EPOCHS=-1: expected 1 or more"),
        ("PHOTOZ_LIMIT", "0", ["run"], "PHOTOZ_LIMIT=0: expected 1 or more galaxies"),
        ("PHOTOZ_WAIT", "soon", ["train"], "PHOTOZ_WAIT: duration 'soon': expected"),
        ("PHOTOZ_NAME", "Bad Name", ["catalog"], "PHOTOZ_NAME: artifact name 'Bad Name': expected"),
        ("PHOTOZ_TASKS", "abc", ["train"], "PHOTOZ_TASKS='abc': expected a whole number"),
        ("PHOTOZ_SURVEY", "sdss", ["catalog"], "PHOTOZ_SURVEY='sdss': expected one of"),
        ("PHOTOZ_STORE", "ftp://host/x", ["train"], "PHOTOZ_STORE: store 'ftp://host/x': expected s3://"),
        ("PHOTOZ_STORE", "ftp://host/x", ["artifacts", "ls"], "PHOTOZ_STORE: store 'ftp://host/x': expected s3://"),
        (
            "PHOTOZ_SHARDS",
            "catalog/x",
            ["train"],
            "PHOTOZ_SHARDS: ref 'catalog/x': expected an artifact of kind shards",
        ),
        ("PHOTOZ_REGION", "cone 1 2 3", ["catalog", "--moc", "x"], "PHOTOZ_REGION and --moc: expected one of them"),
        ("PHOTOZ_FORCE", "perhaps", ["train"], "PHOTOZ_FORCE"),
    ],
)
def test_a_value_from_a_variable_that_does_not_fit_names_the_variable(
    variable: str,
    value: str,
    arguments: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    assert photoz_job(*arguments) == 2
    line = one_line(capsys.readouterr().err)
    assert line.startswith("photoz-job: error: ")
    assert says in line


def test_a_flag_wins_over_the_variable_and_is_named_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PHOTOZ_EPOCHS", "5")
    monkeypatch.setenv("PHOTOZ_MODEL", "menko2024")
    assert photoz_job("train", "--epochs", "0") == 2
    assert one_line(capsys.readouterr().err) == "photoz-job: error: --epochs 0: expected 1 or more"
    assert photoz_job("infer", "--model", "model/none", "--shards", "shards/none") == 3
    assert "shards/none" in one_line(capsys.readouterr().err)
    assert photoz_job("infer", "--model", "menko2024") == 3  # a model may have been given that name


def test_jobs_that_share_a_variable_mean_the_same_by_it_or_refuse_what_the_other_means() -> None:
    """A new flag of a known name, but of another kind of value, has to be thought about here."""
    kinds: dict[str, set[str]] = {}
    for _, command in every_command():
        for option in command.params:
            if option.envvar:
                desc = option.type_descriptor
                what = (
                    ",".join(map(str, desc.choices)) if desc.choices else (option.metavar or desc.annotation.__name__)
                )
                kinds.setdefault(option.envvar, set()).add("N" if what == "int" else what)
    different = {name for name, what in kinds.items() if len(what) > 1}
    assert different == {"PHOTOZ_MODEL"}
    assert kinds["PHOTOZ_MODEL"] == {"NAME", "REF"}  # see above


def test_doctor_knows_that_a_table_has_no_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PHOTOZ_SURVEY", "table")
    photoz_job("doctor", "--json")
    found = {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert found["survey"]["state"] == "ok"


def test_a_variable_that_nothing_reads_is_warned_about_with_the_name_it_may_mean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PHOTOZ_EPOCH", "3")
    monkeypatch.setenv("PHOTOZ_CACHE_SIZ", "3GB")
    monkeypatch.setenv("PHOTOZ_ZEPPELIN", "fine")
    assert photoz_job("train") == 3
    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert lines[:3] == [
        "PHOTOZ_CACHE_SIZ is set, but nothing reads a variable of that name; did you mean PHOTOZ_CACHE_SIZE?",
        "PHOTOZ_EPOCH is set, but nothing reads a variable of that name; did you mean PHOTOZ_EPOCHS?",
        "PHOTOZ_ZEPPELIN is set, but nothing reads a variable of that name",
    ]
    assert len(lines) == 4


def test_variables_of_other_commands_of_images_and_of_kubernetes_are_no_news(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    links = {
        "PHOTOZ_SKY_SERVICE_HOST": "10.0.0.1", "PHOTOZ_SKY_SERVICE_PORT": "80", "PHOTOZ_SKY_SERVICE_PORT_HTTP": "80",
        "PHOTOZ_SKY_PORT": "tcp://10.0.0.1:80", "PHOTOZ_TRAIN_PORT_29500_TCP": "tcp://10.0.0.1:29500",
        "PHOTOZ_TRAIN_PORT_29500_TCP_PROTO": "tcp", "PHOTOZ_TRAIN_PORT_29500_TCP_ADDR": "10.0.0.1",
        "PHOTOZ_SERVICE_HOST": "10.0.0.2", "PHOTOZ_PORT_80_TCP_PORT": "80", "PHOTOZ_PORT": "tcp://10.0.0.2:80",
    }  # fmt: skip
    others = {"PHOTOZ_LIMIT": "5", "PHOTOZ_GALAXIES": "5", "PHOTOZ_IMAGE": "x", "PHOTOZ_COMMIT": "abc"}
    for name, value in (links | others).items():
        monkeypatch.setenv(name, value)
    assert photoz_job("evaluate") == 3
    one_line(capsys.readouterr().err)


def test_every_variable_that_is_written_down_anywhere_is_known() -> None:
    known = set(runtime.OWN_VARIABLES)
    for _, command in every_command():
        known |= {option.envvar for option in command.params if option.envvar}
    written = set()
    for folder in ("slurm", "k8s", "containers", "docs", "jobs", "photoz"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix not in (".png", ".gif", ".pyc", ".parquet"):
                written |= set(re.findall(r"\bPHOTOZ_[A-Z0-9]+(?:_[A-Z0-9]+)*\b", path.read_text(errors="ignore")))
    assert written - known == set()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["catalog", "--survey", "sdss"], "--survey 'sdss': expected one of embedded, sdss-dr17, table; did"),
        (["catalog", "--survey", "sdss"], "; did you mean sdss-dr17?"),
        (["catalog", "--survey", "SDSS-DR17"], "did you mean sdss-dr17?"),
        (["catalog", "--survey", "emb"], "did you mean embedded?"),
        (["catalog", "--selection", "mgss"], "did you mean mgs?"),
        (["train", "--device", "cud"], "did you mean cuda?"),
        (["train", "--log-format", "jsn"], "did you mean json?"),
        (["infer", "--split", "tset"], "did you mean test?"),
        (["shard", "--axes", "cwh"], "did you mean chw?"),
        (["run", "--decoded", "disc"], "did you mean disk?"),
        (["train", "--model", "menko2042"], "did you mean menko2024?"),
        (["train", "--epoch", "3"], "no flag --epoch; did you mean --epochs?"),
        (["run", "--log_format", "json"], "no flag --log_format; did you mean --log-format?"),
        (["artifacts", "ls", "--stroe", "x"], "no flag --stroe; did you mean --store?"),
        (["artifacts", "lst"], "did you mean ls?"),
        (["sky", "server"], "did you mean serve?"),
        (["trian"], "did you mean train?"),
        (["--versoin"], "did you mean --version?"),
    ],
)  # fmt: skip
def test_a_typo_is_one_line_that_says_what_may_be_meant(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert photoz_job(*arguments) == 2
    captured = capsys.readouterr()
    assert says in one_line(captured.err)
    assert captured.out == ""


def test_nothing_is_suggested_where_nothing_is_close(capsys: pytest.CaptureFixture[str]) -> None:
    assert did_you_mean("xyz", ["embedded", "table"]) == ""
    assert photoz_job("train", "--no-such-thing") == 2
    assert one_line(capsys.readouterr().err).endswith("no flag --no-such-thing; see photoz-job train --help")


def test_a_survey_without_a_server_suggests_one(capsys: pytest.CaptureFixture[str]) -> None:
    photoz_job("doctor", "--survey", "sdss", "--json")
    found = {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert "sdss-dr17" in str(found["survey"]) and found["survey"]["state"] == "fail"


def last_of(captured: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(captured.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--shards", "shards/none"],
         {"job": "train", "task": 0, "tasks": 1, "ref": "model/none", "exit_code": 3}),
        (["infer", "--task", "1", "--tasks=4", "--name", "virgo"],
         {"job": "infer", "task": 1, "tasks": 4, "ref": "predictions/virgo", "exit_code": 3}),
        (["train", "--epochs", "-1"], {"job": "train", "ref": "model/mgs", "exit_code": 2}),
        (["shard", "--size", "wide", "--task", "2", "--tasks", "3"], {"job": "shard", "task": 2, "ref": "shards/mgs"}),
        (["train", "--no-such-flag"], {"job": "train", "task": None, "ref": None, "exit_code": 2}),
        (["run", "--task", "0", "--tasks", "2"], {"job": "run", "tasks": 2, "ref": "report/mgs", "exit_code": 2}),
        (["no-such-command"], {"job": None, "ref": None, "exit_code": 2}),
        (["artifacts", "show", "model/none@v2"],
         {"job": "artifacts show", "task": None, "ref": "model/none@v2", "exit_code": 3}),
    ],
)  # fmt: skip
def test_with_json_lines_the_last_error_is_json_too(
    arguments: list[str],
    expected: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PHOTOZ_LOG_FORMAT", "json")
    code = photoz_job(*arguments)
    line = last_of(one_line(capsys.readouterr().err))
    assert {name: line[name] for name in expected} == expected
    assert line["exit_code"] == code
    assert line["level"] == "error" and line["message"]
    assert set(line) == {"time", "level", "logger", "message", "job", "task", "tasks", "ref", "exit_code"}


def test_the_format_counts_as_a_flag_too_and_the_slice_of_an_array(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"ID": "7", "MIN": "5", "STEP": "1", "COUNT": "9"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    photoz_job("infer", "--log-format", "json", "--batch-size", "few")
    line = last_of(one_line(capsys.readouterr().err))
    assert (line["task"], line["tasks"], line["message"]) == (2, 9, "--batch-size 'few': expected a whole number")
    photoz_job("infer", "--batch-size", "few")
    assert one_line(capsys.readouterr().err).startswith("photoz-job: error: ")


def broken() -> None:
    raise RuntimeError("broken\nin two lines")


def test_a_bug_is_one_json_line_with_its_traceback_and_text_after_a_traceback_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    last_words.speak_of(["train", "--log-format=json"])
    assert exit_code_of(broken) == 1
    line = last_of(one_line(capsys.readouterr().err))
    assert "RuntimeError: broken" in line["traceback"] and line["exit_code"] == 1
    last_words.speak_of(["train"])
    assert exit_code_of(broken) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback") and lines[-1].startswith("photoz-job: error: this is a bug")


def test_the_reason_is_left_where_kubernetes_looks_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = tmp_path / "termination-log"
    left.touch()
    monkeypatch.setenv("PHOTOZ_TERMINATION_LOG", str(left))
    monkeypatch.setenv("PHOTOZ_LOG_FORMAT", "json")
    assert photoz_job("train", "--shards", "shards/none") == 3
    assert left.read_text().startswith("photoz-job: error: shards/none: ")
    assert photoz_job("train", "--shards", "é" * 5000) == 2
    assert 4000 < left.stat().st_size <= 4096
    left.read_text()  # cut between letters
    assert photoz_job("--version") == 0
    capsys.readouterr()
    monkeypatch.setenv("PHOTOZ_TERMINATION_LOG", str(tmp_path / "no-such-folder" / "log"))
    assert photoz_job("train", "--shards", "shards/none") == 3
    one_line(capsys.readouterr().err)


def test_of_several_ranks_the_first_leaves_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    left = tmp_path / "termination-log"
    left.write_text("photoz-job: error: the reason")
    monkeypatch.setenv("PHOTOZ_TERMINATION_LOG", str(left))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert photoz_job("train", "--shards", "shards/none") == 3
    assert left.read_text() == "photoz-job: error: the reason"


def test_outside_of_a_pod_no_termination_log_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert runtime.termination_log() is None


def test_a_stop_while_busy_says_it_in_the_format_of_the_log(tmp_path: Path) -> None:
    program = """
import os, signal, time
from jobs import last_words
from photoz import runtime
runtime.install_stop_handlers(grace_s=0.2)
last_words.speak_of(["train", "--log-format", "json"])
last_words.add(job="train")
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""
    environment = os.environ | {"PHOTOZ_TERMINATION_LOG": str(tmp_path / "log")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 85
    line = last_of(one_line(done.stderr))
    assert (line["job"], line["exit_code"]) == ("train", 85) and "SIGTERM" in line["message"]
    assert "SIGTERM" in (tmp_path / "log").read_text()


def test_every_job_takes_the_flags_of_every_job_and_run_all_of_them() -> None:
    commands = {" ".join(path): {option.name for option in command.params} for path, command in every_command()}
    jobs = [commands[name] for name in ("catalog", "shard", "train", "infer", "evaluate")]
    common = {spec.name for spec in fields(JobOptions)}
    assert all(common <= flags for flags in jobs)
    refs = {"shards", "predictions", "catalog"}
    own = {
        "images_survey",
        "images_survey_url",
        "train_batch_size",
        "infer_batch_size",
    }
    assert set().union(*jobs) - refs == commands["run"] - own


def test_a_field_of_two_jobs_is_never_one_flag_in_silence() -> None:
    def command(**settings: object) -> None: ...

    with pytest.raises(TypeError, match="several settings have a field 'seed': share it, rename it or fix it"):
        takes(training=TrainSettings, scoring=EvaluateSettings)(command)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--batch-size", "3"], "--batch-size 3: run trains and infers; expected --train-batch-size or --infer-batch"),
        (["--train-batch-size", "0"], "--train-batch-size 0: expected 1 or more"),
        (["--infer-batch-size", "0"], "--infer-batch-size 0: expected 1 or more"),
    ],
)
def test_run_names_its_own_flags(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert photoz_job("run", *arguments) == 2
    assert says in one_line(capsys.readouterr().err)


def test_variables_of_a_renamed_flag_are_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PHOTOZ_TRAIN_BATCH_SIZE", "0")
    assert photoz_job("run") == 2
    assert "PHOTOZ_TRAIN_BATCH_SIZE=0: expected 1 or more" in one_line(capsys.readouterr().err)


def in_a_process(shell_line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`job` in the line is photoz-job, started by a real shell."""
    script = f'job() {{ "{sys.executable}" -m jobs "$@"; }}; {shell_line}'
    path = {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=os.environ | path | environment, timeout=120
    )


def test_ctrl_c_in_a_job_is_exit_code_130_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("jobs.train.train_model", interrupted)
    monkeypatch.setattr(JobOptions, "input", interrupted)
    assert photoz_job("train") == 130
    assert one_line(capsys.readouterr().err).startswith("photoz-job: error: interrupted; finished pieces are kept")


def test_a_closed_output_gets_nothing_and_changes_no_exit_code() -> None:
    closed_stderr = in_a_process("job train 2>&-")
    assert (closed_stderr.returncode, closed_stderr.stdout) == (3, "")  # nothing of stderr's lands in stdout
    closed_stdout = in_a_process("job train >&-")
    assert closed_stdout.returncode == 3
    one_line(closed_stdout.stderr)
    assert in_a_process("job artifacts ls --help >&- 2>&- <&-").returncode == 0


def test_a_file_that_is_opened_does_not_take_the_place_of_a_closed_stderr() -> None:
    program = (
        "import jobs.__main__ as m, os; m._open_what_is_closed(); os.write(1, str(os.open('/dev/null', 0)).encode())"
    )
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "{program}" 2>&- <&-'], capture_output=True, text=True, cwd=ROOT
    )
    assert int(done.stdout) > 2


def test_letters_that_the_locale_lacks_are_written_out() -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = in_a_process("job train --shards shards/\u00e9", **plain)
    assert done.returncode == 2
    assert "\\u2026" in one_line(done.stderr)
    assert in_a_process("job run --help", PYTHONIOENCODING="ascii").returncode == 0


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    done = in_a_process(f"cd {tmp_path}/gone; rmdir {tmp_path}/gone; job train --store here")
    assert done.returncode == 2
    assert "the current folder can't be used" in one_line(done.stderr)


def no_permission() -> None:
    raise PermissionError(13, "Permission denied", "/some/file")


def test_what_may_not_be_touched_is_the_users_to_mend(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(no_permission) == 2
    assert "/some/file: Permission denied; choose another place" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--tasks", "0"], "--tasks 0: expected 1 or more"),
        (["train", "--tasks", "4"], "--tasks 4 without --task: give both, or neither"),
        (["train", "--task", "4"], "--task 4 without --tasks: give both, or neither"),
        (["sky", "serve", "--port", "http"], "--port 'http': expected a whole number"),
        (["infer", "--model", "x/y/z"], "ref 'x/y/z': 'x' is no kind; expected one of"),
        ([], "missing command: expected one of catalog, shard"),
        (["artifacts"], "missing command: expected one of ls, show"),
    ],
)
def test_more_mistakes_are_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert photoz_job(*arguments) == 2
    assert says in one_line(capsys.readouterr().err)
