"""A small chain of artifacts for the tests of evaluate: real SDSS rows, drawn stamps, noisy predictions."""

import io
import tarfile
from pathlib import Path

import astropy.units as u
import cdshealpix.nested
import kcorrect
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from astropy.coordinates import Latitude, Longitude
from astropy.table import Table

from photoz.artifacts import Artifact, Destination, Draft, Ref, Store, load
from photoz.infer.rows import Answers, prediction_table
from photoz.model.bins import RedshiftBins

BANDS = "ugriz"
SIZE = 32
BINS = RedshiftBins(0.0, 0.6, 150)


def sdss_rows(limit: int | None = None, order: int = 3) -> pd.DataFrame:
    """The galaxies that ship with kcorrect as catalogue rows, split by blocks of sky (0.7, 0.1, 0.2)."""
    path = Path(kcorrect.__file__).parent / "data" / "test" / "gst_tests_small.fits"
    table = Table.read(path)
    flux = np.asarray(table["MODELFLUX"], float)
    mags = 22.5 - 2.5 * np.log10(np.where(flux > 0, flux, np.nan)) - np.asarray(table["EXTINCTION"], float)
    ra, dec = np.asarray(table["RA"], float), np.asarray(table["DEC"], float)
    cells = cdshealpix.nested.lonlat_to_healpix(Longitude(ra, u.deg), Latitude(dec, u.deg), order)
    rng = np.random.default_rng(5)
    draw = rng.permutation(12 * 4**order)[np.asarray(cells, int)] / (12 * 4**order)
    rows = pd.DataFrame(
        {
            "object_id": [f"embedded/{number}" for number in range(len(table))],
            "ra": ra,
            "dec": dec,
            "z_spec": np.asarray(table["Z"], float),
            **{f"mag_{band}": mags[:, i] for i, band in enumerate(BANDS)},
            "healpix": np.asarray(cells, np.int32),
            "split": np.where(draw < 0.2, "test", np.where(draw < 0.3, "val", "train")),
        }
    )
    rows["z_phot_survey"] = rows["z_spec"] + rng.normal(0, 0.018, len(rows)) * (1 + rows["z_spec"])
    rows.loc[rng.random(len(rows)) < 0.01, "z_phot_survey"] = np.nan
    return rows.sample(frac=1, random_state=1).head(limit or len(rows)).reset_index(drop=True)


def draw_stamp(row: pd.Series, rng: np.random.Generator, size: int = SIZE) -> np.ndarray:
    """A round galaxy on noisy sky, i, r, g as red, green, blue; (h, w, 3) uint8."""
    y, x = np.mgrid[:size, :size] - size / 2
    radius = np.hypot(x, y)
    magnitudes = np.array([row.get(f"mag_{band}", 16.5 + 5 * (row["z_spec"] or 0.1)) for band in "irg"], float)
    peak = 10 ** (-0.4 * (magnitudes - 17.0))
    light = np.exp(-radius / (size / 16))[:, :, None] * np.nan_to_num(peak) * 4
    stretched = np.arcsinh(8 * (light + rng.normal(0, 0.02, light.shape))) / np.arcsinh(60)
    return np.clip(25 + 230 * stretched, 0, 255).astype(np.uint8)


def write_artifact(
    store: Store, kind: str, name: str, files: dict[str, bytes], summary: dict, settings: dict, inputs: list[Artifact]
) -> Artifact:
    """Publish an artifact with these files; Parquet ones get their row count."""
    with Draft.begin(Destination(store, name), kind=kind, recipe=1, settings=settings, inputs=inputs) as draft:
        for path, data in files.items():
            rows = pq.read_metadata(io.BytesIO(data)).num_rows if path.endswith(".parquet") else None
            draft.put(path, data, rows=rows)
        assert draft.finish_slice()
        draft.commit(summary)
    return load(store, Ref(kind, name))


