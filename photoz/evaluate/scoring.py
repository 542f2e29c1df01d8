"""The numbers of a report: the network and every baseline on the same galaxies, and the document metrics.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from photoz.evaluate.baselines import Estimates
from photoz.evaluate.metrics import (
    CONVENTIONS,
    Bootstrap,
    Estimate,
    Floats,
    Metric,
    point_columns,
    point_metrics,
    running,
)
from photoz.evaluate.pdf_metrics import pdf_metrics

NETWORK = "network"
# The first one there is sets the mark: those that know what the images hold, then any.
REFERENCES = ("trees_gri", "trees_stamps", "trees_all_bands")
_RATIO_OF = "sigma_mad"
_PDF_COLUMNS = ("pit", "crps", "cde_loss", "in_68", "in_95")


@dataclass(frozen=True)
class Row:
    """One estimator's scores on `n` galaxies; `ratio` is its sigma_mad over the reference baseline's."""

    key: str
    label: str
    n: int
    metrics: dict[str, dict[str, Estimate]]
    ratio: Estimate
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values for metrics.json."""
        plain = {name: {key: one.as_json() for key, one in group.items()} for name, group in self.metrics.items()}
        shown = {"label": self.label, "galaxies": self.n, **plain, "sigma_mad_over_reference": self.ratio.as_json()}
        return shown | ({"note": self.note} if self.note else {})


@dataclass(frozen=True)
class Scores:
    """The network first, then the baselines; `pdf` holds the metrics of PDFs and intervals."""

    rows: tuple[Row, ...]
    reference: str | None
    pdf: dict[str, Estimate]
    pdf_galaxies: int
    unflagged: Row | None = None
    binned: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    @property
    def network(self) -> Row:
        """The network's own row."""
        return self.rows[0]

    def label_of(self, key: str | None) -> str:
        """The label of an estimator."""
        return next((row.label for row in self.rows if row.key == key), "")

    def as_json(self) -> dict[str, Any]:
        """Plain values for metrics.json."""
        return {
            NETWORK: self.network.as_json() | {"pdf": {key: one.as_json() for key, one in self.pdf.items()}},
            "baselines": {row.key: row.as_json() for row in self.rows[1:]},
            "reference": self.reference,
            "unflagged": self.unflagged.as_json() if self.unflagged else None,
            "binned": self.binned,
        }


def score(scored: pd.DataFrame, estimates: Sequence[Estimates], bootstrap: Bootstrap) -> Scores:
    """Score the network and the estimators (each aligned with the rows of `scored`)."""
    z_spec = scored["z_spec"].to_numpy(float)
    network = Estimates(NETWORK, "This network", scored["z_phot"].to_numpy(float))
    by_key = {one.key: one for one in estimates}
    reference = next((by_key[key] for key in REFERENCES if key in by_key), None)
    rows = tuple(_row(one, z_spec, reference, bootstrap) for one in (network, *estimates))
    columns = {name: scored[name].to_numpy(float) for name in _PDF_COLUMNS if name in scored}
    whole = np.all([np.isfinite(values) for values in columns.values()], axis=0) if columns else np.zeros(0, bool)
    kept = {name: values[whole] for name, values in columns.items()}
    pdf = pdf_metrics(kept, bootstrap) if whole.any() else {}
    return Scores(
        rows=rows,
        reference=reference.key if reference else None,
        pdf=pdf,
        pdf_galaxies=int(whole.sum()),
        unflagged=_unflagged(scored, reference, bootstrap),
        binned=binned(scored),
    )


def _row(one: Estimates, z_spec: Floats, reference: Estimates | None, bootstrap: Bootstrap) -> Row:
    has = np.isfinite(one.z_phot)
    metrics = point_metrics(one.z_phot[has], z_spec[has], bootstrap)
    if reference is None:
        ratio = Estimate(None, reason="no baseline to compare with")
    elif one is reference:
        ratio = Estimate(1.0)
    else:
        both = has & np.isfinite(reference.z_phot)
        mine, theirs = (point_columns(each.z_phot[both], z_spec[both]) for each in (one, reference))
        ratio = bootstrap.ratio(_metric(_RATIO_OF), mine, theirs)
    return Row(one.key, one.label, int(has.sum()), metrics, ratio, one.note)


def _metric(name: str) -> Metric:
    return next(metric for metrics in CONVENTIONS.values() for metric in metrics if metric.name == name)


def _unflagged(scored: pd.DataFrame, reference: Estimates | None, bootstrap: Bootstrap) -> Row | None:
    """The network on the galaxies without a flag, where some have one."""
    if "flags" not in scored:
        return None
    clean = ~is_flagged(scored["flags"])
    if clean.all() or not clean.any():
        return None
    kept = scored[clean]
    network = Estimates("network_unflagged", "This network, unflagged galaxies", kept["z_phot"].to_numpy(float))
    same = replace(reference, z_phot=reference.z_phot[clean.to_numpy()]) if reference else None
    return _row(network, kept["z_spec"].to_numpy(float), same, bootstrap)


def is_flagged(flags: pd.Series) -> pd.Series:
    """Whether a galaxy carries any flag: a bit mask other than 0, or a text other than the empty one."""
    if pd.api.types.is_numeric_dtype(flags):
        return flags.fillna(0) != 0
    return flags.map(lambda value: value is not None and len(value) > 0)


def binned(scored: pd.DataFrame) -> dict[str, list[dict[str, float]]]:
    """Median dz and sigma_mad in bins of equal counts along z_spec and the reference magnitude."""
    columns = {"z_spec": "z_spec"} | ({"mag_r": "mag_r"} if "mag_r" in scored else {})
    out: dict[str, list[dict[str, float]]] = {}
    for name in columns:
        run = running(scored[name].to_numpy(float), scored["dz"].to_numpy(float))
        out[name] = [
            {name: _short(x), "median_dz": _short(median), "sigma_mad": _short(sigma), "galaxies": int(count)}
            for x, median, sigma, count in zip(run.centre, run.median, run.sigma, run.count, strict=True)
        ]
    return out


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def counts(galaxies: pd.DataFrame) -> Mapping[str, int]:
    """How many galaxies were predicted, have a known redshift, were scored, and are flagged."""
    return {
        "predicted": len(galaxies),
        "with_z_spec": int(galaxies["z_spec"].notna().sum()),
        "scored": int(galaxies["dz"].notna().sum()),
        "flagged": int(is_flagged(galaxies["flags"]).sum()) if "flags" in galaxies else 0,
    }
