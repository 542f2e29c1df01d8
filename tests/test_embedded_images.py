import io

import numpy as np
import pytest
from PIL import Image

from photoz.sky.colour import composite
from photoz.sky.galaxies import GALAXY
from photoz.sky.noise import unit_noise
from photoz.sky.photometry import SKY_NOISE_NMGY
from photoz.sky.population import Population, build_population
from photoz.sky.render import SIMULATED, Renderer, pyramid_level
from photoz.sky.request import BadRequest, Cutout, parse_cutout


@pytest.fixture(scope="module")
def population() -> Population:
    return build_population(1000)


@pytest.fixture(scope="module")
def renderer(population: Population) -> Renderer:
    return Renderer(population.objects, population.shapes, 0)


def pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"), float)


def test_cutouts_are_jpegs_as_the_service_makes_them(renderer: Renderer) -> None:
    jpeg = renderer.jpeg(Cutout(180.0, 30.0, width=96, height=64))
    image = Image.open(io.BytesIO(jpeg))
    assert (image.format, image.size) == ("JPEG", (96, 64))
    assert image.quantization[0][:4] == [8, 6, 5, 8]  # quality 75
    assert [layer[1:3] for layer in image.layer] == [(2, 2), (1, 1), (1, 1)]  # 4:2:0
    assert SIMULATED in jpeg[:80]


def test_the_same_request_gives_the_same_bytes_in_any_renderer(population: Population, renderer: Renderer) -> None:
    cutout = Cutout(float(population.objects.ra[3]), float(population.objects.dec[3]), width=64, height=64)
    again = Renderer(population.objects, population.shapes, 0)
    again.jpeg(Cutout(10.0, 10.0))
    assert again.jpeg(cutout) == renderer.jpeg(cutout)
    assert Renderer(population.objects, population.shapes, 1).jpeg(cutout) != renderer.jpeg(cutout)


def test_a_galaxy_stands_in_the_middle_of_its_cutout(population: Population, renderer: Renderer) -> None:
    bright = np.argsort(-population.objects.flux[:1000, 2])[20:60]
    offsets = []
    for row in bright:
        image = pixels(renderer.jpeg(Cutout(population.objects.ra[row], population.objects.dec[row], 0.396127, 96, 96)))
        centre = image.sum(axis=2)[28:68, 28:68]
        offsets.append(np.subtract(np.unravel_index(centre.argmax(), centre.shape), 19.5))
    assert np.median(np.abs(offsets)) <= 1.0


def test_measured_fluxes_are_on_the_pixels(population: Population, renderer: Renderer) -> None:
    objects, shapes = population.objects, population.shapes
    small = np.flatnonzero((objects.kind == GALAXY) & (shapes.r50_arcsec < 2.0) & (objects.flux[:, 2] > 300))[:40]
    ratios = []
    for row in small:
        stamp = renderer.ugriz(Cutout(objects.ra[row], objects.dec[row], 0.396127, 72, 72))
        ratios.append(stamp[1:4].sum(axis=(1, 2)) / objects.flux[row, 1:4])
    # Neighbours add to some frames, and a spheroid's wings leave them; the median galaxy's light is there.
    np.testing.assert_allclose(np.median(ratios, axis=0), 1.0, atol=0.06)


def test_overlapping_cutouts_show_the_same_sky_and_the_same_noise(renderer: Renderer) -> None:
    first, second = Cutout(185.0, 0.4, 0.396127, 100, 100), Cutout(185.003, 0.402, 0.396127, 100, 100)
    windows = [renderer._window(cutout, 0) for cutout in (first, second)]
    skies = [renderer._sky(window, cutout, (3, 2, 1)) for window, cutout in zip(windows, (first, second), strict=True)]
    dx, dy = windows[1].x0 - windows[0].x0, windows[1].y0 - windows[0].y0
    assert (dx, dy) != (0, 0)
    height, width = skies[0].shape[1:]
    rows, columns = slice(max(dy, 0), min(height, height + dy)), slice(max(dx, 0), min(width, width + dx))
    there = skies[1][:, rows.start - dy : rows.stop - dy, columns.start - dx : columns.stop - dx]
    difference = skies[0][:, rows, columns] - there
    assert difference.size > 1000
    assert np.abs(difference).max() < 0.01
    assert np.median(np.abs(difference)) < 1e-4


