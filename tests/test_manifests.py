"""What Kubernetes, compose, the Containerfile and Python have to agree on, and what schemas don't see."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
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
from tests.kubectl import ROOT, kubectl, kustomize
from tests.pods import action_for, expanded, quantity, value_of, with_job_name

RELEASES = ("1.34", "1.35", "1.36", "1.37")
# Overlays and components, as they are combined with `+`, in this order.
COMBINED = (
    "base", "shell", "irsa+kueue", "kueue+irsa", "gpus", "gpus+irsa+kueue+jobset+shell", "gpus+jobset+irsa+kueue",
    "cpu-small", "cpu-small+gpus+jobset+kueue", "cpu-small+shell",
)  # fmt: skip
SETS = ("plain", "example", *COMBINED)
JOBS = ("catalog", "shard", "train", "infer", "evaluate")
# Read elsewhere than from a flag: see photoz/runtime.py.
NOT_FLAGS = {"PHOTOZ_CACHE", "PHOTOZ_CACHE_SIZE", "PHOTOZ_COMMIT", "PHOTOZ_IMAGE"}
Object = dict[str, Any]


def documents(text: str) -> list[Object]:
    return [document for document in yaml.safe_load_all(text) if document]


def plain() -> list[Object]:
    """What `kubectl apply -f k8s/` reads."""
    return [document for path in sorted((ROOT / "k8s").glob("*.y*ml")) for document in documents(path.read_text())]


@functools.cache
def rendered(name: str, **fields: str) -> str:
    if name == "example":
        return kubectl("kustomize", "k8s-overlays/example")
    return kustomize(*(part for part in name.split("+") if part != "base"), **fields)


def named(name: str, **fields: str) -> list[Object]:
    return plain() if name == "plain" else documents(rendered(name, **fields))


def pods(found: list[Object]) -> dict[str, Object]:
    """Every pod template by the name that its object's pods have, those inside a JobSet too, with their labels."""
    templates = {}
    for each in found:
        name = each["metadata"]["name"]
        if each["kind"] == "Job":
            templates[name] = with_job_name(each["spec"]["template"], name)
        if each["kind"] == "Deployment":
            templates[name] = each["spec"]["template"]
        if each["kind"] == "JobSet":
            for replicated in each["spec"]["replicatedJobs"]:
                job = f"{name}-{replicated['name']}-0"
                templates[job] = with_job_name(replicated["template"]["spec"]["template"], job)
    return templates


def pod_templates(found: list[Object]) -> dict[str, Object]:
    return {name: template["spec"] for name, template in pods(found).items()}


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
    found = [each for name in SETS for each in named(name)] + secret
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


@pytest.mark.parametrize("name", SETS)
def test_what_schemas_let_through_is_right_too(name: str) -> None:
    found = named(name)
    names = [(each["kind"], each["metadata"]["name"]) for each in found]
    assert len(set(names)) == len(names)
    for each in found:
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?", each["metadata"]["name"])
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


@pytest.mark.parametrize("name", SETS)
def test_every_pod_is_as_restricted_as_the_namespace_demands(name: str) -> None:
    found = named(name)
    namespace = next(each for each in plain() if each["kind"] == "Namespace")
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
    assert sorted(kinds) == sorted(["Namespace", "ConfigMap", "ServiceAccount", "NetworkPolicy", *["Job"] * 5])
    secret = yaml.safe_load((ROOT / "k8s/examples/s3-secret.yaml").read_text())
    for name in JOBS:
        assert container(name)["envFrom"][1] == {"secretRef": {"name": secret["metadata"]["name"]}}


def test_kubectl_reads_nothing_but_manifests_in_the_folder() -> None:
    assert all("kind" in document and document["kind"] != "Kustomization" for document in plain())


def test_the_five_jobs_run_the_five_commands() -> None:
    assert {d["metadata"]["name"] for d in plain() if d["kind"] == "Job"} == {f"photoz-{name}" for name in JOBS}
    for name in JOBS:
        assert container(name)["args"] == ["photoz-job", name]
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


