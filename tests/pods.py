"""Job controller and kubelet in small: runs the pods of Jobs and Deployments, read from an API, as containers.

What counts here is what the manifests promise: indexes, environment, names, security, limits, and what becomes of an
exit code. Left out: scheduling, back-off delays, network policies, GPUs.
"""

import base64
import functools
import os
import re
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.docker_engine import Docker

Object = dict[str, Any]
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 10**3, "M": 10**6, "G": 10**9, "m": 0.001, "": 1}


def quantity(text: object) -> float:
    """A quantity of Kubernetes' as a number: `250m`, `4Gi`, `2`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(Ki|Mi|Gi|k|M|G|m|)", str(text))
    assert found, f"{text!r} is no quantity"
    return float(found[1]) * _UNITS[found[2]]


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """A word of a manifest with `$(NAME)` replaced, as the kubelet does it."""
    return re.sub(r"\$\((\w+)\)", lambda found: environment.get(found[1], found[0]), text)


def value_of(variable: Object, labels: Mapping[str, str]) -> str:
    """The value of an entry of `env`; of a pod's own fields, its labels."""
    if "value" in variable:
        return str(variable["value"])
    found = re.fullmatch(r"metadata\.labels\['(.+)'\]", variable["valueFrom"]["fieldRef"]["fieldPath"])
    assert found
    return labels[found[1]]


def with_job_name(template: Object, job: str) -> Object:
    """A Job's pod template, with the label that the Job controller gives its pods."""
    metadata = template["metadata"]
    labels = metadata["labels"] | {"batch.kubernetes.io/job-name": job}
    return template | {"metadata": metadata | {"labels": labels}}


@dataclass
class Cluster:
    """Objects of one namespace, by kind and name, and the containers that run its pods."""

    docker: Docker
    network: str
    objects: dict[tuple[str, str], Object]
    disrupted: set[str] = field(default_factory=set)  # containers whose node is taken away
    closed: threading.Event = field(default_factory=threading.Event)  # no more pods

    def of_kind(self, kind: str) -> list[Object]:
        """All objects of a kind."""
        return [found for (its, _), found in self.objects.items() if its == kind]

    def start(self, name: str, hostname: str, template: Object, variables: dict[str, str]) -> str:
        """Start a pod of one container; returns the container's name."""
        pod = template["spec"]
        (container,) = pod["containers"]
        # The kubelet sets the first of them in every pod.
        environment = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"} | self._environment(container, template) | variables
        expand = functools.partial(expanded, environment=environment)
        command = [expand(word) for word in container.get("command", [])]
        options = [
            *("--name", name, "--hostname", hostname, "--network", self.network),
            *(word for alias in self._names(hostname, template) for word in ("--network-alias", alias)),
            *_confinement(pod, container),
            *(word for mount in _mounts(pod, container) for word in ("--tmpfs", mount)),
            *("--volume", f"{self._last_words(name)}:/dev/termination-log"),
            *(word for key, value in environment.items() for word in ("--env", f"{key}={value}")),
            *(("--entrypoint", command[0]) if command else ()),
        ]
        words = [*command[1:], *map(expand, container.get("args", []))]
        self.docker("run", "--detach", "--pull", "never", *options, container["image"], *words)
        return name

    def _last_words(self, pod: str) -> Path:
        """The file that the kubelet mounts for a container's last words; every user may write it."""
        path = self.docker.folder / "termination" / pod
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
        path.chmod(0o666)
        return path

    def termination_message(self, pod: str) -> str:
        """What `kubectl describe` says of a pod with FallbackToLogsOnError: its last words, or else the log's end."""
        said = self.docker.run("logs", "--tail", "80", pod)
        return (self.docker.folder / "termination" / pod).read_text() or (said.stdout + said.stderr)[-2048:]

    def _environment(self, container: Object, template: Object) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            kind, ref = ("ConfigMap", "configMapRef") if "configMapRef" in source else ("Secret", "secretRef")
            given = self.objects.get((kind, source[ref]["name"]))
            assert given or source[ref].get("optional"), f"{kind} {source[ref]['name']} is missing: the pod can't start"
            if given:
                found |= given.get("data", {}) if kind == "ConfigMap" else _secret(given)
        for each in container.get("env", []):
            found[each["name"]] = expanded(value_of(each, template["metadata"]["labels"]), found)
        return found

    def _names(self, hostname: str, template: Object) -> list[str]:
        labels, subdomain = template["metadata"]["labels"], template["spec"].get("subdomain")
        names = []
        for service in self.of_kind("Service"):
            if not service["spec"]["selector"].items() <= labels.items():
                continue
            name = service["metadata"]["name"]
            headless = service["spec"].get("clusterIP") == "None"
            names.append(f"{hostname}.{name}" if headless and name == subdomain else name)
        return names


def _secret(given: Object) -> dict[str, str]:
    plain = {key: base64.b64decode(value).decode() for key, value in given.get("data", {}).items()}
    return plain | dict(given.get("stringData", {}))