def parquet(rows: pd.DataFrame | pa.Table) -> bytes:
    """Rows as Parquet bytes."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pandas(rows, preserve_index=False)
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def shard_files(rows: pd.DataFrame, size: int = SIZE) -> dict[str, bytes]:
    """Tar and index of each split's galaxies."""
    files: dict[str, bytes] = {}
    rng = np.random.default_rng(0)
    for split, part in rows.groupby(rows["split"].fillna("all")):
        out, index = io.BytesIO(), []
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for _, row in part.iterrows():
                key = row["object_id"].replace("/", "_")
                data = simplejpeg.encode_jpeg(np.ascontiguousarray(draw_stamp(row, rng, size)), quality=90)
                places = []
                for suffix, content in (("jpg", data), ("json", b"{}")):
                    info = tarfile.TarInfo(f"{key}.{suffix}")
                    info.size = len(content)
                    places += [out.tell() + 512, len(content)]
                    tar.addfile(info, io.BytesIO(content))
                index.append((key, *places))
        names = ["key", "offset", "length", "json_offset", "json_length"]
        where = pd.DataFrame(index, columns=names)
        files[f"{split}-000000.tar"] = out.getvalue()
        files[f"{split}-000000.index.parquet"] = parquet(pd.concat([where, part.reset_index(drop=True)], axis=1))
    return files


def predicted(rows: pd.DataFrame, scatter: float = 0.015, seed: int = 3) -> pa.Table:
    """Predictions with honest Gaussian PDFs around noisy medians."""
    rng = np.random.default_rng(seed)
    truth = rows["z_spec"].fillna(0.1).to_numpy(float)
    sigma = scatter * (1 + truth) * rng.uniform(0.6, 1.4, len(rows))
    wild = np.where(rng.random(len(rows)) < 0.02, 6.0, 1.0)
    middle = np.clip(truth + wild * sigma * rng.normal(size=len(rows)), 0.005, 0.58)
    centres = 0.5 * (BINS.edges[1:] + BINS.edges[:-1])
    mass = np.exp(-0.5 * ((centres - middle[:, None]) / sigma[:, None]) ** 2) + 1e-9
    unfamiliar = rng.gamma(9, 0.07, len(rows))
    answers = Answers(mass / mass.sum(axis=1, keepdims=True), unfamiliar, *np.zeros((2, len(rows)), bool))
    index = pa.Table.from_pandas(rows[["object_id", "ra", "dec", "z_spec"]], preserve_index=False)
    return prediction_table(index, answers, BINS, "model/t@v1")


def history(epochs: int = 12) -> pd.DataFrame:
    """A plausible training history."""
    epoch = np.arange(epochs)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": 1 + 3 * np.exp(-epoch / 3),
            "val_loss": 1.2 + 3 * np.exp(-epoch / 3) + 0.002 * epoch**2,
            "val_crps": 0.01 + 0.03 * np.exp(-epoch / 3) + 0.0001 * (epoch - 9) ** 2,
            "val_sigma_mad": 0.015 + 0.05 * np.exp(-epoch / 3),
        }
    )


def chain(store: Store, rows: pd.DataFrame, split: str = "test", simulated: bool = True, size: int = SIZE) -> Artifact:
    """Write catalogue, shards, model and predictions of these rows; the predictions."""
    survey = "embedded" if simulated else "sdss-dr17"
    attrition = [{"cut": "rows read", "rows": len(rows) + 40}, {"cut": "z < 0.6 & r <script>", "rows": len(rows)}]
    facts = {"survey": survey, "simulated": simulated}
    catalog = write_artifact(
        store, "catalog", "t", {"catalog.parquet": parquet(rows)},
        {**facts, "rows": len(rows), "attrition": attrition, "split_by": "healpix", "split_nside": 8},
        {"survey": survey}, [],
    )  # fmt: skip
    image = {
        "format": "jpg", "channels": 3, "height": size, "width": size, "dtype": "uint8", "source": "jpeg",
        "bands": ["i", "r", "g"], "scale_arcsec_per_px": 0.396,
    }  # fmt: skip
    shards = write_artifact(
        store, "shards", "t", shard_files(rows, size),
        {**facts, "galaxies": len(rows), "samples": len(rows), "failures": 0, "image": image},
        {"size": size}, [catalog],
    )  # fmt: skip
    model = write_artifact(
        store, "model", "t", {"history.parquet": parquet(history())},
        {"best_epoch": 9, "criterion": "val_mae", "model": "menko2024"}, {"model": "menko2024", "seed": 0}, [shards],
    )  # fmt: skip
    parts = rows if split == "all" else rows[rows["split"] == split]
    files = {
        f"{name}-000000.parquet": parquet(predicted(part)) for name, part in parts.groupby(parts["split"].fillna("all"))
    }
    return write_artifact(store, "predictions", "t", files, {"galaxies": len(parts)}, {"split": split}, [model, shards])