def test_blank_sky_has_the_noise_of_the_survey(renderer: Renderer) -> None:
    stamp = renderer.ugriz(Cutout(201.3, 45.7, 0.396127, 400, 400))
    level = np.median(stamp, axis=(1, 2))
    noise = 1.4826 * np.median(np.abs(stamp - level[:, None, None]), axis=(1, 2))
    # Bilinear resampling averages neighbouring pixels, which takes away a third of the noise on average.
    np.testing.assert_allclose(noise / SKY_NOISE_NMGY, 0.67, atol=0.1)
    assert np.all(np.abs(level) < 0.3 * SKY_NOISE_NMGY)


def test_noise_is_normal_and_bands_are_independent() -> None:
    noise = unit_noise(12345, -70, 4_000_000, (500, 400))
    assert noise.shape == (4, 500, 400)
    assert abs(noise.mean()) < 0.005
    assert noise.std() == pytest.approx(1.0, abs=0.005)
    assert np.abs(np.corrcoef(noise.reshape(4, -1)) - np.eye(4)).max() < 0.01
    lagged = [np.mean(noise[:, :, 1:] * noise[:, :, :-1]), np.mean(noise[:, 1:] * noise[:, :-1])]
    assert np.abs(lagged).max() < 0.01
    np.testing.assert_array_equal(unit_noise(12345, -60, 4_000_100, (50, 40)), noise[:, 100:150, 10:50])


def test_off_the_footprint_the_answer_is_a_uniform_frame_with_a_line_of_text(renderer: Renderer) -> None:
    image = pixels(renderer.jpeg(Cutout(120.0, -75.0, width=256, height=128)))
    assert image[64:].max() <= 2
    assert image[:40].max() > 200


def test_coarser_scales_show_more_sky_at_less_noise_per_pixel(renderer: Renderer) -> None:
    assert [pyramid_level(scale) for scale in (0.1, 0.396127, 0.79, 0.8, 1.6, 60.0)] == [0, 0, 0, 1, 2, 6]
    for scale in (0.1, 0.8, 3.0, 20.0):
        assert pixels(renderer.jpeg(Cutout(150.0, 20.0, scale, 64, 64))).shape == (64, 64, 3)


def test_composite_keeps_hue_where_it_overflows_and_clips_negative_flux() -> None:
    flux = np.array([[-1.0, 0.0, 1e5], [-1.0, 0.0, 1e5], [-1.0, 0.0, 1e5]])
    wide = np.repeat(np.repeat(flux[:, None, :], 21, axis=1), 21, axis=2)
    levels = composite(wide)
    assert levels.min() == 0
    assert levels.max() == 255
    assert levels[0, 10, 55] < levels[1, 10, 55] < levels[2, 10, 55]  # equal fluxes keep the scales' order
    assert np.all(levels[:, 10, 5] == 0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ra": "10", "dec": "20"}, Cutout(10.0, 20.0)),
        ({"ra": "-10", "dec": "20", "width": "10", "height": "9999"}, Cutout(350.0, 20.0, width=64, height=2048)),
        ({"ra": "10", "dec": "91", "scale": "500"}, Cutout(190.0, 89.0, scale=60.0)),
    ],
)
def test_parameters_beyond_the_limits_are_clipped_as_the_service_does(given: dict[str, str], expected: Cutout) -> None:
    assert parse_cutout(given) == expected


@pytest.mark.parametrize(
    "given",
    [{}, {"ra": "1"}, {"ra": "x", "dec": "1"}, {"ra": "1", "dec": "nan"}, {"ra": "1", "dec": "2", "width": "a"}],
)
def test_parameters_that_are_no_numbers_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(BadRequest, match="ra must be in"):
        parse_cutout(given)
