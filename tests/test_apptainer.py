"""The .sif of containers/photoz.def, inside the jobs of a Slurm cluster: slurm/ with SITE_RUNTIME=apptainer."""

import shutil
import subprocess
from pathlib import Path

import pytest

from photoz.artifacts import KINDS, Ref, Store, load, upkeep
from tests import test_slurm
from tests.docker_engine import Docker
from tests.images import CPU_IMAGE, ROOT
from tests.test_slurm import Site

pytestmark = [
    *test_slurm.pytestmark,
    pytest.mark.apptainer,
    pytest.mark.skipif(not shutil.which("apptainer"), reason="not installed: apptainer"),
]

site, store = test_slurm.site, test_slurm.store


@pytest.fixture(scope="module")
def sif(docker: Docker, image_commit: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as docs/running/docker.md says, from the image under test."""
    folder = tmp_path_factory.mktemp("sif")
    # --notest: as root, %test asks for all capabilities, which a container of CI may not have.
    docker("save", CPU_IMAGE, "-o", str(folder / "photoz.tar"))
    words = ["--build-arg", "from=docker-archive", "--build-arg", "image=photoz.tar"]
    done = subprocess.run(
        ["apptainer", "build", "--notest", *words, "photoz.sif", str(ROOT / "containers/photoz.def")],
        cwd=folder, capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "photoz.tar").unlink()
    return folder / "photoz.sif"


@pytest.fixture(scope="module")
def apptainer_site(sif: Path, site: Site) -> Site:
    """The site with photoz in the .sif alone, no virtual environment and no checkout."""
    with (site.folder / "slurm/photoz.env").open("a") as file:
        file.write(f"SITE_RUNTIME=apptainer\nSITE_IMAGE={sif}\nSITE_VENV=\nPYTHONPATH=\n")
    return site


def test_doctor_finds_the_store_from_inside_a_job(apptainer_site: Site) -> None:
    script = "#!/bin/bash\nsource slurm/job.sh\nrun_job photoz-job doctor\n"
    (apptainer_site.folder / "slurm/doctor.sh").write_text(script)
    log = apptainer_site.ended(
        apptainer_site.submit("doctor", options=("--export=NONE", "--output=logs/photoz-doctor-%j.log"))
    )
    assert "s3://photoz/slurm" in log


def test_the_chain_runs_in_the_container(apptainer_site: Site, image_commit: str, store: Store) -> None:
    for job in apptainer_site.submit_chain().values():
        apptainer_site.ended(job)
    for kind in KINDS:
        made = load(store, Ref(kind, "mgs"))
        assert upkeep.verify(made) > 0
        producer = made.manifest.producer
        assert (producer.commit, producer.image) == (image_commit, CPU_IMAGE)
        assert producer.scheduler["name"] == "slurm"
    assert load(store, Ref("model", "mgs")).settings["world"] == 4
