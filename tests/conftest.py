import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import boto3
import hypothesis
import pytest

from photoz import runtime
from photoz.artifacts import Store, open_store
from tests.docker_engine import Docker, running_docker, why_not
from tests.images import CPU_IMAGE, CUDA_IMAGE, ROOT, build_cpu, build_seaweedfs
from tests.seaweedfs import ACCESS_KEY, SECRET_KEY, running_seaweedfs

runtime.let_threads_sleep()  # torch is imported later, by the modules of tests that need it

# A busy machine is no failure: no time limit for one example.
hypothesis.settings.register_profile("photoz", deadline=None)
hypothesis.settings.load_profile("photoz")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A file's bytes are no name: some differ each time they are made, and workers must collect the same tests."""
    return argname if isinstance(val, bytes) and len(val) > 40 else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real test data kept outside this repository; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real test data is not beside this checkout ({SHARED_DATA})")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees the settings of the person or scheduler that runs it, nor their cache or AWS files."""
    for variable in list(os.environ):
        if variable.startswith(("PHOTOZ_", "AWS_", "SLURM_", "JOB_COMPLETION_")):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("PHOTOZ_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 server (SeaweedFS), one for the whole test session."""
    with running_seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as endpoint:
        yield endpoint


@pytest.fixture
def s3_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of the test's own, with the AWS variables set for it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/some/prefix"


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """A Docker daemon of the tests' own. Its images stay in the folder TEST_IMAGES, or go with the session."""
    if reason := why_not():
        pytest.skip(reason)
    folder = os.environ.get("TEST_IMAGES")
    with ExitStack() as stack:
        if not folder:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="photoz-docker-"))
        yield stack.enter_context(running_docker(Path(folder).absolute()))


@pytest.fixture(scope="session")
def image_commit(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The commit that the images were built from; all are in place, and the CPU one stands in for that with CUDA."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    build_cpu(docker, commit.strip(), tmp_path_factory.mktemp("index"))
    docker("tag", CPU_IMAGE, CUDA_IMAGE)
    build_seaweedfs(docker, tmp_path_factory.mktemp("weed") / "image")
    return commit.strip()


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.real)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each backend."""
    return open_store(request.getfixturevalue("s3_url") if request.param == "s3" else str(tmp_path / "store"))


@pytest.fixture
def file_store(tmp_path: Path) -> Store:
    """An empty store in a folder, for tests that are not about stores."""
    return open_store(str(tmp_path / "store"))


@pytest.fixture(scope="module")
def one_core() -> Iterator[None]:
    """Tests that train run beside others: threads that wait for one another's turn would take minutes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("photoz.runtime.usable_cores", lambda: 1)
        yield
