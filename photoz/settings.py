"""A job's settings: fields that carry the text of their own flag's help."""

from dataclasses import field
from typing import Any


def setting(default: Any, help_text: str, **flags: Any) -> Any:
    """A dataclass field whose default and help become those of the flag of the same name.

    `flags` go to the command line as they are: metavar="PX", hidden=True.
    """
    return field(default=default, metadata={"help": help_text, **flags})
