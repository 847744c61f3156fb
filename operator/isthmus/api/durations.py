"""Durations as users write them ("30s", "5m", "1h30m") and as code uses them (seconds).

The written form is a subset of Go's, so that CEL's `duration()` in the API server reads the same.
"""

import re
from functools import lru_cache
from typing import Final

DURATION_PATTERN: Final = (
    "^([0-9]{1,5}h([0-9]{1,6}m)?([0-9]{1,7}s)?|[0-9]{1,6}m([0-9]{1,7}s)?|[0-9]{1,7}s)$"
)
"""Whole hours, minutes and seconds, in this order, each at most once and at least one of them."""

_PARTS: Final = re.compile(r"(?:([0-9]{1,5})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,7})s)?", re.ASCII)


@lru_cache(maxsize=1024)
def parse_duration(text: str) -> float:
    """Return seconds.

    Raises:
        ValueError: `text` is not of the form "1h30m", "5m" or "30s".
    """
    match = _PARTS.fullmatch(text)
    if match is None or not text:
        raise ValueError(f'{text!r} is not a duration: write for example "30s", "5m" or "1h30m"')
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def format_duration(seconds: float) -> str:
    """Return the shortest written form; fractions of a second are cut off."""
    rest = max(0, int(seconds))
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [
        f"{value}{unit}" for value, unit in ((hours, "h"), (minutes, "m"), (rest, "s")) if value
    ]
    return "".join(parts) or "0s"
