"""What a new version's settings and inputs are, beside those of the version before it. No IO here."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from photoz.artifacts.manifest import Input, Manifest
from photoz.redaction import HIDDEN, redacted

_LONGEST = 60  # characters of a value


def unlike(before: Manifest, after: Manifest) -> str:
    """`unlike v2: epochs 20 → 5, shards/mgs@v2 instead of @v1`: what decides the bytes and differs, without secrets."""
    old, new = dict(_leaves(before.settings)), dict(_leaves(after.settings))
    # By the last part of the name: what a setting decides may be recorded beside it once more.
    changed = {
        name.rpartition(".")[2]: f"{_shown(name, old)} → {_shown(name, new)}"
        for name in [*new, *(name for name in old if name not in new)]
        if old.get(name) != new.get(name)
    }
    said = [f"{name} {change}" for name, change in changed.items()] + list(_inputs(before.inputs, after.inputs))
    if said:
        return f"unlike v{before.version}: {', '.join(said)}"
    versions = before.producer.package_version, after.producer.package_version
    made_by = f", made by photoz {versions[1]} instead of {versions[0]}" if versions[0] != versions[1] else ""
    same = before.settings == after.settings and _digests(before) == _digests(after)
    recipe = "; made by a newer recipe" if same and before.fingerprint != after.fingerprint else ""
    return f"settings and inputs are those of v{before.version}{made_by}{recipe}"


def _digests(manifest: Manifest) -> list[str]:
    return [one.payload_sha256 for one in manifest.inputs]


def _leaves(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _shown(name: str, settings: Mapping[str, Any]) -> str:
    if name not in settings:
        return "unset"
    value = settings[name]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if redacted(f"{name}={text}") != f"{name}={text}":
        return HIDDEN
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _inputs(before: tuple[Input, ...], after: tuple[Input, ...]) -> Iterator[str]:
    old, new = ({one.ref.partition("/")[0]: one.ref for one in inputs} for inputs in (before, after))
    for kind in [*new, *(kind for kind in old if kind not in new)]:
        mine, theirs = new.get(kind, f"no {kind}"), old.get(kind, f"no {kind}")
        if mine != theirs:
            same_name = mine.partition("@")[0] == theirs.partition("@")[0]
            yield f"{mine} instead of {'@' + theirs.partition('@')[2] if same_name else theirs}"
