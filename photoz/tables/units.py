"""Units as people write them: which are angles, fluxes or magnitudes, whatever their spelling."""

import math
import re
import warnings

import astropy.units as u

HOURS_IN_DEGREES = 15.0
_ANGLES = {
    1.0: "deg degs degree degrees degr arcdeg decimaldeg decimaldegs decimaldegree decimaldegrees decdeg degdec "
    "degdecimal degreesdecimal ddeg angledeg degreeeast degreeseast degreenorth degreesnorth ° º",
    u.rad.to(u.deg): "rad rads radian radians",
    HOURS_IN_DEGREES: "h hr hrs hour hours hourangle hourangles hoursangle decimalhour decimalhours hoursdecimal",
    1 / 60: "arcmin arcmins arcminute arcminutes minarc minutearc minutesarc minuteofarc minutesofarc",
    1 / 3600: "arcsec arcsecs arcsecond arcseconds secarc secondofarc secondsofarc",
}
_ANGLE: dict[str, float] = {
    spelling: degrees for degrees, spellings in _ANGLES.items() for spelling in spellings.split()
}
# AB magnitude of a flux of 1: 22.5 for the nanomaggy; 8.9 for the jansky (Oke & Gunn 1983: 48.6 in cgs).
_FLUXES = {
    22.5: "nmgy nmgys nmaggy nmaggie nmaggies nanomgy nanomaggy nanomaggys nanomaggie nanomaggies",
    0.0: "mgy mgys maggy maggys maggie maggies",
    8.9: "jy jansky janskys",
    16.4: "mjy millijy millijansky millijanskys",
    23.9: "ujy µjy μjy microjy microjansky microjanskys",
    31.4: "njy nanojy nanojansky nanojanskys",
}
_FLUX_NAMES = {22.5: "nmgy", 0.0: "maggy", 8.9: "Jy", 16.4: "mJy", 23.9: "uJy", 31.4: "nJy"}
_FLUX = {spelling: magnitude for magnitude, spellings in _FLUXES.items() for spelling in spellings.split()}
_MAGNITUDES = {
    "mag", "mags", "magnitude", "magnitudes", "ab", "abmag", "magab", "abmags", "abmagnitude", "abmagnitudes",
}  # fmt: skip
_NO_UNIT = {"", "none", "null", "nan", "unitless", "dimensionless", "nounit", "nounits", "adimensional", "1"}
_QUOTES = {"'": 1 / 60, "''": 1 / 3600, '"': 1 / 3600}
_MINUTES_SECONDS = "(arc)?m+(in|inute)?s?(arc)?s+(ec|econd)?s?"  # of hms, hh:mm:ss, hr:min:sec
_IN_NAME = re.compile(r".*[\W_](rads?|radians?|hrs?|hours?|hourangle|arcsecs?|arcseconds?|degs?|degrees?)[\W_]*", re.I)
_FRAME = re.compile(r"icrs|fk5|j2000(\.0)?")


def is_no_unit(text: str | None) -> bool:
    """Whether a stated unit says that there is none: `--`, `none`, `dimensionless`."""
    return text is None or (_plain(text) in _NO_UNIT and text.strip() not in _QUOTES)


def is_redshift(text: str | None) -> bool:
    """Whether a stated unit fits redshifts: none, or astropy's `redshift`."""
    return is_no_unit(text) or _plain(str(text)) == "redshift"


def is_velocity(text: str) -> bool:
    """Whether it is a velocity, `km/s` for example."""
    unit = _astropy(text)
    return unit is not None and unit.is_equivalent(u.km / u.s)


def degrees_in(text: str) -> float | None:
    """How many degrees one unit is, `Decimal Degrees`, `DEG.`, `hms` or `mas` for example; None for what is no angle.

    Hours are hours of right ascension.
    """
    if text.strip() in _QUOTES:
        return _QUOTES[text.strip()]
    plain = _plain(text)
    if re.fullmatch(f"h+(our|r)?s?{_MINUTES_SECONDS}", plain):
        return HOURS_IN_DEGREES
    if re.fullmatch(f"d+(eg|egree)?s?{_MINUTES_SECONDS}", plain):
        return 1.0
    known = _ANGLE.get(plain)
    if known is not None:
        return known
    unit = _astropy(text)
    if unit is None or not unit.is_equivalent(u.deg):
        return None
    degrees: float = unit.to(u.deg)
    return degrees


def unit_in_name(name: str) -> str | None:
    """The angle at the end of a column's name, such as `ra_rad` or `RA (hours)`."""
    match = _IN_NAME.fullmatch(name)
    return match[1] if match else None


def zero_point(text: str) -> float | None:
    """The AB magnitude of a flux of one unit, 22.5 for `nanomaggies` for example; None for what is no such flux."""
    if text.strip().startswith("MJ") and text.strip() != "MJY":  # a megajansky, or a millijansky misspelt
        return None
    if is_magnitude(text) or text.strip().startswith("["):  # VizieR's way to write the logarithm of a unit
        return None
    known = _FLUX.get(_plain(text))
    if known is not None:
        return known
    unit = _astropy(text)
    if unit is None or not unit.is_equivalent(u.Jy):
        return None
    return 8.9 - 2.5 * math.log10(float(unit.to(u.Jy)))


def one_spelling(text: str) -> str:
    """The same text for each spelling of a unit: `nmgy` for `Nanomaggies`; as it stands where the unit is not known."""
    known = None if text.strip().startswith("MJ") else _FLUX.get(_plain(text))
    if known is not None:
        return _FLUX_NAMES[known]
    unit = _astropy(text)
    return str(unit) if unit is not None else text.strip()


def is_flux(text: str) -> bool:
    """Whether it is a flux of any kind, also one that can't be converted without a wavelength."""
    unit = _astropy(text)
    physical = unit is not None and any(unit.is_equivalent(u.Unit(flux)) for flux in ("mgy", "W/m3", "W/m2", "ct/s"))
    return physical or zero_point(text) is not None or bool(re.search("mag+[iy]|mgy|jy|jansky", _plain(text)))


def is_magnitude(text: str) -> bool:
    """Whether it is a magnitude, AB if it says which."""
    return _plain(text) in _MAGNITUDES


def _plain(text: str) -> str:
    """Lower case, without frames, signs and spaces: `Degrees (J2000)` is `degrees`; a unit with digits keeps them."""
    return re.sub(r"[\s.,:;_\"'()\[\]{}-]", "", _FRAME.sub("", text.casefold()))


def _astropy(text: str) -> u.UnitBase | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", u.UnitsWarning)  # what it says of the spelling concerns the file's writer
        try:
            unit = u.Unit(text.strip(), parse_strict="silent")
        except (ValueError, TypeError):
            return None
    # dex(uJy), mag(uJy) and the like are logarithms of what they convert to.
    return None if isinstance(unit, u.UnrecognizedUnit | u.function.FunctionUnitBase) else unit
