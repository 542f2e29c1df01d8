"""Draws docs/images/contact-sheet.png: real SDSS images in rows above simulated ones.

    python docs/make_contact_sheet.py FOLDER

FOLDER holds `ugriz_stamps` (64 x 64 x 5 stamps in nanomaggies, 0.396"/px, and manifest.json with their magnitudes
and radii) and `sdss_jpegs/jpegs.tar` (SkyServer cutouts, 423 x 423). Prints the statistics quoted in
docs/design/embedded-sky.md.
"""

import io
import json
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from photoz.sky.colour import composite
from photoz.sky.galaxies import GALAXY
from photoz.sky.population import Population, build_population
from photoz.sky.render import Renderer, encode
from photoz.sky.request import NATIVE_SCALE_ARCSEC, Cutout

Levels = npt.NDArray[np.float64]

OUTPUT = Path(__file__).parent / "images" / "contact-sheet.png"
TILE, COLUMNS, MARGIN, CAPTION = 104, 10, 2, 18
# Stamps whose bands were cut with one band's coordinates show coloured fringes; these do not.
REGISTERED_STAMPS = (0, 1, 2, 3, 4, 10, 11, 12, 13, 18)
CUTOUT_PX = 423
CUTOUT_SCALE_IN_PETROSIAN_RADII = 0.024  # as Galaxy Zoo asked for its cutouts


def main(folder: Path) -> None:
    """Draw the sheet and print the statistics of real and simulated cutouts."""
    population = build_population()
    renderer = Renderer(population.objects, population.shapes, 0)
    stamps = real_stamps(folder / "ugriz_stamps")
    twins = [simulated_twin(population, renderer, facts) for _, facts in stamps]
    real = real_cutouts(folder / "sdss_jpegs" / "jpegs.tar", 150)
    simulated = simulated_cutouts(population, renderer, 150)
    rows: list[tuple[str, Sequence[Image.Image]]] = [
        ("SDSS frames, 25\" wide, in the embedded sky's colours", [image for image, _ in stamps]),
        ('simulated galaxies of the same r, g - r and radius, 25" wide', twins),
        ("cutouts that SkyServer returned (Galaxy Zoo), 423 px wide", real[::15]),
        ("cutouts of the embedded sky, 423 px wide", simulated[::15]),
    ]
    sheet = paste(rows)
    OUTPUT.parent.mkdir(exist_ok=True)
    sheet.save(OUTPUT, optimize=True)
    print(f"{OUTPUT}: {OUTPUT.stat().st_size / 1024:.0f} KB")
    for name, images in (("real", real), ("simulated", simulated)):
        describe(name, [np.asarray(image, float) for image in images])


def real_stamps(folder: Path) -> list[tuple[Image.Image, dict[str, float]]]:
    """Registered stamps through the composite and JPEG of the embedded sky, with their catalogue values."""
    entries = json.loads((folder / "manifest.json").read_text())
    stamps: list[tuple[Image.Image, dict[str, float]]] = []
    for entry in (entries[number] for number in REGISTERED_STAMPS):
        bands = np.load(folder / entry["npy"]).astype(float)
        levels = np.moveaxis(composite(np.moveaxis(bands[:, :, [3, 2, 1]], 2, 0)), 0, 2)
        jpeg = encode(np.ascontiguousarray(levels[::-1].astype(np.uint8)))
        stamps.append((Image.open(io.BytesIO(jpeg)), entry["tabular"]))
    return stamps


def simulated_twin(population: Population, renderer: Renderer, facts: dict[str, float]) -> Image.Image:
    """The simulated galaxy nearest to a stamp's in r, g - r and Petrosian half-light radius."""
    mags = population.objects.dereddened_mags()
    radius = population.photo["petroR50_r"].to_numpy()[: len(mags)]
    distance = ((mags[:, 2] - facts["dered_r"]) / 0.15) ** 2
    distance += ((mags[:, 1] - mags[:, 2] - facts["dered_g"] + facts["dered_r"]) / 0.05) ** 2
    distance += (np.log(radius / facts["petroR50_r"]) / 0.15) ** 2
    row = int(np.argmin(np.where(population.objects.kind == GALAXY, distance, np.inf)))
    place = population.objects.ra[row], population.objects.dec[row]
    return Image.open(io.BytesIO(renderer.jpeg(Cutout(*place, NATIVE_SCALE_ARCSEC, 64, 64))))


