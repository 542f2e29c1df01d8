"""Which device a job takes, and what it says where it can't have a GPU."""

import logging
from pathlib import Path

import pytest
import torch

from photoz.errors import BadInput
from photoz.model import devices
from tests.training_support import QUICK, drawn_shards, infer, train

CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 12\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (builder@host)  Sep 23\n"
OLD, NEW = (12, 2), (13, 0)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without GPU or driver: files put here appear in its /dev and /proc."""
    monkeypatch.setattr(devices, "_DEVICE_FILES", tmp_path)
    monkeypatch.setattr(devices, "_NVIDIA_VERSION", tmp_path / "version")
    monkeypatch.setattr(devices, "driver_cuda", lambda: None)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def has_gpus(machine: Path, count: int = 2) -> None:
    for name in (*(f"nvidia{number}" for number in range(count)), "nvidiactl", "nvidia-uvm"):
        (machine / name).touch()


def has_driver(machine: Path, monkeypatch: pytest.MonkeyPatch, text: str, cuda: tuple[int, int] | None) -> None:
    (machine / "version").write_text(text)
    monkeypatch.setattr(devices, "driver_cuda", lambda: cuda)


def refusal() -> str:
    with pytest.raises(BadInput, match=r"^--device cuda") as refused:
        devices.choose_device("cuda")
    return str(refused.value)


def test_a_torch_without_cuda_is_named_and_so_are_the_gpus_it_can_not_use(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert f"torch {torch.__version__} is a build without CUDA: take a build with CUDA" in refusal()
    has_gpus(machine)
    assert "is a build without CUDA, although 2 GPUs are visible here" in refusal()


def test_no_driver_is_told_from_one_that_the_container_is_not_shown(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no NVIDIA driver is visible here" in refusal()
    has_driver(machine, monkeypatch, OPEN, None)
    assert "the machine's driver 580.95.05 is not visible here: in a container, docker needs --gpus" in refusal()


@pytest.mark.parametrize(
    ("built", "text", "supports", "least"), [("13.0", CLOSED, OLD, "580"), ("12.6", "", (11, 4), "525")]
)
def test_a_driver_that_is_too_old_is_named_with_the_one_that_is_needed(
    machine: Path, monkeypatch: pytest.MonkeyPatch, built: str, text: str, supports: tuple[int, int], least: str
) -> None:
    has_gpus(machine)
    has_driver(machine, monkeypatch, text, supports)
    monkeypatch.setattr(torch.version, "cuda", built)
    version = "535.104.05" if text else "of an unknown version"
    said = refusal()
    assert f"driver {version} (CUDA {supports[0]}.{supports[1]}) is too old for torch" in said
    assert f"(CUDA {built}): expected driver {least} or newer" in said


@pytest.mark.parametrize("hidden", ["", "-1", "void"])
def test_a_variable_that_hides_all_gpus_is_named(machine: Path, monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    has_driver(machine, monkeypatch, OPEN, NEW)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert f"CUDA_VISIBLE_DEVICES={hidden!r} hides all GPUs" in refusal()


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a GPU here")
def test_a_driver_without_a_gpu_that_works_is_named(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has_gpus(machine, 1)
    has_driver(machine, monkeypatch, OPEN, NEW)
    assert (
        "driver 580.95.05 (CUDA 13.0) finds no GPU that works (visible device files: 1): look at nvidia-smi"
        in refusal()
    )


def test_auto_warns_of_a_gpu_that_it_can_not_use_and_of_nothing_where_there_is_none(
    machine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    has_driver(machine, monkeypatch, CLOSED, OLD)
    with caplog.at_level(logging.WARNING):
        assert devices.choose_device("auto").type == "cpu"
        assert not caplog.messages
        has_gpus(machine)
        assert devices.choose_device("auto").type == "cpu"
    assert caplog.messages == [f"no GPU is used: {devices.why_no_cuda()}"]
    assert "535.104.05" in caplog.text


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        ((8, 6), ["sm_75", "sm_80", "sm_90"], True),  # machine code of its major version
        ((7, 0), ["sm_75", "sm_80"], False),  # a V100 with CUDA 13's wheels
        ((8, 0), ["sm_86"], False),
        ((12, 0), ["sm_90"], False),
        ((12, 1), ["sm_90", "compute_90"], True),  # compiled when it is loaded
        ((12, 0), ["sm_100", "sm_120"], True),
        ((9, 0), ["sm_90a"], True),
        ((9, 0), [], False),
    ],
)
def test_which_gpus_a_build_of_torch_runs_on(capability: tuple[int, int], built_for: list[str], runs: bool) -> None:
    assert devices.runs_on(capability, built_for) == runs


@pytest.mark.usefixtures("one_core")
def test_train_and_infer_say_first_on_what_they_compute(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shards = drawn_shards(tmp_path)
    with caplog.at_level(logging.INFO):
        model = train(shards, QUICK)
        infer(model, shards)
    for logger in ("photoz.train", "photoz.infer"):
        first = next(record for record in caplog.records if record.name == logger)
        assert first.getMessage().startswith("computing on CPU ")
        assert first.getMessage().endswith(f"1 thread, torch {torch.__version__}")
