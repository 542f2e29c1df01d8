"""Making a report: read the sample, train the baselines, score, draw."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pandas as pd

from photoz import progress
from photoz.data.shard_set import open_shards
from photoz.evaluate import baselines, panels
from photoz.evaluate.animation import sky_animation
from photoz.evaluate.baselines import Estimates
from photoz.evaluate.chain import Chain
from photoz.evaluate.gallery import galleries
from photoz.evaluate.metrics import Bootstrap
from photoz.evaluate.page import build_page, summary_of
from photoz.evaluate.report import Page, render
from photoz.evaluate.sample import Sample, known_rows, read_sample
from photoz.evaluate.scoring import Scores, counts, score
from photoz.evaluate.settings import EvaluateSettings
from photoz.evaluate.stamps import stamp_features
from photoz.evaluate.wording import is_simulated
from photoz.runtime import check_stop
from photoz.surveys import find_survey

log = logging.getLogger("photoz.evaluate")

_STAMPS_TO_TRAIN = 5000
_STAMPS_TO_TEST = 100_000  # decoding all cutouts of a million galaxies takes longer than everything else
_METRICS_FORMAT = 1


def make_report(chain: Chain, settings: EvaluateSettings) -> tuple[dict[str, bytes], dict[str, Any]]:
    """All payload files by name, and the summary."""
    bootstrap = Bootstrap(settings.bootstrap, settings.seed)
    with progress.stage("evaluate", total=6, unit="steps") as bar:

        def done(next_step: str) -> None:
            check_stop()
            bar.advance()
            bar.note(next_step)

        bar.note("reading predictions")
        sample, known = read_sample(chain), known_rows(chain)
        train = known[known["split"] == "train"].reset_index(drop=True)
        scored = sample.scored
        done("training baselines")
        estimates, remarks = _estimates(chain, scored, train) if len(scored) else ([], [])
        done("bootstrap errors")
        scores = score(scored, estimates, bootstrap) if len(scored) else None
        page = replace(build_page(chain, sample, train, scores, bootstrap), remarks=remarks)
        done("figures")
        page = _with_figures(page, chain, sample, known, scores)
        done("gallery")
        page = _with_galleries(page, chain, sample, settings)
        done("animation")
        page = _with_animation(page, sample, known)
        bar.advance()
        check_stop()
        if scores:
            mark = scores.network.metrics["cnn"]["sigma_mad"]
            bar.note(f"sigma_mad {mark.value:.4f}" if mark.value is not None else "")
    facts = dict(counts(sample.galaxies)) | {"split": chain.predictions.settings.get("split")} | summary_of(scores)
    files = {
        "index.html": render(page),
        "metrics.json": _metrics_json(chain, sample, train, scores, settings),
        **panels.files_of(page.panels()),
    }
    if page.animation:
        files["sample.gif"] = page.animation[0]
    return files, facts


def _estimates(chain: Chain, scored: pd.DataFrame, train: pd.DataFrame) -> tuple[list[Estimates], list[str]]:
    """Every baseline that can be made, and remarks on those that can't."""
    survey = baselines.survey_photo_z(scored)
    found = [survey] if survey else []
    if not len(train):
        why = "the model's training catalogue is not in this store" if chain.training is None else "it is empty"
        return found, [f"No trained baselines: {why}."]
    on_magnitudes, remark = baselines.magnitude_baselines(train, scored)
    check_stop()
    on_stamps, stamp_remark = _on_stamps(chain, scored, train)
    mean = baselines.training_mean(train["z_spec"].to_numpy(float), len(scored))
    return [*on_magnitudes, *on_stamps, *found, mean], [text for text in (remark, stamp_remark) if text]


