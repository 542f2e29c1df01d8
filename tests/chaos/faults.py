"""The survey's server and the object store failing in every way that they are known to fail."""

import json
import os
import random
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import urllib3

from photoz.artifacts import KINDS, Store
from photoz.retry import Patience
from photoz.surveys.sdss import jpeg as cutouts
from photoz.surveys.sdss import skyserver
from tests.chaos.bench import SMALL_BATCH, Job, check_and_remove, the_artifact
from tests.chaos.children import Ended, run_child
from tests.chaos.tally import Tally
from tests.s3_proxy import Proxy, running_proxy

SKY, S3 = "survey's server", "object store"
SKY_RATES = "429:0.04,500:0.04,503:0.04,reset:0.04,truncate:0.04,length:0.04,html200:0.03,corrupt:0.04,timeout:0.01"
S3_RATES = {
    "429": 0.02, "500": 0.03, "503": 0.03, "html": 0.02, "reset": 0.03, "lost": 0.03, "timeout": 0.005,
    "truncated": 0.03, "short": 0.03, "flipped": 0.02, "flipped_upload": 0.03,
}  # fmt: skip
_TRIES = 6  # of the same command, where a job has given up with 75 as it should


@dataclass(frozen=True)
class Ground:
    """Where the experiment takes place: addresses of the real servers, and what undisturbed runs made."""

    s3_endpoint: str
    store: Store
    sky_url: str
    faulty_sky_url: str
    jobs: list[Job]
    digests: dict[str, str]
    folder: Path


def hurry(endpoint: str, budget_s: float) -> Callable[[], None]:
    """For a child: talk to this S3 endpoint, and wait for seconds where a real job waits for minutes."""

    def prepare() -> None:
        os.environ["AWS_ENDPOINT_URL_S3"] = endpoint
        short = {"budget_s": budget_s, "first_contact_s": min(budget_s, 3.0), "read_s": 2.0, "connect_s": 2.0}
        Patience.__init__.__kwdefaults__.update(short)  # type: ignore[attr-defined]
        cutouts.TIMEOUT = urllib3.Timeout(connect=2, read=4)
        cutouts.CutoutService.__init__.__kwdefaults__.update({"patience_s": budget_s})  # type: ignore[attr-defined]
        skyserver.PATIENCE = replace(skyserver.PATIENCE, budget_s=budget_s, first_contact_s=budget_s, read_s=4.0)

    return prepare


def try_passing_faults(ground: Ground, wanted: int, seed: int, tally: Tally, until: float) -> None:
    """Whole chains against servers of which every fifth reply is at fault, until `wanted` faults have been met."""
    met = number = 0
    while met < wanted and time.monotonic() < until:
        name, number = f"{ground.folder.name}-f{number}", number + 1
        before = _sky_faults(ground)
        with running_proxy(ground.s3_endpoint, S3_RATES, seed + number) as proxy:
            codes = _run_until_done(ground, name, hurry(proxy.url, 60.0))
            counts = {(S3, kind): count for kind, count in proxy.counts.items()}
        counts |= {(SKY, kind): count - before.get(kind, 0) for kind, count in _sky_faults(ground).items()}
        lost = _what_is_lost(ground, name)
        if lost or codes[-1] != 0:
            tally.complaints.append(f"chain {name} (seed {seed + number}): {lost}; exit codes {codes}")
        for (where, kind), count in counts.items():
            row = tally.row("passing fault", where, kind)
            row.tried += count
            row.survived += 0 if lost or codes[-1] != 0 else count
            row.lost += len(lost)
            row.codes = sorted({*row.codes, *codes})
        met += sum(counts.values())


def _run_until_done(ground: Ground, name: str, prepare: Callable[[], None]) -> list[int]:
    command = ["run", "--survey", "embedded", "--survey-url", ground.faulty_sky_url, "--limit", "60"]
    command += [
        "--samples-per-shard",
        "20",
        "--epochs",
        "2",
        "--train-batch-size",
        SMALL_BATCH[1],
        "--split",
        "all",
        "--bootstrap",
        "10",
        "--gallery",
        "3",
    ]
    codes = []
    for _ in range(_TRIES):
        ended = run_child([*command, "--name", name, "--store", ground.store.url], ground.folder, prepare=prepare)
        codes.append(ended.code)
        if ended.code != 75:
            break
    if codes[-1] != 0:
        (ground.folder / f"{name}.err").write_text(ended.err)
    return codes


