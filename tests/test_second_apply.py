"""What a second `kubectl apply` does to Jobs that run: real kubectl, and an API that refuses what can't change."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubectl import NAMESPACE, ROOT, Api, emulated_api, kustomize


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """An API server that holds nothing yet."""
    with emulated_api(tmp_path) as running:
        yield running


def apply(api: Api, manifests: str) -> list[str]:
    """Apply manifests, and what kubectl says of each object."""
    return api.kubectl("apply", "--validate=false", "-f", "-", stdin=manifests).splitlines()


def ends(said: list[str]) -> set[str]:
    return {line.split()[-1] for line in said}


def test_the_same_again_changes_nothing_whichever_way_it_is_applied(api: Api) -> None:
    assert ends(api.kubectl("apply", "--validate=false", "-f", "k8s/").splitlines()) == {"created"}
    assert ends(api.kubectl("apply", "--validate=false", "-f", "k8s/").splitlines()) == {"unchanged"}
    assert ends(api.kubectl("apply", "--validate=false", "-k", "k8s/").splitlines()) == {"unchanged"}


def test_a_job_that_kueue_has_admitted_runs_on(api: Api) -> None:
    manifests = kustomize("gpus", "kueue")
    apply(api, manifests)
    for suspend in ("true", "false"):  # as Kueue does, when a Job is made and when there is room for it
        patch = f'{{"spec": {{"suspend": {suspend}}}}}'
        api.kubectl("patch", "--namespace", NAMESPACE, "job", "photoz-shard", "--type", "merge", "--patch", patch)
    assert ends(apply(api, manifests)) == {"unchanged"}
    assert api.objects()["Job", "photoz-shard"]["spec"]["suspend"] is False


def test_jobs_keep_their_settings_when_others_are_applied(api: Api) -> None:
    apply(api, kustomize())
    before = api.objects()
    with pytest.raises(AssertionError, match=r"spec\.template: Invalid value: field is immutable") as refused:
        apply(api, kustomize(settings={"PHOTOZ_NAME": "other"}))
    assert "photoz-shard" in str(refused.value)
    after = api.objects()
    assert all(after[key] == before[key] for key in before)
    (new,) = [key for key in after if key not in before]
    assert new[0] == "ConfigMap" and after[new]["data"]["PHOTOZ_NAME"] == "other"


def test_settings_that_were_edited_under_their_old_name_are_refused(api: Api, tmp_path: Path) -> None:
    api.kubectl("apply", "--validate=false", "-f", "k8s/")
    before = api.objects()
    edited = tmp_path / "k8s"
    shutil.copytree(ROOT / "k8s", edited)
    settings = edited / "10-settings.yaml"
    settings.write_text(settings.read_text().replace("PHOTOZ_NAME: mgs", "PHOTOZ_NAME: other"))
    with pytest.raises(AssertionError, match="data: Invalid value: field is immutable"):
        api.kubectl("apply", "--validate=false", "-f", str(edited))
    assert api.objects() == before


def test_a_second_chain_leaves_the_first_as_it_is(api: Api) -> None:
    apply(api, kustomize("cpu-small"))
    before = api.objects()
    assert ends(apply(api, kustomize("cpu-small", nameSuffix="-b"))) == {"created"}
    after = api.objects()
    assert all(after[key] == before[key] for key in before) and len(after) == 2 * len(before)


def test_a_deleted_job_is_made_again_with_the_settings_of_the_day(api: Api) -> None:
    apply(api, kustomize())
    api.kubectl("delete", "--namespace", NAMESPACE, "job", "photoz-catalog", "photoz-shard", "photoz-train")
    api.kubectl("delete", "--namespace", NAMESPACE, "job", "photoz-infer", "photoz-evaluate")
    said = apply(api, kustomize(settings={"PHOTOZ_NAME": "other"}))
    assert sum(line.startswith("job") and line.endswith("created") for line in said) == 5