def _on_stamps(
    chain: Chain, scored: pd.DataFrame, train: pd.DataFrame, most: int = _STAMPS_TO_TEST
) -> tuple[list[Estimates], str]:
    """Trees on stamp colours, trained on the cutouts that the network was trained on and tested on `most` of them."""
    if chain.training_shards is None or chain.training_shards.summary["image"] != chain.shards.summary["image"]:
        return [], "No trees on stamp colours: the tested cutouts are of another form than those trained on."
    source = open_shards(chain.training_shards)
    names = [name for split in source.splits if split == "train" for name in source.shard_names(split)]
    ids, features = stamp_features(source, names, set(train["object_id"]), _STAMPS_TO_TRAIN)
    if len(ids) < baselines.MIN_TRAIN:
        return [], f"No trees on stamp colours: only {len(ids)} training cutouts."
    z_train = train.set_index("object_id").loc[ids, "z_spec"].to_numpy(float)
    check_stop()
    # Each shard is a random sample, so that the first ones are, too.
    some = scored[["shard", "object_id"]].sort_values("shard", kind="stable").head(most)
    shards = sorted(set(some["shard"]))
    tested, wanted_features = stamp_features(open_shards(chain.shards), shards, set(some["object_id"]))
    z_phot = pd.Series(baselines.trees_on_stamps(features, z_train, wanted_features), tested)
    notes = [f"trained on {len(ids):,} cutouts"] if len(ids) < len(train) else []
    notes += [f"tested on {len(tested):,} of the {len(scored):,} galaxies"] if len(tested) < len(scored) else []
    found = np.asarray(z_phot.reindex(scored["object_id"]), float)
    return [Estimates("trees_stamps", "Trees on stamp colours", found, "; ".join(notes))], ""


def _with_figures(page: Page, chain: Chain, sample: Sample, known: pd.DataFrame, scores: Scores | None) -> Page:
    train = known[known["split"] == "train"]
    history = chain.model.table("history.parquet").to_pandas()
    kept = chain.model.summary
    learning = panels.learning_panel(history, kept.get("best_epoch"), kept.get("criterion"))
    about_sample: Sequence[panels.Panel | None] = [panels.sky_panel(sample, known), learning]
    check_stop()
    about_pdfs = [*panels.pdf_panels(sample), panels.n_of_z_panel(sample), panels.unfamiliar_panel(sample)]
    return replace(
        page,
        accuracy_panels=list(panels.accuracy_panels(sample.scored)) if scores else [],
        comparison_panel=panels.comparison_panel(scores) if scores and len(scores.rows) > 1 else None,
        pdf_panels=[panel for panel in about_pdfs if panel],
        redshifts_panel=panels.redshifts_panel(sample, train),
        sample_panels=[panel for panel in about_sample if panel],
    )


def _with_galleries(page: Page, chain: Chain, sample: Sample, settings: EvaluateSettings) -> Page:
    survey = None if is_simulated(chain) else find_survey(str(chain.catalog.summary.get("survey")))
    link = survey.link if survey else lambda object_id: None
    groups = galleries(sample, chain.predictions, chain.shards, settings.gallery, link)
    note = "Smallest and largest |dz|." if page.scored else "Narrowest and widest PDFs."
    return replace(page, galleries=list(groups.items()), gallery_note=note)


def _with_animation(page: Page, sample: Sample, known: pd.DataFrame) -> Page:
    tested = sample.galaxies
    z = tested["z_spec"].fillna(tested["z_phot"])
    positions = tested.assign(z=z)[["object_id", "ra", "dec", "z"]]
    if len(known):
        rows = known.rename(columns={"z_spec": "z"})[["object_id", "ra", "dec", "z"]]
        positions = pd.concat([positions, rows]).drop_duplicates("object_id")
    order = np.random.default_rng(0).permutation(len(positions))
    ra, dec, z_shown = (positions[name].to_numpy(float)[order] for name in ("ra", "dec", "z"))
    caption = (
        "Right ascension and declination are the direction, redshift the distance from the centre (z_spec, or z_phot "
        "where unknown); in a small field redshift runs along the box. Colour goes from near to far in equal counts."
    )
    return replace(page, animation=sky_animation(ra, dec, z_shown), animation_caption=caption)


def _metrics_json(
    chain: Chain, sample: Sample, train: pd.DataFrame, scores: Scores | None, settings: EvaluateSettings
) -> bytes:
    document = {
        "format_version": _METRICS_FORMAT,
        "artifacts": {str(artifact.ref): artifact.payload_sha256 for artifact in chain.artifacts()},
        "split": chain.predictions.settings.get("split"),
        "simulated_images": is_simulated(chain),
        "galaxies": dict(counts(sample.galaxies)) | {"trained_on": len(train)},
        "bootstrap": {"samples": settings.bootstrap, "seed": settings.seed},
        "scores": scores.as_json() if scores else None,
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