def _what_is_lost(ground: Ground, name: str) -> list[str]:
    """Kinds whose artifact is missing or differs; its leftovers are checked as after a kill, and it is removed."""
    lost = []
    for kind in KINDS:
        try:
            artifact = the_artifact(ground.store, kind, name)
            # A report prints the refs that it is about; a training's batch size is the recipe's own here.
            same = {"catalog", "shards"}
            check_and_remove(
                ground.store, kind, name, ground.digests[kind] if kind in same else artifact.payload_sha256
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, it goes into the table
            lost.append(f"{kind}: {error}")
    return lost


def _sky_faults(ground: Ground) -> dict[str, int]:
    with urllib.request.urlopen(f"{ground.faulty_sky_url}/faults.json", timeout=30) as reply:
        counts: dict[str, int] = json.load(reply)
    return counts


@dataclass(frozen=True)
class Outage:
    """A fault that stays: what is broken, for which requests, and the exit code that it must have."""

    where: str
    what: str
    kind: str
    code: int
    method: str | None = None
    pattern: str | None = None


NOWHERE, DNS = "http://no-such-host.invalid", "dns"
OUTAGES = [
    Outage(S3, "no such host", DNS, 75),
    Outage(SKY, "no such host", DNS, 75),
    Outage(S3, "access denied from the start", "denied", 2),
    Outage(S3, "access denied in mid-run", "denied", 2, "PUT", "parts/pieces"),
    Outage(S3, "credentials expired in mid-run", "expired", 2, "PUT", "data/"),
    Outage(S3, "this machine's clock is wrong", "skew", 2),
    Outage(S3, "SlowDown for longer than the budget", "503", 75, "PUT", "data/"),
    Outage(S3, "internal errors for longer than the budget", "500", 75),
    Outage(S3, "429 for longer than the budget", "429", 75, "PUT", "v1/manifest.json"),
    Outage(S3, "resets for longer than the budget", "reset", 75, "PUT", "parts/"),
    Outage(S3, "a sign-in page with status 200", "html", 75),
    Outage(S3, "wrong bytes twice", "flipped", 75, "GET", "data/"),
    Outage(SKY, "refused (403)", "denied", 2),
    Outage(SKY, "503 for longer than the budget", "503", 75),
    Outage(SKY, "429 for longer than the budget", "429", 75),
    Outage(SKY, "resets for longer than the budget", "reset", 75),
    Outage(SKY, "a sign-in page with status 200", "html", 75),
    Outage(SKY, "bodies cut short", "truncated", 75),
]


def try_outages(ground: Ground, wanted: int, seed: int, tally: Tally) -> None:
    """Jobs that meet a fault which stays: the right exit code, one line, and all is well once it is over."""
    dice = random.Random(seed)
    outages = [outage for _ in range(-(-wanted // len(OUTAGES))) for outage in dice.sample(OUTAGES, len(OUTAGES))]
    with running_proxy(ground.s3_endpoint) as s3, running_proxy(ground.sky_url) as sky:
        for number, outage in enumerate(outages[:wanted]):
            # catalog and shard ask the survey, every job the store.
            job = dice.choice(ground.jobs if outage.where == S3 else ground.jobs[:2])
            with _broken(s3 if outage.where == S3 else sky, outage):
                s3_url = NOWHERE if outage.kind == DNS and outage.where == S3 else s3.url
                sky_url = NOWHERE if outage.kind == DNS and outage.where == SKY else sky.url
                ended = _run(ground, job, f"o{number}", s3_url, sky_url)
            after = _run(ground, job, f"o{number}", s3.url, sky.url, budget_s=60.0)
            _note(ground, tally, outage, job, f"o{number}", ended, after)


@contextmanager
def _broken(proxy: Proxy, outage: Outage) -> Iterator[None]:
    if outage.kind != DNS:
        proxy.plan(outage.kind, outage.method, outage.pattern, times=10**9)
    try:
        yield
    finally:
        proxy.clear()


def _run(ground: Ground, job: Job, name: str, s3_url: str, sky_url: str, budget_s: float = 4.0) -> Ended:
    command = [sky_url if part == ground.sky_url else part for part in job.arguments(ground.store.url, name)]
    return run_child(command, ground.folder, prepare=hurry(s3_url, budget_s))


def _note(ground: Ground, tally: Tally, outage: Outage, job: Job, name: str, ended: Ended, after: Ended) -> None:
    row = tally.row("lasting fault", outage.where, outage.what)
    if ended.code == 0:
        return  # this job makes no such request
    row.tried += 1
    row.codes = sorted({*row.codes, ended.code})
    last = (ended.err.splitlines() or [""])[-1]
    story = f"{outage.where}, {outage.what}, {job.command[0]}"
    good = ended.code == outage.code and not ended.out and last.startswith("photoz-job: error:")
    if not good or "Traceback" in ended.err:
        tally.complaints.append(f"{story}: exit code {ended.code}, expected {outage.code}: {ended.err[-1500:]}")
        good = False
    try:
        assert after.code == 0, f"once it was over: exit code {after.code}: {after.err[-1500:]}"
        check_and_remove(ground.store, job.kind, name, ground.digests[job.kind])
    except AssertionError as error:
        row.lost += 1
        tally.complaints.append(f"{story}: {error}")
    else:
        row.survived += good