def real_cutouts(archive: Path, count: int) -> list[Image.Image]:
    """Evenly chosen cutouts of the archive."""
    with tarfile.open(archive) as members:
        names = sorted(name for name in members.getnames() if name.endswith((".jpg", ".jpeg")))
        chosen = names[5 :: len(names) // count][:count]
        files = [members.extractfile(name) for name in chosen]
        images: list[Image.Image] = [Image.open(io.BytesIO(file.read())) for file in files if file is not None]
        return images


def simulated_cutouts(population: Population, renderer: Renderer, count: int) -> list[Image.Image]:
    """Random galaxies of the Main Galaxy Sample at the scale that the real cutouts were asked for."""
    photo = population.photo.slice(0, len(population.objects)).to_pandas()
    main_sample = (population.objects.kind == GALAXY) & (photo.petroMag_r - photo.extinction_r < 17.77)
    rows = np.random.default_rng(7).choice(np.flatnonzero(main_sample), count, replace=False)
    images: list[Image.Image] = []
    for row in rows.tolist():
        scale = CUTOUT_SCALE_IN_PETROSIAN_RADII * photo.petroRad_r[row]
        cutout = Cutout(photo.ra[row], photo.dec[row], scale, CUTOUT_PX, CUTOUT_PX)
        images.append(Image.open(io.BytesIO(renderer.jpeg(cutout))))
    return images


def paste(rows: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    """The sheet: each row of images under its caption."""
    step = TILE + MARGIN
    sheet = Image.new("RGB", (COLUMNS * step + MARGIN, len(rows) * (step + CAPTION) + MARGIN), (245, 245, 245))
    pen = ImageDraw.Draw(sheet)
    for at, (caption, images) in enumerate(rows):
        top = at * (step + CAPTION)
        pen.text((MARGIN + 2, top + 3), caption, fill=(20, 20, 20))
        for column, image in enumerate(images[:COLUMNS]):
            tile = image.convert("RGB").resize((TILE, TILE), Image.Resampling.BICUBIC)
            sheet.paste(tile, (MARGIN + column * step, top + CAPTION))
    return sheet


def describe(name: str, images: list[Levels]) -> None:
    """Sky level and noise, its correlation, and the galaxy's brightness in G: medians over the cutouts."""
    middle = CUTOUT_PX // 2
    y, x = np.indices((CUTOUT_PX, CUTOUT_PX))
    radius = np.hypot(x - middle, y - middle)
    annuli = [(radius >= inner) & (radius < inner + 6) for inner in (0, 10, 20, 30, 45)]
    corners = [image[:120, :120] for image in images]
    figures = {
        "sky R, G, B": [corner.reshape(-1, 3).mean(axis=0) for corner in corners],
        "noise R, G, B": [corner.reshape(-1, 3).std(axis=0) for corner in corners],
        "noise's correlation at 1, 2, 4 px": [
            [autocorrelation(corner[:, :, 1], lag) for lag in (1, 2, 4)] for corner in corners
        ],
        "G at 0, 10, 20, 30, 45 px": [[np.median(image[annulus, 1]) for annulus in annuli] for image in images],
    }
    for title, values in figures.items():
        print(f"{name}: {title}: {np.median(values, axis=0).round(2)}")


def autocorrelation(plane: Levels, lag: int) -> float:
    """Correlation of pixels `lag` columns apart."""
    centred = plane - plane.mean()
    return float((centred[:, lag:] * centred[:, :-lag]).mean() / max(plane.var(), 1e-9))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
