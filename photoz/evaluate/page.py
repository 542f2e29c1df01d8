"""From scores and artifacts to the report's page."""

import json
from typing import Any

import pandas as pd

import photoz
from photoz.artifacts import Artifact
from photoz.evaluate import wording
from photoz.evaluate.chain import Chain
from photoz.evaluate.metrics import MOST_RESAMPLED, Bootstrap, Estimate
from photoz.evaluate.report import MetricLine, Page
from photoz.evaluate.sample import Sample
from photoz.evaluate.scoring import Scores

GLOSSARY = (
    ("dz", "", "(z_phot − z_spec) / (1 + z_spec)"),
    ("σ_MAD", "", "1.4826 × median |dz − median dz|"),
    ("σ_IQR", "", "interquartile range of dz / 1.349"),
    ("R²", "", "1 − residual variance / variance of z_spec"),
    ("PIT", "", "the PDF's cumulative probability at z_spec"),
    ("CRPS", "redshift", "integral of (CDF − step at z_spec)²; the mean absolute error, generalised to PDFs"),
    ("CDE loss", "", "mean of ∫p² dz − 2 p(z_spec); lower is better, only differences mean anything"),
)
_SUMMARY_SHOWN = ("rows", "galaxies", "samples", "failures", "model", "parameters", "best_epoch", "splits", "survey")


def headline(scores: Scores, deep: bool) -> list[MetricLine]:
    """The tiles on top; `deep` where redshifts reach beyond 1."""
    r2 = ("R² of log(1+z)", "r2_log1pz") if deep else ("R²", "r2")
    cnn, rail, general = (scores.network.metrics[name] for name in ("cnn", "rail", "general"))
    lines = [
        MetricLine("σ_MAD", cnn["sigma_mad"], "scatter of dz (CNN papers)"),
        MetricLine("Bias", cnn["bias"], "mean dz (CNN papers)"),
        MetricLine("Outliers", cnn["outlier_fraction_0.05"], "|dz| > 0.05 (CNN papers)", 1, True),
        MetricLine("σ_IQR", rail["sigma_iqr"], "scatter of dz (RAIL)"),
        MetricLine(r2[0], general[r2[1]], "share of the variance explained", 3),
    ]
    if scores.reference:
        about = f"σ_MAD over that of {scores.label_of(scores.reference).lower()}; below 1 is better"
        lines.insert(1, MetricLine("Ratio to baseline", scores.network.ratio, about, 2))
    return lines


def metric_tables(scores: Scores) -> list[tuple[str, list[MetricLine]]]:
    """All metrics, grouped by convention."""
    cnn, rail, general = (scores.network.metrics[name] for name in ("cnn", "rail", "general"))
    tables = [
        ("CNN papers", [
            MetricLine("Bias", cnn["bias"], "mean dz", 5),
            MetricLine("σ_MAD", cnn["sigma_mad"], "1.4826 × median |dz − median dz|", 5),
            MetricLine("Outliers at 0.05", cnn["outlier_fraction_0.05"], "share with |dz| > 0.05", 2, True),
            MetricLine("Outliers at 0.15", cnn["outlier_fraction_0.15"], "share with |dz| > 0.15", 2, True),
        ]),
        ("RAIL", [
            MetricLine("Median bias", rail["median_bias"], "median dz", 5),
            MetricLine("σ_IQR", rail["sigma_iqr"], "interquartile range of dz / 1.349", 5),
            MetricLine("Outliers", rail["outlier_fraction"], "share with |dz| > max(0.06, 3 σ_IQR)", 2, True),
        ]),
        ("Plain", [
            MetricLine("R²", general["r2"], "of z"),
            MetricLine("R² of log(1+z)", general["r2_log1pz"], "the fair one where z reaches beyond 1"),
            MetricLine("Mean absolute error", general["mae"], "of z", 5),
            MetricLine("Root mean square error", general["rmse"], "of z", 5),
        ]),
    ]  # fmt: skip
    known = [line for line in _pdf_lines() if line[0] in scores.pdf]
    if known:
        tables.append(("PDFs", [MetricLine(name, scores.pdf[key], text, n, pc) for key, name, text, n, pc in known]))
    return tables


def _pdf_lines() -> list[tuple[str, str, str, int, bool]]:
    return [
        ("crps", "CRPS", "mean, in redshift; lower is better", 5, False),
        ("cde_loss", "CDE loss", "lower is better; only differences mean anything", 3, False),
        ("pit_ks", "PIT, KS distance", "from a uniform PIT; 0 is perfect", 4, False),
        ("pit_outlier_rate", "PIT outliers", "PIT below 0.0001 or above 0.9999", 2, True),
        ("coverage_68", "Inside the 68 % interval", "68.3 % is right", 1, True),
        ("coverage_95", "Inside the 95 % interval", "95.4 % is right", 1, True),
    ]