def of_kind(found: list[Object], kind: str) -> list[Object]:
    return [each for each in found if each["kind"] == kind]


def unresolved(found: list[Object]) -> list[str]:
    """References of a set's objects to names that nothing in it has; the keys' Secret may come from elsewhere."""
    names = {kind: {each["metadata"]["name"] for each in of_kind(found, kind)} for kind in {d["kind"] for d in found}}
    wrong = []
    for name, template in pods(found).items():
        pod, labels = template["spec"], template["metadata"]["labels"]
        (only,) = pod["containers"]
        account = pod.get("serviceAccountName")
        if account and account not in names["ServiceAccount"]:
            wrong.append(f"{name}: account {account}")
        for source in only["envFrom"]:
            settings = source.get("configMapRef", {}).get("name")
            if settings and settings not in names["ConfigMap"]:
                wrong.append(f"{name}: settings {settings}")
            secret = source.get("secretRef", {}).get("name")
            if secret and secret not in names.get("Secret", {"photoz-s3"}):
                wrong.append(f"{name}: secret {secret}")
        variables: dict[str, str] = {}
        for each in only.get("env", []):
            variables[each["name"]] = expanded(value_of(each, labels), variables)
        if variables.get("PHOTOZ_IMAGE", only["image"]) != only["image"]:
            wrong.append(f"{name}: PHOTOZ_IMAGE {variables['PHOTOZ_IMAGE']}")
        hosts = re.findall(r"^http://([^:]+):", variables.get("AWS_ENDPOINT_URL_S3", ""))
        for word in only.get("args", []):
            master = re.fullmatch(r"--master-addr=(.+)", expanded(word, variables))
            if master:
                pod_name, _, service = master[1].partition(".")
                hosts.append(service)
                if (pod_name, service) != (f"{name}-0", pod.get("subdomain")):
                    wrong.append(f"{name}: first pod {master[1]}")
        for host in hosts:
            services = [each for each in of_kind(found, "Service") if each["metadata"]["name"] == host]
            if not services or not any(selects(services[0]["spec"]["selector"], p) for p in pods(found).values()):
                wrong.append(f"{name}: host {host}")
    return wrong


def selects(labels: dict[str, str], template: Object) -> bool:
    assert labels, "an empty selector takes all pods of the namespace"
    return bool(labels.items() <= template["metadata"]["labels"].items())


def selectors(found: list[Object]) -> list[dict[str, str]]:
    """All sets of labels by which the set's objects select pods."""
    policies = [each["spec"] for each in of_kind(found, "NetworkPolicy")]
    rules = [rule for policy in policies for rule in (*policy.get("ingress", []), *policy.get("egress", []))]
    peers = [peer for rule in rules for peer in (*rule.get("from", []), *rule.get("to", []))]
    return [
        *(each["spec"]["selector"] for each in of_kind(found, "Service")),
        *(each["spec"]["selector"]["matchLabels"] for each in of_kind(found, "Deployment")),
        *(policy["podSelector"]["matchLabels"] for policy in policies),
        *(peer["podSelector"]["matchLabels"] for peer in peers),
    ]


@pytest.mark.parametrize("name", SETS)
def test_every_name_that_an_object_refers_to_is_in_its_set(name: str) -> None:
    assert unresolved(named(name)) == []


@pytest.mark.parametrize("name", COMBINED)
def test_a_second_chain_by_one_name_suffix_shares_nothing_with_the_first(name: str) -> None:
    first, second = named(name), named(name, nameSuffix="-b")
    assert unresolved(second) == []
    names = [{(each["kind"], each["metadata"]["name"]) for each in found} for found in (first, second)]
    assert not names[0] & names[1] and len(names[0]) == len(names[1])
    for one, other in ((first, second), (second, first)):
        for labels in selectors(one):
            assert any(selects(labels, template) for template in pods(one).values())
            assert not any(selects(labels, template) for template in pods(other).values())
        # Every job is confined, in either chain.
        policy = next(each for each in of_kind(one, "NetworkPolicy") if "photoz" in each["metadata"]["name"])
        assert all(selects(policy["spec"]["podSelector"]["matchLabels"], each) for each in pods(one).values())


