"""What Kubernetes, compose, the Containerfile and Python have to agree on, and what schemas don't see."""

import functools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from jobs.app import app
from photoz import __version__
from photoz.artifacts.refs import NAME_PATTERN
from photoz.errors import ExitCode
from photoz.model.devices import LEAST_DRIVER
from photoz.runtime import GRACE_S
from tests.kubectl import ROOT, overlay
from tests.pods import action_for, quantity

RELEASES = ("1.34", "1.35", "1.36", "1.37")
OVERLAYS = ("base", "cpu-small", "irsa", "jobset", "kueue")
JOBS = ("catalog", "shard", "train", "infer", "evaluate")
# Read elsewhere than from a flag: see photoz/runtime.py.
NOT_FLAGS = {"PHOTOZ_CACHE", "PHOTOZ_CACHE_SIZE", "PHOTOZ_COMMIT", "PHOTOZ_IMAGE"}
Object = dict[str, Any]


def documents(text: str) -> list[Object]:
    return [document for document in yaml.safe_load_all(text) if document]


def plain() -> list[Object]:
    """What `kubectl apply -f k8s/` reads."""
    return [document for path in sorted((ROOT / "k8s").glob("*.y*ml")) for document in documents(path.read_text())]


rendered = functools.cache(overlay)


def named(name: str) -> list[Object]:
    return plain() if name == "plain" else documents(rendered(name))


def pod_templates(found: list[Object]) -> dict[str, Object]:
    """Every pod template by its object's name, those inside a JobSet too."""
    templates = {}
    for each in found:
        if each["kind"] in ("Job", "Deployment"):
            templates[each["metadata"]["name"]] = each["spec"]["template"]["spec"]
        if each["kind"] == "JobSet":
            for job in each["spec"]["replicatedJobs"]:
                templates[each["metadata"]["name"]] = job["template"]["spec"]["template"]["spec"]
    return templates


def job(name: str) -> Object:
    return next(d for d in plain() if d["kind"] == "Job" and d["metadata"]["name"] == f"photoz-{name}")


