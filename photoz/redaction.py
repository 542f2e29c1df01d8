"""Secrets taken out of text before it is shown or kept: logins in URLs, and values that their names call secret."""

import re
from collections.abc import Sequence

HIDDEN = "***"
_SENSITIVE = r"(?:secret|token|password|passwd|passphrase|credential|signature|(?:api|access|private)[-_]?key)"
_LOGIN = re.compile(r"(?<=://)[^/\s?#]{0,2000}@")
# In a URL's query, a flag with its value, or a variable: X-Amz-Signature=…, --api-token=…, AWS_SECRET_ACCESS_KEY=…
_NAMED = re.compile(rf"((?<![\w-])[\w-]{{0,60}}{_SENSITIVE}[\w-]{{0,60}}=)[^\s&'\"]+", re.IGNORECASE)
_KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FLAG = re.compile(rf"--?[\w-]*{_SENSITIVE}[\w-]*", re.IGNORECASE)


def redacted(text: str) -> str:
    """The text with what looks like a secret replaced by ***."""
    return _KEY_ID.sub(HIDDEN, _NAMED.sub(rf"\g<1>{HIDDEN}", _LOGIN.sub(f"{HIDDEN}@", text)))


def shown(text: str) -> str:
    """The text fit for a terminal: no secrets, and characters written out that would steer it or are no text."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", redacted(text))


def redacted_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line's arguments, without the value that follows a flag such as --token."""
    after_flag = [False, *(_FLAG.fullmatch(argument) is not None for argument in arguments)]
    return [HIDDEN if hide else redacted(argument) for argument, hide in zip(arguments, after_flag, strict=False)]
