import numpy as np

from photoz.sky.stripes import (
    FieldAddress,
    field_address,
    on_stripe,
    pack_objid,
    pack_specobjid,
    stripe_position,
)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_objids_have_the_bit_layout_of_the_survey() -> None:
    # objID 1237648720693755918 is sky version 2, rerun 301, run 756, camcol 2, field 427, object 14.
    assert pack_objid(FieldAddress(ints(756), ints(2), ints(427)), ints(14)).tolist() == [1237648720693755918]


def test_specobjids_have_the_bit_layout_of_the_survey() -> None:
    # As in the survey's own table: plate 266, mjd 51630, fiber 168.
    packed = pack_specobjid(ints(266), ints(51630), ints(168), ints(26))
    assert packed.tolist() == [299535582055393280]


def test_plates_from_8192_on_give_specobjids_beyond_signed_64_bits() -> None:
    packed = pack_specobjid(ints(8191, 8192), ints(57000, 57000), ints(1, 1), ints(1302, 1302))
    assert int(packed[0]) < 2**63 <= int(packed[1])


def test_every_position_is_on_a_stripe_within_half_its_width() -> None:
    rng = np.random.default_rng(1)
    ra, dec = 360 * rng.random(5000), np.degrees(np.arcsin(2 * rng.random(5000) - 1))
    position = stripe_position(ra, dec)
    assert np.abs(position.nu).max() <= 1.26
    assert np.all((position.stripe >= 0) & (position.stripe < 72))
    address = field_address(position)
    assert np.all((address.camcol >= 1) & (address.camcol <= 6))
    assert np.all((address.field >= 11) & (address.field < 1002))
    assert np.all((address.run > 93) & (address.run < 8162))


def test_great_circle_of_inclination_zero_is_the_equator() -> None:
    position = on_stripe([10.0, 200.0], [0.0, 0.5], [0, 0])
    np.testing.assert_allclose(position.mu, [10.0, 200.0], atol=1e-9)
    np.testing.assert_allclose(position.nu, [0.0, 0.5], atol=1e-9)
