"""Names that columns of users' tables can have, and how other names are mapped to them."""

from photoz.errors import BadInput

TEXT_COLUMNS = ("image", "split", "block")
NUMBER_COLUMNS = ("ra", "dec", "z_spec", "z_spec_err", "ebv", "z_phot_survey")


def parse_columns(text: str) -> dict[str, str]:
    """{our name: the table's name} from `ra=RA,dec=DEC`; `-` leaves a column out. BadInput for a name not ours."""
    mapping: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        ours, equals, theirs = (word.strip() for word in part.partition("="))
        if not (ours and equals and theirs):
            raise BadInput(f"--columns {part!r}: expected OURS=YOURS, such as ra=RA,dec=DEC,z_spec=Z")
        if not is_ours(ours):
            known = ", ".join(("object_id", *NUMBER_COLUMNS, *TEXT_COLUMNS))
            raise BadInput(f"--columns {part!r}: catalogues have no {ours!r}; expected {known}, mag_* or mag_err_*")
        if ours in mapping:
            raise BadInput(f"--columns: {ours} is mapped twice, to {mapping[ours]!r} and {theirs!r}; expected once")
        mapping[ours] = theirs
    return mapping


def is_ours(name: str) -> bool:
    """Whether a catalogue made from a table can have a column of that name."""
    return name in ("object_id", *NUMBER_COLUMNS, *TEXT_COLUMNS) or (name.startswith("mag_") and len(name) > 4)