def build_page(chain: Chain, sample: Sample, train: pd.DataFrame, scores: Scores | None, bootstrap: Bootstrap) -> Page:
    """The page without its figures and galleries."""
    deep = bool((sample.galaxies["z_spec"] > 1).any())
    apart = wording.Separation.of(sample.galaxies, train, chain)
    common: dict[str, Any] = {
        "title": f"Redshift report on {chain.predictions.ref}",
        "lead": wording.lead(chain, sample, train, apart),
        "banners": wording.banners(chain, sample, apart),
        "scored": scores is not None,
        "deep": deep,
        "flag_note": wording.flag_note(sample, scores),
        "attrition": attrition(chain.catalog),
        "catalog_ref": str(chain.catalog.ref),
        "provenance": provenance(chain),
        "dictionary": dictionary(chain.predictions),
        "footer": f"Made by photoz {photoz.__version__} from {chain.predictions.ref}. The numbers are in metrics.json, "
        "the figures in figures/, beside this file.",
    }
    if scores is None:
        return Page(**common)
    return Page(
        **common,
        tiles=headline(scores, deep),
        metrics_note=_metrics_note(scores, bootstrap),
        metric_tables=metric_tables(scores),
        comparison=list(scores.rows) + ([scores.unflagged] if scores.unflagged else []),
        comparison_note=_comparison_note(scores, apart.shared_ids),
        reference=scores.reference,
    )


def _metrics_note(scores: Scores, bootstrap: Bootstrap) -> str:
    n = scores.network.n
    pdfs = f", PDFs on {scores.pdf_galaxies:,}" if scores.pdf and scores.pdf_galaxies != n else ""
    whole = "the galaxies" if n <= MOST_RESAMPLED else f"{MOST_RESAMPLED:,} galaxies each, scaled to all"
    return (
        f"On {n:,} galaxies{pdfs}. Errors are standard deviations over {bootstrap.samples_of(n):,} bootstrap resamples "
        f"of {whole}. dz = (z_phot − z_spec) / (1 + z_spec)."
    )


def _comparison_note(scores: Scores, trained_on: int) -> str:
    note = (
        "Every baseline below learned from the training galaxies alone and is scored on exactly the tested ones; only "
        "the survey's own photo-z, where there is one, had other training. "
    )
    if trained_on:
        note = f"Every baseline below, like the network, learned from {trained_on:,} of the galaxies it is scored on. "
    if scores.reference == "trees_gri":
        return note + "The reference is gradient boosting on g, r, i magnitudes, all the colour that a JPEG holds."
    if scores.reference:
        why = ", which know the stamps' colours and E(B-V)" if scores.reference == "trees_stamps" else ""
        return (
            note
            + f"The reference is {scores.label_of(scores.reference).lower()}{why}: g, r or i is not in the catalogue."
        )
    return note + "No baseline could be made that would serve as a reference."


def attrition(catalog: Artifact) -> list[dict[str, Any]]:
    """Each cut of the catalogue with the rows it left and those it removed."""
    lines: list[dict[str, Any]] = []
    for line in catalog.summary.get("attrition", []):
        removed = lines[-1]["rows"] - line["rows"] if lines else None
        lines.append({"cut": str(line["cut"]), "rows": int(line["rows"]), "removed": removed})
    return lines


def provenance(chain: Chain) -> list[dict[str, str]]:
    """Ref, digest, settings and the main facts of each artifact."""
    return [
        {
            "ref": str(artifact.ref),
            "digest": artifact.payload_sha256,
            "holds": _holds(artifact),
            "settings": json.dumps(artifact.settings, sort_keys=True, ensure_ascii=False),
        }
        for artifact in chain.artifacts()
    ]


def _holds(artifact: Artifact) -> str:
    parts: list[str] = []
    for key in _SUMMARY_SHOWN:
        value = artifact.summary.get(key)
        if isinstance(value, dict):
            parts.append(", ".join(f"{name} {count:,}" for name, count in value.items() if isinstance(count, int)))
        elif isinstance(value, int) and not isinstance(value, bool):
            parts.append(f"{key.replace('_', ' ')} {value:,}")
        elif isinstance(value, str):
            parts.append(f"{key.replace('_', ' ')} {value}")
    return "; ".join(parts)


def dictionary(predictions: Artifact) -> list[dict[str, str]]:
    """Name, unit and meaning of the predictions' columns, as their own file says, and of the report's words."""
    lines: list[dict[str, str]] = []
    for name in predictions.names("*.parquet")[:1]:
        with predictions.parquet(name) as file:
            schema = file.schema_arrow
        for one in schema:
            about = {key.decode(): text.decode() for key, text in (one.metadata or {}).items()}
            lines.append({"name": one.name, "unit": about.get("unit", ""), "meaning": about.get("description", "")})
    return lines + [{"name": name, "unit": unit, "meaning": meaning} for name, unit, meaning in GLOSSARY]


def summary_of(scores: Scores | None) -> dict[str, Any]:
    """The few numbers that the report's manifest repeats."""
    if scores is None:
        return {}
    flat: dict[str, Estimate] = {
        "sigma_mad": scores.network.metrics["cnn"]["sigma_mad"],
        "bias": scores.network.metrics["cnn"]["bias"],
        "outlier_fraction": scores.network.metrics["cnn"]["outlier_fraction_0.05"],
        "r2": scores.network.metrics["general"]["r2"],
        "sigma_mad_over_reference": scores.network.ratio,
    }
    return {name: one.as_json()["value"] for name, one in flat.items()} | {"reference": scores.reference}
