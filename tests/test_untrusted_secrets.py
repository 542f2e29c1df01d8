"""What must not get out: secrets in anything shown or kept, and anything that a report could run or load."""

import json
import logging
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from jobs import logs, session
from jobs.options import JobOptions
from photoz.artifacts import open_store
from photoz.artifacts.provenance import current_producer
from photoz.catalog.settings import CatalogSettings
from photoz.errors import BadInput
from photoz.evaluate import EvaluateSettings
from photoz.evaluate.report import Page, render
from photoz.infer import InferSettings
from photoz.redaction import redacted, redacted_arguments, shown
from photoz.shards import ShardSettings
from photoz.train import TrainSettings

SECRET = "hunter2-xyz"
KEY_ID = "AKIA" + "IOSFODNN7EXAMPLE"  # Amazon's own example


@pytest.mark.parametrize(
    "text",
    [
        f"http://me:{SECRET}@host/x",
        f"https://{SECRET}@host",
        f"s3://key:{SECRET}@bucket/x and more",
        f"http://me:p@{SECRET}@host/x",
        f"https://host/x?X-Amz-Signature={SECRET}&z=1",
        f"https://host/x?token={SECRET}",
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"--api-key={SECRET}",
        f"password={SECRET}",
    ],
)
def test_what_looks_like_a_secret_is_not_shown(text: str) -> None:
    assert SECRET not in redacted(text)
    assert "***" in redacted(text)


def test_what_looks_like_none_stays() -> None:
    for text in ("s3://bucket/photoz/x@v3", "shards/mgs@v3", "key=train_1, ra=10.5", "http://host:80/x?q=a@b"):
        assert redacted(text) == text
    assert KEY_ID not in redacted(f"key {KEY_ID} is refused")


def test_redaction_takes_time_in_proportion_to_the_text() -> None:
    for piece in ("://", "secret", "a-", "x" * 60 + "token", "AKIA"):
        started = time.process_time()
        redacted(piece * (2**21 // len(piece)))
        assert time.process_time() - started < 20


def test_the_recorded_command_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [
        "/x/photoz-job",
        "catalog",
        "--survey-url",
        f"http://me:{SECRET}@host/",
        "--token",
        SECRET,
        "--limit",
        "3",
    ]
    monkeypatch.setattr(sys, "argv", command)
    assert current_producer().command == "photoz-job catalog --survey-url 'http://***@host/' --token '***' --limit 3"
    assert redacted_arguments(["--password", SECRET, SECRET]) == ["--password", "***", SECRET]


def test_a_file_name_that_is_no_utf_8_can_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["photoz-job", "catalog", "--table", "caf\udce9.csv"])
    current_producer().command.encode()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_log_lines_have_no_secret_and_do_not_steer_the_terminal(
    log_format: str, capsys: pytest.CaptureFixture[str], root_logger: logging.Logger
) -> None:
    logs.set_up(log_format)
    logging.getLogger("photoz").warning("http://me:%s@host says \x1b]0;owned\x07", SECRET)
    said = capsys.readouterr().err
    assert "host says" in said
    assert SECRET not in said and "\x1b" not in said and "\x07" not in said
    if log_format == "json":
        assert "owned" in json.loads(said)["message"]


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """Its handlers and level are put back."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = before
    logging.captureWarnings(False)


@pytest.mark.parametrize("error", [BadInput, RuntimeError])
def test_an_error_has_no_secret_not_even_a_bug_with_its_traceback(
    error: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error(f"http://me:{SECRET}@host/ said \x1b[2J")

    session.exit_code_of(fail)
    said = capsys.readouterr().err
    assert "***@host" in said
    assert SECRET not in said and "\x1b" not in said


def test_a_store_that_cannot_be_opened_is_named_without_its_login() -> None:
    for url in (f"http://me:{SECRET}@host/x", f"s3://me:{SECRET}@bucket/x", f"file://me:{SECRET}@host/x"):
        with pytest.raises(BadInput) as refused:
            open_store(url)
        assert SECRET not in str(refused.value)


def test_no_setting_is_meant_to_hold_a_secret() -> None:
    """Settings go into the manifest as they are; credentials come from the standard AWS settings only."""
    groups = (JobOptions, CatalogSettings, ShardSettings, TrainSettings, InferSettings, EvaluateSettings)
    names = [field.name for group in groups for field in fields(group)]
    assert not [name for name in names if redacted(f"{name}=value") != f"{name}=value"]


def test_control_characters_are_written_out() -> None:
    assert shown("a\x1b[31mb\u202ec\n\td") == "a\\u001b[31mb\\u202ec\n\td"


# The report


POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
EMPTY = Page(title="A title", lead="", scored=False, deep=False, banners=[], footer="")


def test_the_report_forbids_scripts_and_requests_before_anything_else_is_said() -> None:
    page = render(EMPTY).decode()
    assert f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">' in page
    assert page.index("Content-Security-Policy") < page.index("<title>")


@pytest.mark.real
@pytest.mark.parametrize("policy", [True, False])
def test_a_browser_runs_no_script_of_a_report_even_if_an_escape_were_missed(policy: bool, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium here")
    page = render(EMPTY).decode()
    page = page.replace("A title</h1>", "A title</h1><p id=x>unharmed</p><script>x.textContent='harmed'</script>")
    if not policy:
        page = page.replace("Content-Security-Policy", "X-Nothing")
    (tmp_path / "index.html").write_text(page)
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    shown_page = subprocess.run(
        [browser, *options, (tmp_path / "index.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    assert ">harmed<" in shown_page if not policy else ">unharmed<" in shown_page
    assert "A title" in shown_page


# The embedded sky


@pytest.mark.real
def test_the_sky_server_listens_on_loopback_unless_told_otherwise() -> None:
    command = [sys.executable, "-m", "jobs", "sky", "serve", "--port", "0", "--galaxies", "200"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            assert url.startswith("http://127.0.0.1:")
            port = int(url.rpartition(":")[2])
            listening = {line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
            assert {address for address in listening if address.endswith(f":{port:04X}")} == {f"0100007F:{port:04X}"}
            with socket.create_connection(("127.0.0.1", port), timeout=10):
                pass
        finally:
            server.terminate()


# The code


def test_the_linter_looks_for_pickle_eval_shells_and_unsafe_loaders() -> None:
    """Ruff's S rules do the looking (make lint); here only that they are on, and do find what they should."""
    code = (
        "import pickle, subprocess, yaml, tempfile\n"
        "pickle.loads(b'')\neval('1')\nexec('1')\nsubprocess.run('x', shell=True)\n"
        "yaml.load('x')\ntempfile.mktemp()\n"
    )
    root = Path(__file__).parents[1]
    found = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--stdin-filename", "photoz/x.py", "--output-format", "json", "-"],
        input=code, capture_output=True, text=True, cwd=root, timeout=60,
    )  # fmt: skip
    rules = {finding["code"] for finding in json.loads(found.stdout)}
    assert {"S301", "S307", "S102", "S602", "S506", "S306"} <= rules


def test_numpy_and_torch_are_never_asked_to_unpickle() -> None:
    root = Path(__file__).parents[1]
    for folder in ("photoz", "jobs"):
        for path in (root / folder).rglob("*.py"):
            text = path.read_text()
            assert "allow_pickle" not in text and "read_pickle" not in text and "np.load(" not in text, path
            loads = len(re.findall(r"(?<!safetensors\.)torch\.load\(", text))
            assert loads == text.count("weights_only=True"), path
