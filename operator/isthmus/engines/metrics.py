"""Reads a page of an engine's metrics: how many requests it holds.

The Prometheus text format is read here and not by a library, because only two gauges of a page of
hundreds of lines are wanted, every few seconds, of thousands of workers, and the page comes from a
process that need not be ours: nothing of it may be expensive or raise.
"""

from collections.abc import Sequence
from math import isfinite


def held_requests(page: str, *, names: Sequence[str]) -> int | None:
    """Sum of all samples of some gauges over their labels: ranks and engines of one server.

    Args:
        page: the text format, version 0.0.4.
        names: the gauges whose sum is the number of requests held, all of which must be there.

    Returns:
        None where a gauge is missing or a value is no number: then nothing is known.
    """
    found: set[str] = set()
    total = 0.0
    for line in page.splitlines():
        name = next((name for name in names if line.startswith(name)), None)
        if name is None:
            continue
        rest = line[len(name) :]
        if rest.startswith("{"):
            rest = rest.rpartition("}")[2]
        elif not rest.startswith((" ", "\t")):
            continue  # a longer name
        value = _number(rest)
        if value is None:
            return None
        found.add(name)
        total += value
    return round(total) if found.issuperset(names) else None


def _number(rest: str) -> float | None:
    """The value of a sample, which a time stamp may follow."""
    words = rest.split()
    try:
        value = float(words[0])
    except (IndexError, ValueError):
        return None
    return value if isfinite(value) and value >= 0 else None