@pytest.mark.parametrize("name", COMBINED)
def test_all_of_a_chain_goes_to_a_namespace_that_somebody_else_made(name: str) -> None:
    found = named(name, namespace="astro")
    assert not of_kind(found, "Namespace")
    assert {each["metadata"]["namespace"] for each in found} == {"astro"}
    assert unresolved(found) == []
    assert len(found) == len(named(name))


def test_a_broken_reference_is_noticed() -> None:
    found = named("cpu-small+gpus", nameSuffix="-b")
    text = json.dumps(found)
    (settings,) = [each["metadata"]["name"] for each in of_kind(found, "ConfigMap")]
    for right, wrong in (
        (settings, "photoz-settings"), ('"value": "seaweedfs-b"', '"value": "seaweedfs"'),
        ('"subdomain": "photoz-train-b"', '"subdomain": "photoz-train"'), ('"photoz-s3-b"}}', '"photoz-s3"}}'),
        ('"serviceAccountName": "photoz-b"', '"serviceAccountName": "photoz"'),
    ):  # fmt: skip
        broken = [
            json.loads(json.dumps(each).replace(right, wrong)) if each["kind"] in ("Job", "Deployment") else each
            for each in found
        ]
        assert right in text and unresolved(broken)


@pytest.mark.parametrize("name", SETS)
def test_names_leave_room_for_a_suffix_and_the_pods_index(name: str) -> None:
    found = named(name) if name in ("plain", "example") else named(name, nameSuffix="-of-ten-chr")
    for each in found:
        assert len(each["metadata"]["name"]) <= 63
    for pod in pods(found):
        assert len(f"{pod}-9999-abcde") <= 63


def test_applied_either_way_the_objects_are_the_same_but_for_the_namespace() -> None:
    key = lambda each: (each["kind"], each["metadata"]["name"])  # noqa: E731
    by_file = sorted((each for each in plain() if each["kind"] != "Namespace"), key=key)
    # The name of the settings among them: after an edit, k8s/rename-settings.sh has to be run.
    assert by_file == sorted(named("base"), key=key)


def test_the_shell_has_what_the_jobs_have() -> None:
    (alone,) = documents((ROOT / "k8s/components/shell/shell.yaml").read_text())
    assert unresolved([*plain(), alone]) == []
    for name in (each for each in SETS if "shell" in each):
        templates = pod_templates(named(name))
        shell, catalog = templates["photoz-shell"], templates["photoz-catalog"]
        for key in ("image", "env", "envFrom", "securityContext"):
            assert shell["containers"][0][key] == catalog["containers"][0][key]
        assert shell["securityContext"] == catalog["securityContext"]


@pytest.mark.parametrize("name", SETS)
def test_settings_cannot_change_under_a_running_job(name: str) -> None:
    (settings,) = of_kind(named(name), "ConfigMap")
    assert settings["immutable"] is True
    assert re.fullmatch(r"photoz-settings-[-a-z0-9]*[a-z0-9]{10}", settings["metadata"]["name"])


