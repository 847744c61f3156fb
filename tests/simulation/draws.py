"""Chances that are drawn from a seed alone."""

from collections.abc import Callable
from random import Random


def one_in(share: float, *, stream: str) -> Callable[[str], bool]:
    """Whether a seed is one of a share of all, by a stream of its own.

    Where a name of a stream has a number, it is one by which none of the seeds is drawn that are
    known for what they once found.
    """
    return lambda seed: Random(f"{seed}/{stream}").random() < 1 / share