def container(name: str) -> Object:
    (found,) = job(name)["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def flags() -> dict[str, set[str]]:
    """The variables that each command of photoz-job reads."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return {name: {p.envvar for p in command.params if p.envvar} for name, command in commands.items()}


def everything() -> list[Object]:
    """Each different object of the plain manifests, the example and the overlays; of a JobSet, its Job."""
    secret = documents((ROOT / "k8s/examples/s3-secret.yaml").read_text())
    found = [each for name in ("plain", *OVERLAYS) for each in named(name)] + secret
    for jobset in [each for each in found if each["kind"] == "JobSet"]:
        found.remove(jobset)
        for replicated in jobset["spec"]["replicatedJobs"]:
            found.append({"apiVersion": "batch/v1", "kind": "Job", "metadata": {}, **replicated["template"]})
    return list({json.dumps(each, sort_keys=True): each for each in found}.values())


@pytest.mark.parametrize("release", RELEASES)
def test_each_manifest_is_strictly_valid(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read_once = functools.cache(kubernetes_validate.utils.schema_contents)
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", read_once)
    assert len(everything()) > 20
    for each in everything():
        kubernetes_validate.validate(each, release, strict=True)


def test_these_are_the_last_four_releases_of_which_there_are_schemas() -> None:
    assert kubernetes_validate.latest_version().startswith(RELEASES[-1])


def test_a_wrong_field_is_noticed() -> None:
    wrong = job("shard")
    wrong["spec"]["backOffLimit"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, RELEASES[-1], strict=True)


@pytest.mark.parametrize("name", ["plain", *OVERLAYS])
def test_what_schemas_let_through_is_right_too(name: str) -> None:
    found = named(name)
    names = [(each["kind"], each["metadata"]["name"]) for each in found]
    assert len(set(names)) == len(names)
    for each in found:
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?", each["metadata"]["name"])
        assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == "photoz"
    for pod in pod_templates(found).values():
        (only,) = pod["containers"]
        assert pod.get("restartPolicy", "Always") in ("Never", "Always")
        assert only["imagePullPolicy"] in ("IfNotPresent", "Always", "Never")
        needed, limits = only["resources"]["requests"], only["resources"]["limits"]
        assert all(quantity(needed[what]) <= quantity(limits[what]) for what in limits)
        assert {"cpu", "memory", "ephemeral-storage"} <= needed.keys()
        assert all(isinstance(limits.get("nvidia.com/gpu", 1), int) for limits in (needed, limits))
        assert needed.get("nvidia.com/gpu") == limits.get("nvidia.com/gpu")
        volumes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
        assert volumes.keys() == {mount["name"] for mount in only["volumeMounts"]}
        on_disk = [quantity(v["sizeLimit"]) for v in volumes.values() if v.get("medium", "") != "Memory"]
        assert all(v.get("medium", "") in ("", "Memory") for v in volumes.values())
        assert sum(on_disk) <= quantity(limits["ephemeral-storage"])


@pytest.mark.parametrize("name", ["plain", *OVERLAYS])
def test_every_pod_is_as_restricted_as_the_namespace_demands(name: str) -> None:
    found = named(name)
    namespace = next(each for each in found if each["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in pod_templates(found).values():
        user = user_of_image()
        assert pod["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert pod["containers"][0]["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}


def user_of_image() -> int:
    (user, group) = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "containers/Containerfile").read_text(), re.M)[0]
    assert user == group
    return int(user)


def test_no_secret_is_applied_by_default() -> None:
    kinds = [document["kind"] for document in plain()]
    assert "Secret" not in kinds
    assert sorted(kinds) == sorted(
        ["Namespace", "ConfigMap", "ServiceAccount", "Service", "NetworkPolicy", "NetworkPolicy", *["Job"] * 5]
    )
    secret = yaml.safe_load((ROOT / "k8s/examples/s3-secret.yaml").read_text())
    for name in JOBS:
        assert container(name)["envFrom"][1] == {"secretRef": {"name": secret["metadata"]["name"]}}


def test_kubectl_reads_nothing_but_manifests_in_the_folder() -> None:
    assert all("kind" in document and document["kind"] != "Kustomization" for document in plain())


def test_the_five_jobs_run_the_five_commands() -> None:
    assert {d["metadata"]["name"] for d in plain() if d["kind"] == "Job"} == {f"photoz-{name}" for name in JOBS}
    for name in JOBS:
        args = container(name)["args"]
        assert args == ["photoz-job", name] if name != "train" else args[-3:] == ["-m", "jobs", "train"]
        assert name in flags()
        assert job(name)["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] == name


def test_every_setting_is_a_flag_of_some_job() -> None:
    known = set().union(*(flags()[name] for name in JOBS)) | NOT_FLAGS
    for given in (settings(), *(compose_settings(name) for name in JOBS)):
        assert {key for key in given if key.startswith("PHOTOZ_")} <= known
    for name in JOBS:
        own = {each["name"] for each in container(name)["env"]}
        assert {key for key in own if key.startswith("PHOTOZ_")} <= flags()[name] | NOT_FLAGS


def settings() -> dict[str, str]:
    found: dict[str, str] = next(each for each in plain() if each["kind"] == "ConfigMap")["data"]
    return found


def test_settings_are_text_and_the_store_and_name_are_valid() -> None:
    assert all(isinstance(value, str) for value in settings().values())
    assert settings()["PHOTOZ_STORE"].startswith("s3://")
    assert re.fullmatch(NAME_PATTERN, settings()["PHOTOZ_NAME"])


def test_jobs_in_slices_say_how_many_there_are() -> None:
    for name in JOBS:
        spec, own = job(name)["spec"], {each["name"]: each["value"] for each in container(name)["env"]}
        if name == "evaluate":
            assert "completions" not in spec and "PHOTOZ_TASKS" not in own
            continue
        assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
        assert own.get("PHOTOZ_TASKS") == (None if name == "train" else str(spec["completions"]))


def test_a_finished_pod_is_judged_by_its_exit_code_as_python_means_it() -> None:
    expected = {
        ExitCode.BUG: "FailJob",
        ExitCode.BAD_INPUT: "FailJob",
        ExitCode.MISSING_ARTIFACT: "FailJob",
        ExitCode.CONFLICT: "FailJob",
        ExitCode.BAD_FORMAT: "FailJob",
        ExitCode.TRY_AGAIN: "Count",
        ExitCode.PREEMPTED: "Ignore",
    }
    assert expected.keys() == set(ExitCode) - {ExitCode.DONE}
    for name in JOBS:
        rules = job(name)["spec"]["podFailurePolicy"]["rules"]
        assert {code: action_for(rules, code, disrupted=False) for code in expected} == expected
        assert action_for(rules, 137, disrupted=True) == "Ignore"
        assert action_for(rules, 137, disrupted=False) == "Count"
        named_containers = {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule}
        assert named_containers == {container(name)["name"]}
        assert job(name)["spec"]["template"]["spec"]["restartPolicy"] == "Never"  # or there may be no such policy


def test_pods_have_the_time_to_leave_that_photoz_takes() -> None:
    for name in JOBS:
        grace = job(name)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert GRACE_S + 5 <= grace <= 30  # spot instances give no more


def test_training_pods_find_the_first_of_them_by_its_name() -> None:
    spec, pod = job("train")["spec"], job("train")["spec"]["template"]["spec"]
    args = container("train")["args"]
    service = next(each for each in plain() if each["kind"] == "Service")
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"].items() <= job("train")["spec"]["template"]["metadata"]["labels"].items()
    assert pod["subdomain"] == service["metadata"]["name"]
    assert f"--nnodes={spec['completions']}" in args
    assert f"--nproc-per-node={container('train')['resources']['limits']['nvidia.com/gpu']}" in args
    assert f"--master-addr={job('train')['metadata']['name']}-0.{pod['subdomain']}" in args
    assert f"--master-port={service['spec']['ports'][0]['port']}" in args


def test_the_jobset_trains_as_the_job_does() -> None:
    (jobset,) = [each for each in named("jobset") if each["kind"] == "JobSet"]
    assert "photoz-train" not in {each["metadata"]["name"] for each in named("jobset") if each["kind"] == "Job"}
    spec = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert spec["completions"] == spec["parallelism"] == job("train")["spec"]["completions"]
    assert spec["podFailurePolicy"]["rules"] == [
        rule for rule in job("train")["spec"]["podFailurePolicy"]["rules"] if rule["action"] == "FailJob"
    ]
    master = f"{jobset['metadata']['name']}-{jobset['spec']['replicatedJobs'][0]['name']}-0-0.photoz-train"
    assert f"--master-addr={master}" in spec["template"]["spec"]["containers"][0]["args"]


def test_with_a_role_of_the_cloud_no_pod_asks_for_a_secret() -> None:
    found = named("irsa")
    assert any("eks.amazonaws.com/role-arn" in each["metadata"].get("annotations", {}) for each in found)
    for pod in pod_templates(found).values():
        assert pod["containers"][0]["envFrom"] == [{"configMapRef": {"name": "photoz-settings"}}]


def test_kueue_gets_every_job_suspended_and_in_its_queue() -> None:
    found = [each for each in named("kueue") if each["kind"] == "Job"]
    assert len(found) == 5
    for each in found:
        assert each["spec"]["suspend"] is True
        assert each["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "photoz"


def test_the_small_cluster_needs_no_gpu_and_no_other_store() -> None:
    found = named("cpu-small")
    for name, pod in pod_templates(found).items():
        assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["limits"]
        assert pod["containers"][0]["image"].endswith("-cpu") or name == "seaweedfs"
    service = next(each for each in found if each["kind"] == "Service" and each["metadata"]["name"] == "seaweedfs")
    endpoint = next(each for each in found if each["kind"] == "ConfigMap")["data"]["AWS_ENDPOINT_URL_S3"]
    assert endpoint == f"http://seaweedfs:{service['spec']['ports'][0]['port']}"


def test_images_carry_the_packages_version_everywhere() -> None:
    text = (ROOT / "containers/Containerfile").read_text()
    assert f'image.version="{__version__}"' in text
    for target in ("cpu", "cuda", "cu126"):
        assert re.search(
            rf"^FROM runtime AS {target}\n(?:.*\n)*?ARG PHOTOZ_IMAGE=photoz:{__version__}-{target}$", text, re.M
        )
    for name in JOBS:
        image = f"photoz:{__version__}-{'cuda' if name == 'train' else 'cpu'}"
        assert container(name)["image"] == image
        assert {"name": "PHOTOZ_IMAGE", "value": image} in container(name)["env"]
        assert compose()["services"][name]["image"] == image.replace("cuda", "cpu")
    places = [*(ROOT / "docs/running").glob("docker.md"), *(ROOT / "docs/running").glob("kubernetes.md")]
    for path in [*places, ROOT / "containers/photoz.def", ROOT / "containers/Containerfile"]:
        assert set(re.findall(r"photoz:(\d[\w.]*)-c", path.read_text())) <= {__version__}, path


def compose() -> Object:
    found = yaml.safe_load((ROOT / "containers/compose.yaml").read_text())
    assert isinstance(found, dict)
    return found


def compose_settings(name: str) -> dict[str, str]:
    found: dict[str, str] = compose()["services"][name]["environment"]
    return found


def test_compose_runs_the_same_jobs_with_the_same_settings_and_limits() -> None:
    services = compose()["services"]
    assert set(JOBS) <= services.keys()
    for name in JOBS:
        given = {key: re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", value) for key, value in compose_settings(name).items()}
        same = given.keys() & settings().keys() - {"PHOTOZ_LIMIT", "PHOTOZ_LOG_FORMAT"}
        assert {key: given[key] for key in same} == {key: settings()[key] for key in same}
        assert {"PHOTOZ_STORE", "PHOTOZ_NAME", "PHOTOZ_SURVEY", "PHOTOZ_WAIT"} <= same
        assert services[name]["command"] == ["photoz-job", name]
        assert services[name]["read_only"] is True and services[name]["cap_drop"] == ["ALL"]
        assert services[name]["stop_grace_period"] == "30s"
        memory = container(name)["resources"]["limits"]["memory"]
        assert services[name]["mem_limit"].replace("g", "Gi") == memory


def test_compose_and_the_small_cluster_use_one_seaweedfs() -> None:
    pod = pod_templates(named("cpu-small"))["seaweedfs"]
    assert compose()["services"]["seaweedfs"]["image"] == pod["containers"][0]["image"]


def test_the_containerfile_has_no_lint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, ROOT / "containers/Containerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_each_cuda_image_asks_for_the_driver_that_its_torch_needs_and_the_docs_say_it() -> None:
    stages = re.split(r"^FROM ", (ROOT / "containers/Containerfile").read_text(), flags=re.M)
    documented = (ROOT / "docs/running/docker.md").read_text()
    for target, built in (("cuda", locked("torch-cuda")["nvidia-cuda-runtime"]), ("cu126", "12.6")):
        (stage,) = [stage for stage in stages if stage.startswith(f"runtime AS {target}\n")]
        major, minor = built.split(".")[:2]
        assert f'NVIDIA_REQUIRE_CUDA="cuda>={major}.0"' in stage  # minor versions run on one another's drivers
        assert "PHOTOZ_DEVICE=cuda" in stage
        row = f"| `photoz:{__version__}-{target}` | {major}.{minor} | {LEAST_DRIVER[int(major)]} or newer |"
        assert row in documented
    # Every other version of a local build is another build.
    older = {f"{name}=={version}+cu126" for name, version in locked("torch-cuda").items() if name.startswith("torch")}
    assert older == set((ROOT / "containers/torch-cu126.lock").read_text().splitlines()[1:])


def test_yaml_has_no_lint() -> None:
    command = [sys.executable, "-m", "yamllint", "--strict", "k8s", "containers"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout


def locked(name: str) -> dict[str, str]:
    text = (ROOT / f"containers/{name}.lock").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", text, re.M))


def test_locks_hold_every_dependency_with_hashes_and_the_torch_of_the_constraints() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[>=<\[]", line)[0].lower() for line in project["dependencies"]}
    assert wanted <= locked("common").keys() | locked("torch-cpu").keys()
    (torch,) = re.findall(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert locked("torch-cpu") == {"torch": f"{torch}+cpu"}
    assert locked("torch-cuda")["torch"] == torch and "torchvision" in locked("torch-cuda")
    for name in ("common", "torch-cpu", "torch-cuda"):
        requirements = re.split(r"^(?=[a-z])", (ROOT / f"containers/{name}.lock").read_text(), flags=re.M)[1:]
        assert all("--hash=sha256:" in requirement for requirement in requirements)
    assert not locked("common").keys() & locked("torch-cuda").keys()


def test_the_image_starts_through_tini_as_nobody_in_particular() -> None:
    text = (ROOT / "containers/Containerfile").read_text()
    assert 'ENTRYPOINT ["/usr/bin/tini", "-s", "--"]' in text
    assert not re.search(r"\b(gcc|build-essential|make|git)\b", text.partition("AS runtime")[2])
