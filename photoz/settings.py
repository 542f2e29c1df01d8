"""A job's settings: fields that carry the help text of their flags, and values as people write them."""

from dataclasses import field
from typing import Any

from photoz.errors import BadInput


def setting(default: Any, help_text: str, **flags: Any) -> Any:
    """A dataclass field whose default and help become those of the flag of the same name.

    `flags` go to the command line as they are: metavar="PX", hidden=True.
    """
    return field(default=default, metadata={"help": help_text, **flags})


def parse_duration(text: str) -> float:
    """Seconds in `90`, `90s`, `15m`, `2h` or `1d`; BadInput otherwise."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise BadInput(f"duration {text!r}: expected a number and a unit, such as 90s, 15m or 2h")
    return seconds