def test_other_settings_have_another_name_after_an_edit(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    edited = tmp_path / "k8s/10-settings.yaml"
    before = set(re.findall(r"photoz-settings-\w+", edited.read_text()))
    edited.write_text(edited.read_text().replace("PHOTOZ_NAME: mgs", "PHOTOZ_NAME: other"))
    search = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    script = [tmp_path / "k8s/rename-settings.sh"]
    subprocess.run(script, env=os.environ | search, check=True, capture_output=True)
    files = [*(tmp_path / "k8s").glob("*.yaml"), tmp_path / "k8s/components/shell/shell.yaml"]
    names = {name for path in files for name in re.findall(r"name: (photoz-settings-\w+)", path.read_text())}
    assert len(names) == len(before) == 1 and names != before
    assert f"name: {names.pop()}\n" in kubectl("kustomize", str(tmp_path / "k8s"))


def test_the_documented_command_names_the_registry_in_every_place(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    command = re.search(r"^sed -i .*yaml(?=  )", (ROOT / "docs/running/kubernetes.md").read_text(), re.M)
    assert command
    subprocess.run(["bash", "-ec", command[0]], cwd=tmp_path, check=True)
    texts = [path.read_text() for path in (tmp_path / "k8s").rglob("*.yaml")]
    places = [found for text in texts for found in re.findall(r"(\S*)photoz:0\.", text)]
    assert len(places) == 12 and {place.strip('"') for place in places} == {"registry.example.org/you/"}


def test_training_takes_one_gpu_and_fails_where_it_finds_none() -> None:
    for name in JOBS:
        own = {each["name"]: each["value"] for each in container(name)["env"]}
        gpus = container(name)["resources"]["limits"].get("nvidia.com/gpu")
        assert (gpus, own.get("PHOTOZ_DEVICE")) == ((1, "cuda") if name == "train" else (None, None))
    for each in everything():
        if each["kind"] in ("Job", "Deployment"):
            (only,) = each["spec"]["template"]["spec"]["containers"]
            own = {entry["name"]: entry.get("value") for entry in only.get("env", [])}
            assert ("nvidia.com/gpu" in only["resources"]["limits"]) == (own.get("PHOTOZ_DEVICE") == "cuda")


def test_the_last_error_can_be_read_from_every_pod_of_a_job() -> None:
    for name in JOBS:
        assert container(name)["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_pods_fit_on_nodes_with_a_disk_of_20_gb() -> None:
    usable = 20e9 * 0.85  # what kubelet keeps for itself and the images' eviction threshold
    for name in JOBS:
        assert 2 * quantity(container(name)["resources"]["requests"]["ephemeral-storage"]) <= usable
    total: Counter[str] = Counter()
    for each in of_kind(named("cpu-small"), "Job") + of_kind(named("cpu-small"), "Deployment"):
        (only,) = each["spec"]["template"]["spec"]["containers"]
        for what, how_much in only["resources"]["requests"].items():
            total[what] += int(quantity(how_much) * 1000) * each["spec"].get("completions", 1)
    # All pods of the small cluster at once, on one node: they wait for one another.
    assert total["ephemeral-storage"] / 1000 <= usable - 5e9  # less the images
    assert total["memory"] / 1000 <= 7.5e9 and total["cpu"] / 1000 <= 1.5


def test_training_on_several_gpus_says_their_number_once_in_each_place() -> None:
    (train,) = [each for each in of_kind(named("gpus"), "Job") if each["metadata"]["name"] == "photoz-train"]
    spec, pod = train["spec"], train["spec"]["template"]["spec"]
    (only,) = pod["containers"]
    (service,) = of_kind(named("gpus"), "Service")
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"] is True
    assert spec["completions"] == spec["parallelism"] == 2
    assert only["args"][-3:] == ["-m", "jobs", "train"]
    assert {"--nnodes=$(PODS)", "--nproc-per-node=$(GPUS)"} <= set(only["args"])
    assert f"--master-port={service['spec']['ports'][0]['port']}" in only["args"]
    own = {each["name"]: each.get("value") for each in only["env"]}
    assert own["PODS"] == str(spec["completions"])
    assert own["GPUS"] == str(only["resources"]["limits"]["nvidia.com/gpu"])
    assert own["PHOTOZ_DEVICE"] == "cuda" and own["NCCL_SOCKET_IFNAME"] == "eth0"
    shm = next(volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shm")
    assert shm["medium"] == "Memory" and {"name": "shm", "mountPath": "/dev/shm"} in only["volumeMounts"]  # noqa: S108 - a pod's


def test_the_documented_patch_makes_one_pod_with_four_gpus() -> None:
    patch = re.search(r"```yaml\n(.*?)```", (ROOT / "docs/running/kubernetes.md").read_text(), re.S)
    assert patch
    found = documents(kustomize("gpus", patch=patch[1]))
    (train,) = [each for each in of_kind(found, "Job") if each["metadata"]["name"] == "photoz-train"]
    kubernetes_validate.validate(train, RELEASES[-1], strict=True)
    (only,) = train["spec"]["template"]["spec"]["containers"]
    own = {each["name"]: each.get("value") for each in only["env"]}
    assert (train["spec"]["completions"], train["spec"]["parallelism"], own["PODS"], own["GPUS"]) == (1, 1, "1", "4")
    assert only["resources"]["limits"] == only["resources"]["requests"]
    assert only["resources"]["limits"]["nvidia.com/gpu"] == 4


@pytest.mark.parametrize("name", ["gpus+jobset", "gpus+irsa+kueue+jobset+shell", "gpus+jobset+irsa+kueue"])
def test_the_jobset_trains_as_the_job_does(name: str) -> None:
    found = named(name)
    (train,) = [each for each in named("gpus") if each["kind"] == "Job" and "train" in each["metadata"]["name"]]
    (jobset,) = of_kind(found, "JobSet")
    assert "photoz-train" not in {each["metadata"]["name"] for each in of_kind(found, "Job")}
    spec = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert spec["completions"] == spec["parallelism"] == train["spec"]["completions"]
    assert spec["podFailurePolicy"]["rules"] == [
        rule for rule in train["spec"]["podFailurePolicy"]["rules"] if rule["action"] == "FailJob"
    ]
    given, wanted = (each["template"]["spec"]["containers"][0] for each in (spec, train["spec"]))
    differs = {"envFrom"} if "irsa" in name else set()
    assert {key for key in wanted if given[key] != wanted[key]} == differs


@pytest.mark.parametrize("name", [each for each in SETS if "irsa" in each or each == "example"])
def test_with_a_role_of_the_cloud_no_pod_asks_for_a_secret(name: str) -> None:
    found = named(name)
    (account,), (settings,) = of_kind(found, "ServiceAccount"), of_kind(found, "ConfigMap")
    assert "eks.amazonaws.com/role-arn" in account["metadata"]["annotations"]
    for pod in pod_templates(found).values():
        assert pod["containers"][0]["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]


@pytest.mark.parametrize("name", [each for each in SETS if "kueue" in each or each == "example"])
def test_kueue_gets_every_job_in_its_queue_and_is_left_to_suspend_them(name: str) -> None:
    found = of_kind(named(name), "Job") + of_kind(named(name), "JobSet")
    queued = [each for each in found if each["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") == "photoz"]
    assert len(queued) == 5
    assert {each["metadata"]["name"] for each in found if each not in queued} <= {"photoz-shell"}
    assert not any("suspend" in each["spec"] for each in found)


def test_the_example_puts_pods_on_the_nodes_and_images_from_the_registry_that_it_names() -> None:
    found = named("example")
    (account,) = of_kind(found, "ServiceAccount")
    assert account["imagePullSecrets"] == [{"name": "photoz-registry"}]
    for pod in pod_templates(found).values():
        assert pod["nodeSelector"]
        assert pod["containers"][0]["image"].startswith("registry.example.org/you/photoz:")
        assert pod["serviceAccountName"] == account["metadata"]["name"]
    (settings,) = of_kind(found, "ConfigMap")
    assert settings["data"]["PHOTOZ_SURVEY"] == "sdss-dr17" and settings["data"]["PHOTOZ_WAIT"] == "24h"


def test_the_small_cluster_needs_no_gpu_and_no_other_store() -> None:
    found = named("cpu-small")
    for name, pod in pod_templates(found).items():
        assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["limits"]
        assert pod["containers"][0]["image"].endswith("-cpu") or name == "seaweedfs"
    (service,) = of_kind(found, "Service")
    for each in of_kind(found, "Job"):
        own = each["spec"]["template"]["spec"]["containers"][0]["env"]
        url = f"http://$(SEAWEEDFS):{service['spec']['ports'][0]['port']}"
        assert {"name": "AWS_ENDPOINT_URL_S3", "value": url} in own


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
        same = given.keys() & settings().keys() - {"PHOTOZ_LIMIT", "PHOTOZ_LOG_FORMAT", "PHOTOZ_CACHE_SIZE"}
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
    command = [sys.executable, "-m", "yamllint", "--strict", "k8s", "k8s-overlays", "containers"]
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
