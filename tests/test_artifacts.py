"""Refs, manifests, drafts and commits, on both backends."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from photoz.artifacts import Artifact, Destination, Draft, Outcome, Ref, Store, load, open_store, upkeep
from photoz.artifacts.changes import unlike
from photoz.artifacts.garbage import delete_garbage, garbage
from photoz.artifacts.manifest import FileEntry, Manifest, canonical_json, payload_digest
from photoz.artifacts.probe import PREFIX
from photoz.artifacts.refs import CLEARING, KINDS, PLAN, check_payload_name, manifest_key
from photoz.errors import BadFormat, BadInput, Conflict, MissingArtifact, TryAgain
from photoz.runtime import TaskSlice
from photoz.settings import parse_duration
from tests.sample_job import PIECES, write
from tests.stepped_store import Stepped


def one(store: Store, ref: str) -> Artifact:
    return load(store, Ref.parse(ref))


def test_a_job_publishes_once_and_then_says_exists(store: Store) -> None:
    first = write(store)
    again = write(store)
    assert (first.artifact, first.status) == ("shards/x@v1", "created")
    assert again == Outcome("shards/x@v1", "exists", first.payload_sha256)
    artifact = one(store, "shards/x@latest")
    assert artifact.names("train-*.tar") == [f"{piece}.tar" for piece in PIECES]
    assert artifact.read("train-000003.tar") == b"train-000003"
    assert artifact.entry("train-000003.tar").rows == 3
    assert artifact.summary == {"failed": 7}
    assert upkeep.verify(artifact) == sum(entry.bytes for entry in artifact.entries)


def test_any_number_of_slices_gives_the_same_payload(store: Store) -> None:
    whole = write(store, "whole")
    outcomes = [write(store, "sliced", task=TaskSlice(index, 3)) for index in (2, 0, 1)]
    assert [outcome.status for outcome in outcomes] == ["partial", "partial", "created"]
    assert outcomes[-1].payload_sha256 == whole.payload_sha256
    folder = f"shards/sliced/data/{one(store, 'shards/sliced').manifest.fingerprint}/parts/"
    receipts = sorted(item.key.removeprefix(folder) for item in store.list(folder + "0"))
    assert receipts == ["00000-of-00003.json", "00001-of-00003.json", "00002-of-00003.json"]


def test_a_finished_piece_is_not_made_again(store: Store) -> None:
    dest = Destination(store, "x")
    with Draft.begin(dest, kind="shards", recipe=1, settings={}) as draft:
        draft.finish_piece(PIECES[0], [draft.put(f"{PIECES[0]}.tar", b"first attempt")])
    with Draft.begin(dest, kind="shards", recipe=1, settings={}) as draft:
        assert draft.todo(PIECES) == PIECES[1:]
        assert draft.published is None
    assert list(store.list("shards/x/v")) == []


def test_force_makes_a_new_version_of_the_same_payload(store: Store) -> None:
    first, second = write(store), write(store, force=True)
    assert (second.artifact, second.status) == ("shards/x@v2", "created")
    assert second.payload_sha256 == first.payload_sha256


def test_force_never_changes_published_bytes(store: Store) -> None:
    write(store)
    with pytest.raises(Conflict, match=r"train-000000\.tar would change"):
        write(store, force=True, salt=b"other")
    upkeep.verify(one(store, "shards/x@v1"))


def test_other_settings_or_inputs_make_other_fingerprints(store: Store) -> None:
    write(store, "a", kind="catalog", settings={"seed": 1})
    write(store, "a", kind="catalog", settings={"seed": 2})
    one_input, other_input = one(store, "catalog/a@v1"), one(store, "catalog/a@v2")
    first = write(store, settings={"size": 64}, inputs=(one_input,))
    second = write(store, settings={"size": 64}, inputs=(other_input,))
    # The payloads of the two catalogues are equal, so what is made of them is the same too.
    assert one_input.payload_sha256 == other_input.payload_sha256
    assert second == Outcome(first.artifact, "exists", first.payload_sha256)
    assert write(store, settings={"size": 32}, inputs=(one_input,)).artifact == "shards/x@v2"
    assert one(store, "shards/x@v1").input("catalog").ref == one_input.ref


def test_a_job_that_finds_an_older_version_says_that_the_latest_is_another(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in (1, 2):
        write(store, settings={"seed": seed})
    assert write(store, settings={"seed": 2}).status == "exists" and "the latest is" not in caplog.text
    assert write(store, settings={"seed": 1}).artifact == "shards/x@v1"
    assert "shards/x@v1 has these settings and inputs, but the latest is v2" in caplog.text


def test_writers_at_once_share_no_number_and_leave_no_gap(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda i: write(store, settings={"writer": i % 4}), range(8)))
    created = sorted(outcome.artifact for outcome in outcomes if outcome.status == "created")
    assert created == [f"shards/x@v{number}" for number in range(1, 5)]
    for writer in range(4):
        assert len({outcomes[writer].artifact, outcomes[writer + 4].artifact}) == 1


def test_a_missing_artifact_is_named_with_what_there_is(store: Store) -> None:
    write(store, "here")
    with pytest.raises(MissingArtifact, match=r"shards/gone: not in store .*\(there is shards/here\)"):
        one(store, "shards/gone")
    with pytest.raises(MissingArtifact, match="shards/here@v7"):
        one(store, "shards/here@v7")


def test_waiting_for_an_artifact_ends_when_it_is_there(store: Store) -> None:
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(load, store, Ref.parse("shards/x"), 30.0)
        write(store)
        assert str(later.result().ref) == "shards/x@v1"


def test_a_flipped_byte_is_named_by_verify_and_refused_by_readers(store: Store) -> None:
    write(store)
    artifact = one(store, "shards/x")
    entry = artifact.entry("merged.bin")
    data = bytearray(store.get(entry.path))
    data[3] ^= 1
    store.put(entry.path, bytes(data))
    with pytest.raises(BadFormat, match=r"data/[0-9a-f]{16}/merged\.bin"):
        upkeep.verify(artifact)
    with pytest.raises((BadFormat, TryAgain), match=r"merged\.bin"):
        artifact.read("merged.bin")


def test_a_lost_or_cut_file_is_named_by_verify(store: Store) -> None:
    write(store)
    artifact = one(store, "shards/x")
    store.delete(artifact.entry("train-000001.tar").path)
    store.put(artifact.entry("train-000002.tar").path, b"train")
    with pytest.raises(BadFormat, match=r"train-000001\.tar: missing; .*train-000002\.tar: 5 bytes"):
        upkeep.verify(artifact)


def test_rm_refuses_while_an_artifact_is_an_input_and_never_hands_its_number_out_again(store: Store) -> None:
    write(store, kind="catalog")
    write(store, inputs=(one(store, "catalog/x"),))
    with pytest.raises(Conflict, match="shards/x@v1"):
        upkeep.remove(one(store, "catalog/x@v1"))
    upkeep.remove(one(store, "catalog/x@v1"), force=True)
    with pytest.raises(MissingArtifact):
        one(store, "catalog/x")
    assert write(store, kind="catalog", settings={"new": 1}).artifact == "catalog/x@v2"


def test_rm_keeps_a_payload_that_another_version_shares(store: Store) -> None:
    write(store)
    write(store, force=True)
    upkeep.remove(one(store, "shards/x@v1"))
    upkeep.verify(one(store, "shards/x@v2"))
    upkeep.remove(one(store, "shards/x@v2"))
    assert [item.key for item in store.list("shards/") if "removed.json" not in item.key] == []


def test_gc_finds_what_dead_jobs_left_and_nothing_else(store: Store) -> None:
    write(store)
    kept = {entry.path for entry in one(store, "shards/x").entries}
    with Draft.begin(Destination(store, "x"), kind="shards", recipe=1, settings={"died": True}) as draft:
        draft.save_state("checkpoint.pt", b"half-way")
        draft.finish_piece(PIECES[0], [draft.put("a.tar", b"a")])
        dead = draft.fingerprint
    store.put(f"{PREFIX}0123", b"killed in the middle")
    assert garbage(store, older_than_s=3600) == []
    found = {item.key for item in garbage(store, older_than_s=-5)}
    assert f"{PREFIX}0123" in found
    assert {key for key in found if dead in key} == {item.key for item in store.list(f"shards/x/data/{dead}/")}
    assert all("/stage/" in key or PLAN in key for key in found if dead not in key and PREFIX not in key)
    assert not found & kept
    assert {item.key for item in delete_garbage(store, garbage(store, older_than_s=-5), older_than_s=-5)} == found
    assert garbage(store, older_than_s=-5) == []
    upkeep.verify(one(store, "shards/x"))


def test_export_copies_checked_files_into_an_empty_folder(store: Store, tmp_path: Path) -> None:
    write(store)
    artifact = one(store, "shards/x")
    upkeep.export(artifact, tmp_path / "out")
    assert (tmp_path / "out" / "merged.bin").read_bytes() == artifact.read("merged.bin")
    assert Manifest.decode((tmp_path / "out" / "_manifest.json").read_bytes(), "copy") == artifact.manifest
    with pytest.raises(BadInput, match="empty or absent"):
        upkeep.export(artifact, tmp_path / "out")


def publish_tables(store: Store, kind: str, names: list[str]) -> Artifact:
    with Draft.begin(Destination(store, "virgo"), kind=kind, recipe=1, settings={}) as draft:
        for number, name in enumerate(names):
            table, sink = pa.table({"object_id": [f"a/{number}"], "z_phot": [0.1 * number]}), pa.BufferOutputStream()
            pq.write_table(table.replace_schema_metadata({"number": str(number)}), sink)
            draft.put(name, sink.getvalue().to_pybytes(), rows=1)
        draft.commit({})
    return one(store, f"{kind}/virgo")


@pytest.mark.parametrize(
    ("kind", "names"),
    [("predictions", ["test-000000.parquet", "test-000001.parquet"]), ("catalog", ["catalog.parquet"])],
)
def test_an_exported_folder_of_tables_is_opened_by_pandas_and_arrow(
    kind: str, names: list[str], file_store: Store, tmp_path: Path
) -> None:
    written = upkeep.export(publish_tables(file_store, kind, names), tmp_path / "out")
    assert [path.name for path in written] == [*names, "_manifest.json"]
    redshifts = pd.read_parquet(tmp_path / "out")
    assert redshifts["object_id"].tolist() == [f"a/{number}" for number in range(len(names))]
    assert pads.dataset(tmp_path / "out").count_rows() == len(names)


def test_an_exported_card_names_its_version_and_all_else_is_as_in_the_store(file_store: Store, tmp_path: Path) -> None:
    for seed in (1, 2):
        with Draft.begin(Destination(file_store, "x"), kind="model", recipe=1, settings={"seed": seed}) as draft:
            draft.put("card.md", b"# The network\n")
            draft.put("model.json", b"{}")
            draft.commit({})
    upkeep.export(one(file_store, "model/x"), tmp_path / "out")
    assert (tmp_path / "out" / "card.md").read_text() == "*This is model/x@v2.*\n\n# The network\n"
    assert (tmp_path / "out" / "model.json").read_bytes() == b"{}"
    assert one(file_store, "model/x").read("card.md") == b"# The network\n"


def test_a_folder_that_can_not_be_exported_to_is_said(file_store: Store, tmp_path: Path) -> None:
    write(file_store)
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300), Path("/proc/x")):
        with pytest.raises(BadInput, match=r"expected an empty or absent folder|name a folder that can be written"):
            upkeep.export(one(file_store, "shards/x"), place)


def test_diff_names_what_differs(store: Store) -> None:
    write(store, settings={"seed": 1})
    write(store, settings={"seed": 2}, salt=b"!")
    found = {what for what, _, _ in upkeep.differences(one(store, "shards/x@v1"), one(store, "shards/x@v2"))}
    assert {"settings.seed", "payload_sha256", "file train-000000.tar"} <= found
    assert "summary.failed" not in found
    assert upkeep.differences(one(store, "shards/x@v1"), one(store, "shards/x@v1")) == []


def said_at_commit(caplog: pytest.LogCaptureFixture, ref: str) -> list[str]:
    return [line.removeprefix(f"{ref}: ") for line in caplog.messages if line.startswith(f"{ref}: ")]


def test_a_new_version_says_how_its_settings_and_inputs_differ_from_the_one_before(
    file_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="photoz.artifacts")
    for seed in (1, 2):
        write(file_store, settings={"seed": seed}, salt=bytes([seed]))
    first, second = one(file_store, "shards/x@v1"), one(file_store, "shards/x@v2")
    assert said_at_commit(caplog, "shards/x@v1") == []
    assert said_at_commit(caplog, "shards/x@v2") == ["unlike v1: seed 1 → 2"]
    settings: dict[str, object] = {"epochs": 20, "recipe": {"epochs": 20, "head": "binned"}, "seed": 1}
    write(file_store, "net", kind="model", settings=settings, inputs=(first,))
    settings |= {"epochs": 5, "recipe": {"epochs": 5, "head": "binned"}, "seed": None, "bins": 90}
    write(file_store, "net", kind="model", settings=settings, inputs=(second,))
    assert said_at_commit(caplog, "model/net@v2") == [
        "unlike v1: bins unset → 90, epochs 20 → 5, seed 1 → null, shards/x@v2 instead of @v1"
    ]
    write(file_store, "net", kind="model", settings=settings, inputs=(second,), force=True)
    assert said_at_commit(caplog, "model/net@v3") == ["settings and inputs are those of v2"]
    write(file_store, "net", kind="model", settings=settings)
    assert said_at_commit(caplog, "model/net@v4") == ["unlike v3: no shards instead of shards/x@v2"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "settings and inputs are those of v1"),
        ({"fingerprint": "f" * 16}, "settings and inputs are those of v1; made by a newer recipe"),
        ({"fingerprint": "f" * 16, "settings": {"seed": 2}}, "unlike v1: seed 1 → 2"),
        # The same ref in another store: the recipe may be the same.
        ({"fingerprint": "f" * 16, "input": {"payload_sha256": "f" * 64}}, "settings and inputs are those of v1"),
    ],
)
def test_where_only_the_fingerprint_differs_a_newer_recipe_is_the_reason(
    file_store: Store, changes: dict[str, Any], said: str
) -> None:
    write(file_store)
    write(file_store, "net", kind="model", settings={"seed": 1}, inputs=(one(file_store, "shards/x@v1"),))
    before = one(file_store, "model/net@v1").manifest
    inputs = (before.inputs[0].model_copy(update=changes.get("input", {})),)
    assert unlike(before, before.model_copy(update=changes | {"inputs": inputs})) == said


def test_what_a_new_version_says_has_no_secrets_and_stays_short(
    file_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="photoz.artifacts")
    for number in (1, 2):
        secrets = {"api_token": f"hunter{number}", "url": f"https://me:hunter{number}@host/x"}
        write(file_store, settings=secrets | {"query": str(number) * 300})
    (said,) = said_at_commit(caplog, "shards/x@v2")
    assert "hunter" not in said and "api_token *** → ***" in said
    assert f"query {'1' * 59}… → {'2' * 59}…" in said


def test_a_version_before_that_can_not_be_read_or_is_removed_stops_no_commit(
    file_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="photoz.artifacts")
    for seed in (1, 2, 3):
        write(file_store, settings={"seed": seed})
    upkeep.remove(one(file_store, "shards/x@v3"))
    write(file_store, settings={"seed": 4})
    assert said_at_commit(caplog, "shards/x@v4") == ["unlike v2: seed 2 → 4"]
    file_store.put(manifest_key(Ref("shards", "x", 4)), b"{}")
    assert write(file_store, settings={"seed": 5}).artifact == "shards/x@v5"
    assert said_at_commit(caplog, "shards/x@v5") == []


def test_state_is_kept_between_attempts(store: Store) -> None:
    dest = Destination(store, "x")
    with Draft.begin(dest, kind="model", recipe=1, settings={}) as draft:
        assert draft.load_state("checkpoint.pt") is None
        draft.save_state("checkpoint.pt", b"epoch 1")
        draft.save_state("checkpoint.pt", b"epoch 2")
    with Draft.begin(dest, kind="model", recipe=1, settings={}) as draft:
        assert draft.load_state("checkpoint.pt") == b"epoch 2"


def test_a_newer_format_is_refused_by_name(file_store: Store) -> None:
    write(file_store)
    key = manifest_key(Ref("shards", "x", 1))
    document = json.loads(file_store.get(key)) | {"format_version": 2}
    file_store.put(key, json.dumps(document).encode())
    with pytest.raises(BadFormat, match=r"format version 2.*use a newer photoz"):
        one(file_store, "shards/x")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"files": "none"}, "files"),
        ({"version": 7}, "another artifact"),
        ({"payload_sha256": "0" * 64}, "altered"),
        ({"fingerprint": "../../../etc"}, "fingerprint"),
        ({"files": [{"path": "/etc/passwd", "bytes": 1, "sha256": "0" * 64}]}, "outside"),
    ],
)
def test_a_broken_manifest_is_refused(file_store: Store, change: dict[str, object], reason: str) -> None:
    write(file_store)
    key = manifest_key(Ref("shards", "x", 1))
    file_store.put(key, json.dumps(json.loads(file_store.get(key)) | change).encode())
    with pytest.raises(BadFormat, match=reason):
        one(file_store, "shards/x")


@given(
    kind=st.sampled_from(KINDS),
    name=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True),
    version=st.none() | st.integers(1, 10**9 - 1),
)
def test_refs_read_back_as_they_are_written(kind: str, name: str, version: int | None) -> None:
    ref = Ref(kind, name, version)
    assert Ref.parse(str(ref)) == ref
    assert Ref.parse(str(ref).removeprefix(f"{kind}/"), kind=kind) == ref


@given(st.text())
def test_any_text_is_a_ref_or_bad_input(text: str) -> None:
    try:
        ref = Ref.parse(text, kind="model")
    except BadInput:
        return
    assert ".." not in f"/{ref.name}/".replace("..", "", 0).split("/") and ref.kind == "model"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a//b", "a/../b", ".hidden", "a/.b", "", "a\\b", "a b"])
def test_payload_names_can_not_leave_their_folder(name: str) -> None:
    with pytest.raises(ValueError, match="payload path"):
        check_payload_name(name)


def test_payload_digest_is_over_sorted_names_and_leaves_volatile_files_out() -> None:
    folder = "model/x/data/0123456789abcdef/"
    files = [FileEntry(path=folder + name, bytes=1, sha256=digit * 64) for name, digit in (("b", "1"), ("a", "2"))]
    timing = FileEntry(path=folder + "t", bytes=1, sha256="3" * 64, volatile=True)
    assert payload_digest(files) == payload_digest([*reversed(files), timing])
    assert payload_digest(files) != payload_digest(files[:1])


def test_canonical_json_has_one_spelling() -> None:
    assert canonical_json({"b": 1, "a": [1.5, None, "é"]}) == '{"a":[1.5,null,"é"],"b":1}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200)])
def test_durations_are_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-5s", "2 weeks", "nan", "inf"])
def test_other_durations_are_bad_input(text: str) -> None:
    with pytest.raises(BadInput, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize("url", ["ftp://host/x", "http://host/x", "", "s3://", "file://host/x"])
def test_a_store_url_of_another_kind_is_bad_input(url: str) -> None:
    with pytest.raises(BadInput, match="store"):
        open_store(url)


@pytest.mark.real
def test_an_s3_store_explains_a_missing_bucket_and_a_wrong_secret(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="there is no bucket 'no-such-bucket'"):
        open_store("s3://no-such-bucket/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(BadInput, match="credentials"):
        open_store(s3_url)


def test_an_s3_store_without_credentials_or_server_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(BadInput, match="AWS_ACCESS_KEY_ID"):
        open_store("s3://bucket/x")


def test_two_removals_at_once_leave_each_other_s_mark_alone(store: Store) -> None:
    write(store)
    artifact = one(store, "shards/x")
    folder = artifact.entries[0].path.rpartition("/")[0] + "/"
    first_looks = Stepped(store, lambda seen: upkeep.remove(Artifact(seen, *attributes(artifact))))
    while not any(CLEARING in item.key for item in store.list(folder)):
        first_looks.step()
    with pytest.raises(TryAgain, match="is being cleared"):
        write(store)
    upkeep.remove(artifact)
    with pytest.raises(TryAgain, match="is being cleared"):
        write(store)
    first_looks.finish()
    assert first_looks.error is None
    assert write(store).artifact == "shards/x@v2"
    upkeep.verify(one(store, "shards/x@v2"))


def attributes(artifact: Artifact) -> tuple[Ref, Manifest, str]:
    return artifact.ref, artifact.manifest, artifact.manifest_sha256


def test_rm_leaves_the_files_to_gc_while_a_job_is_at_work_on_them(store: Store) -> None:
    write(store)
    dest = Destination(store, "x", force=True)
    with Draft.begin(dest, kind="shards", recipe=1, settings={}):
        assert upkeep.remove(one(store, "shards/x@v1")) is None
        assert write(store).artifact == "shards/x@v2"
    upkeep.verify(one(store, "shards/x@v2"))


def test_an_attempt_that_made_other_bytes_is_kept_beside_the_first_and_both_can_be_read(store: Store) -> None:
    dest = Destination(store, "x")
    with Draft.begin(dest, kind="shards", recipe=1, settings={}) as slow:
        tar = slow.put(f"{PIECES[0]}.tar", b"of a slow machine")
        assert write(store, salt=b"of a quick one").status == "created"
        slow.finish_piece(PIECES[0], [tar])
        published = one(store, "shards/x")
        assert published.read(f"{PIECES[0]}.tar") == PIECES[0].encode() + b"of a quick one"
        assert published.entry(f"{PIECES[0]}.tar").path != tar.path
        assert slow.commit({}) == Outcome("shards/x@v1", "exists", published.payload_sha256)
    assert {item.key for item in garbage(store, older_than_s=-5)} >= {tar.path}
    upkeep.verify(published)


def test_a_manifest_that_can_not_be_read_stops_neither_new_versions_nor_the_rest_of_gc(file_store: Store) -> None:
    write(file_store)
    file_store.put(manifest_key(Ref("shards", "x", 1)), b"{}")
    assert write(file_store, settings={"new": 1}).artifact == "shards/x@v2"
    assert [item.key for item in garbage(file_store, older_than_s=-5)] == []
    assert [row["artifact"] for row in upkeep.listing(file_store)] == ["shards/x@v2"]
    write(file_store, "y")
    assert {item.folder for item in garbage(file_store, older_than_s=-5)} == {
        f"shards/y/data/{one(file_store, 'shards/y').manifest.fingerprint}/"
    }
    upkeep.remove_unreadable(file_store, Ref("shards", "x", 1))
    assert write(file_store).artifact == "shards/x@v3"


def test_slices_can_not_be_forced_one_by_one(file_store: Store) -> None:
    with pytest.raises(BadInput, match="each would publish a version of its own"):
        Destination(file_store, "x", TaskSlice(0, 2), force=True)


def test_a_file_that_is_gone_before_the_commit_is_named_and_nothing_is_published(store: Store) -> None:
    with Draft.begin(Destination(store, "x"), kind="shards", recipe=1, settings={}) as draft:
        store.delete(draft.put("a.tar", b"a").path)
        with pytest.raises(MissingArtifact, match=r"a\.tar: gone"):
            draft.commit({})
    assert list(store.list("shards/x/v")) == []
