from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from photoz.errors import BadInput
from photoz.sky.galaxies import GALAXY, real_galaxies
from photoz.sky.morphology import draw_shapes, luminosity_distance_mpc
from photoz.sky.photometry import asinh_mag, pogson_mag
from photoz.sky.population import Population, build_population
from photoz.sky.survey_photoz import estimate


@pytest.fixture(scope="module")
def population() -> Population:
    return build_population()


def test_all_ten_thousand_real_galaxies_are_there_with_their_own_positions_redshifts_and_fluxes(
    population: Population,
) -> None:
    kcorrect = pytest.importorskip("kcorrect")
    rows = fits.getdata(Path(kcorrect.__file__).parent / "data" / "test" / "gst_tests_small.fits", 1)
    spec = population.spec.to_pandas()
    good = spec[(spec["class"] == "GALAXY") & (spec.zWarning == 0) & (spec.sciencePrimary == 1)]
    assert len(good) == 10_000
    assert set(zip(good.ra, good.dec, strict=True)) == set(zip(rows["RA"].tolist(), rows["DEC"].tolist(), strict=True))
    np.testing.assert_array_equal(np.sort(good.z.to_numpy()), np.sort(np.asarray(rows["Z"], np.float32)))
    photo = population.photo.to_pandas().set_index("objID").loc[good.bestObjID]
    matched = {
        (ra, dec): at for at, (ra, dec) in enumerate(zip(rows["RA"].tolist(), rows["DEC"].tolist(), strict=True))
    }
    order = [matched[place] for place in zip(photo.ra, photo.dec, strict=True)]
    expected = asinh_mag(np.asarray(rows["MODELFLUX"], float)) - np.asarray(rows["EXTINCTION"], float)
    for at, band in enumerate("ugriz"):
        np.testing.assert_allclose(photo[f"dered_{band}"], expected[order, at], atol=2e-6)


def test_ids_are_unique_and_spectra_point_at_their_photometry(population: Population) -> None:
    objid, specobjid = population.photo["objID"].to_numpy(), population.spec["specObjID"].to_numpy()
    assert len(np.unique(objid)) == len(objid)
    assert len(np.unique(specobjid)) == len(specobjid)
    assert specobjid.dtype == np.uint64
    assert (specobjid >= 2**63).any()
    assert np.isin(population.spec["bestObjID"].to_numpy(), objid).all()


def test_there_is_something_for_every_cut_to_remove(population: Population) -> None:
    spec, photo = population.spec.to_pandas(), population.photo.to_pandas()
    assert 0 < (spec["class"] != "GALAXY").mean() < 0.1
    assert 0 < (spec.zWarning != 0).mean() < 0.1
    assert 0 < (spec.sciencePrimary == 0).mean() < 0.1
    assert 0 < (photo["mode"] == 2).mean() < 0.1
    assert 0 < (photo.petroMag_u == -9999).mean() < 0.1
    assert (~photo.objID.isin(spec.bestObjID)).sum() > 100
    assert (spec.boss_target1 > 0).any()
    assert 0 < (spec.velDisp == 0).mean() < 1


def test_the_same_numbers_give_the_same_tables_and_another_seed_others() -> None:
    first, again, other = build_population(300), build_population(300), build_population(300, seed=1)
    assert first.photo.equals(again.photo)
    assert first.spec.equals(again.spec)
    assert first.photoz.equals(again.photoz)
    assert not first.spec.equals(other.spec)


def test_a_smaller_sky_is_a_subset_of_the_real_galaxies(population: Population) -> None:
    small = build_population(500)
    assert (small.objects.real).sum() == 500
    places = set(zip(population.objects.ra.tolist(), population.objects.dec.tolist(), strict=True))
    real = small.objects.real
    assert set(zip(small.objects.ra[real].tolist(), small.objects.dec[real].tolist(), strict=True)) <= places


def test_a_sky_of_too_few_galaxies_is_refused() -> None:
    with pytest.raises(BadInput, match="--galaxies 5"):
        build_population(5)


def test_a_galaxys_own_redshift_never_enters_its_photometric_one() -> None:
    real = real_galaxies()
    mags, rows = real.dereddened_mags(), np.arange(0, len(real), 97)
    honest = estimate(mags[rows], mags, real.z, rows)
    for at, row in enumerate(rows[:5]):
        lied = real.z.copy()
        lied[row] = 5.0
        again = estimate(mags[rows[at : at + 1]], mags, lied, rows[at : at + 1])
        assert again.z[0] == pytest.approx(honest.z[at], abs=1e-12)


def test_the_surveys_photometric_redshifts_are_about_as_good_as_the_real_surveys(population: Population) -> None:
    objects = population.objects
    galaxies = objects.kind == GALAXY
    real = objects.real[galaxies]
    z_phot, z = population.photoz["z"].to_numpy()[real], objects.z[galaxies][real]
    dz = (z_phot - z) / (1 + z)
    assert 1.4826 * np.median(np.abs(dz - np.median(dz))) == pytest.approx(0.0132, abs=0.001)


def test_sizes_follow_the_published_relation() -> None:
    rng = np.random.default_rng(3)
    count, z = 20_000, 0.1
    modulus = 5 * np.log10(luminosity_distance_mpc(np.array([z]))[0]) + 25
    mag_r = np.full(count, -20.52 + modulus - 2.5 * np.log10(1.1))
    shapes = draw_shapes(mag_r, np.full(count, 0.4), np.full(count, z), rng)
    kpc_per_arcsec = 1.844  # at z = 0.1 for H0 = 70, Omega_m = 0.3
    late = shapes.r50_arcsec[~shapes.early] * kpc_per_arcsec
    # Shen et al. (2003), equation 15 at M = M0.
    assert np.median(late) == pytest.approx(10 ** (0.084 * 20.52 + 0.32 * np.log10(2) - 1.31), rel=0.02)


def test_asinh_magnitudes_agree_with_pogson_ones_where_bright_and_stand_negative_flux() -> None:
    bright = np.full(5, 300.0)
    np.testing.assert_allclose(asinh_mag(bright), pogson_mag(bright), atol=2e-3)
    assert np.isfinite(asinh_mag(np.full(5, -3.0))).all()
