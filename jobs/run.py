"""photoz-job run"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Annotated

from jobs import logs
from jobs.options import WHOLE, JobOptions, flag, naming, takes
from jobs.session import print_outcome
from photoz import artifacts as stored
from photoz.artifacts.refs import Ref
from photoz.catalog import CatalogSettings, build_catalog
from photoz.errors import BadInput
from photoz.evaluate import EvaluateSettings, evaluate_predictions
from photoz.infer import InferSettings, infer_redshifts
from photoz.shards import ShardSettings, build_shards
from photoz.train import TrainSettings, train_model

log = logging.getLogger("photoz.run")

EPILOG = """
[bold]Examples[/bold]

photoz-job run --survey embedded

photoz-job run --survey sdss-dr17 --limit 20000 --epochs 30 --name first-try --store s3://bucket/photoz

photoz-job run --survey table --table galaxies.csv --images files --name mine

photoz-job run --survey table --table galaxies.csv --images jpeg --images-survey sdss-dr17 --name mine
"""


# Two settings of one name that may differ within a run.
IMAGES = {"survey": "images_survey", "survey_url": "images_survey_url"}
TRAINING = {"batch_size": "train_batch_size"}
INFERENCE = {"batch_size": "infer_batch_size"}
_RENAMED = {
    (group, field): name
    for group, names in (("images", IMAGES), ("training", TRAINING), ("inference", INFERENCE))
    for field, name in names.items()
}


@takes(
    shared=("images_from", "device"),
    renamed=_RENAMED,
    fixed=[("scoring", "seed")],  # --seed is that of the training
    cut=CatalogSettings,
    images=ShardSettings,
    training=TrainSettings,
    inference=InferSettings,
    scoring=EvaluateSettings,
    options=JobOptions,
)
def run(
    cut: CatalogSettings,
    images: ShardSettings,
    training: TrainSettings,
    inference: InferSettings,
    scoring: EvaluateSettings,
    options: JobOptions,
    batch_size: Annotated[int | None, flag("batch-size", "Two jobs have one.", hidden=True, **WHOLE)] = None,
) -> None:
    """Run catalog, shard, train, infer and evaluate in order on this machine, under one name.

    Started again with the same flags it does nothing twice: finished jobs say `exists`, a killed one goes on.
    """
    logs.set_up(options.log_format)
    if batch_size is not None:
        raise BadInput(
            f"--batch-size {batch_size}: run trains and infers; expected --train-batch-size or --infer-batch-size"
        )
    if images.survey is None:
        images = replace(images, survey_url=images.survey_url or cut.survey_url)
    started = time.monotonic()
    if cut.photometric:
        raise BadInput("--photometric: run trains on spectroscopic redshifts; use catalog, shard and infer one by one")
    dest = options.destination()
    if dest.task.count > 1:
        raise BadInput(
            f"--tasks {dest.task.count}: run does the whole chain in one process; slice the five jobs instead"
        )
    outcomes: list[stored.Outcome] = []

    def made(stage: str, outcome: stored.Outcome) -> stored.Artifact:
        outcomes.append(outcome)
        log.info("%s: %s %s", stage, outcome.artifact, outcome.status)
        return stored.load(dest.store, Ref.parse(outcome.artifact))

    catalogue = made("1 of 5 catalog", build_catalog(cut, dest))
    if not any(catalogue.summary["splits"].values()):
        raise BadInput(
            f"{catalogue.ref} has no redshifts, and run trains on them: map the table's column with "
            "--columns z_spec=NAME; for galaxies without redshifts use catalog, shard, and infer with a trained --model"
        )
    with naming(IMAGES):
        shards = made("2 of 5 shard", build_shards(catalogue, images, dest))
    with naming(TRAINING):
        model = made("3 of 5 train", train_model(shards, training, dest))
    with naming(INFERENCE):
        predictions = made("4 of 5 infer", infer_redshifts(model, shards, inference, dest))
    report = made("5 of 5 evaluate", evaluate_predictions(predictions, scoring, dest))
    index = report.entry("index.html").path
    line = {
        "artifacts": [outcome.artifact for outcome in outcomes],
        "status": "exists" if all(outcome.status == "exists" for outcome in outcomes) else "created",
        "report": str(dest.store.local_path(index) or f"{dest.store.url}/{index}"),
    }
    print_outcome(line, started)