def _confinement(pod: Object, container: Object) -> list[str]:
    user, security = pod["securityContext"], container["securityContext"]
    assert user["seccompProfile"]["type"] == "RuntimeDefault"  # docker's own default, too
    limits = container["resources"]["limits"]
    memory = str(int(quantity(limits["memory"])))
    options = ["--user", f"{user['runAsUser']}:{user['runAsGroup']}", "--memory", memory, "--memory-swap", memory]
    options += ["--cpus", str(min(quantity(limits["cpu"]), os.cpu_count() or 1))]
    options += [word for capability in security["capabilities"]["drop"] for word in ("--cap-drop", capability)]
    if security["readOnlyRootFilesystem"]:
        options.append("--read-only")
    if not security["allowPrivilegeEscalation"]:
        options += ["--security-opt", "no-new-privileges"]
    return [*options, "--stop-timeout", str(pod.get("terminationGracePeriodSeconds", 30))]


def _mounts(pod: Object, container: Object) -> list[str]:
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod.get("volumes", [])}
    return [
        f"{mount['mountPath']}:mode=1777,exec,size={int(quantity(volumes[mount['name']]['sizeLimit']))}"
        for mount in container.get("volumeMounts", [])
    ]


@dataclass
class JobRun:
    """One Job from its first pods to its end. `exits` lists each index's exit codes, in order."""

    cluster: Cluster
    job: Object
    exits: dict[int, list[int]] = field(default_factory=dict)
    failed: str | None = None
    succeeded: set[int] = field(default_factory=set)
    over: threading.Event = field(default_factory=threading.Event)
    running: dict[int, str] = field(default_factory=dict)
    _retries: Counter[int] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        """The Job's name."""
        return str(self.job["metadata"]["name"])

    def start(self) -> "JobRun":
        """Start a thread for each index; wait for `over` to see how it ends."""
        for index in range(self.job["spec"].get("completions", 1)):
            self.exits[index] = []
            threading.Thread(target=self._run_index, args=(index,), daemon=True).start()
        return self

    def _run_index(self, index: int) -> None:
        indexed = self.job["spec"].get("completionMode") == "Indexed"
        hostname = f"{self.name}-{index}" if indexed else self.name
        variables = {"JOB_COMPLETION_INDEX": str(index)} if indexed else {}
        template = with_job_name(self.job["spec"]["template"], self.name)
        while not self.over.is_set() and not self.cluster.closed.is_set():
            pod = f"{hostname}-attempt-{len(self.exits[index])}"
            try:
                self.running[index] = self.cluster.start(pod, hostname, template, variables)
                code = int(self.cluster.docker("wait", pod, timeout_s=1500))
            except AssertionError as error:
                self._end(f"pod {pod} could not be started: {error}")
                return
            with self._lock:
                self.exits[index].append(code)
                if self._ended(index, code, pod in self.cluster.disrupted):
                    return

    def _ended(self, index: int, code: int, disrupted: bool) -> bool:
        """Take note of a pod's end; whether nothing more is to be done for this index."""
        spec = self.job["spec"]
        if self.over.is_set():
            return True
        if code == 0:
            self.succeeded.add(index)
            enough = {int(rule["succeededIndexes"]) for rule in spec.get("successPolicy", {}).get("rules", [])}
            if len(self.succeeded) == spec.get("completions", 1) or (enough and enough <= self.succeeded):
                self._end(None)
            return True
        action = action_for(spec["podFailurePolicy"]["rules"], code, disrupted)
        if action == "FailJob":
            self._end(f"index {index} ended with {code}")
        elif action == "Count":
            self._retries[index] += 1
            total = self._retries[index] if "backoffLimitPerIndex" in spec else self._retries.total()
            if total > spec.get("backoffLimitPerIndex", spec.get("backoffLimit", 6)):
                self._end(f"index {index} ended with {code}, tried too often")
        return self.over.is_set()

    def _end(self, why: str | None) -> None:
        self.failed = why
        self.over.set()
        for pod in self.running.values():
            self.cluster.docker("kill", "--signal", "TERM", pod, check=False)

    def log(self) -> str:
        """What the pods have said, for a failing test."""
        pods = [f"{self.name}-{i}-attempt-{a}" for i, codes in self.exits.items() for a in range(len(codes) + 1)]
        pods += [f"{self.name}-attempt-{a}" for a in range(len(self.exits.get(0, [])) + 1)]
        said = [(pod, self.cluster.docker.run("logs", "--tail", "8", pod)) for pod in pods]
        return "\n".join(f"--- {pod}\n{done.stdout}{done.stderr}" for pod, done in said if not done.returncode)


def action_for(rules: list[Object], code: int, disrupted: bool) -> str:
    """What a podFailurePolicy does about an exit code: the first rule that fits, else Count."""
    for rule in rules:
        conditions = {each["type"] for each in rule.get("onPodConditions", []) if each["status"] == "True"}
        if disrupted and "DisruptionTarget" in conditions:
            return str(rule["action"])
        codes = rule.get("onExitCodes")
        if codes and (code in codes["values"]) == (codes["operator"] == "In"):
            return str(rule["action"])
    return "Count"
