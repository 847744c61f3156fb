"""A broken rule: its patches, and what has to happen for it to show."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from isthmus.backends.base import Load
from isthmus.rules.drain import Decision, DrainTimes, Proceed, Wait

Patches = list[Any]


@dataclass(frozen=True, slots=True)
class Mutation:
    """One broken rule.

    Attributes:
        make: the patches that break it.
        needs: happenings without which a run cannot show it; seeds without them are passed over.
        shape: name of the shape of world that shows it (`shapes.SHAPES`), "" for each seed's own.
    """

    make: Callable[[], Patches]
    needs: frozenset[str]
    shape: str = ""


MUTATIONS: dict[str, Mutation] = {}


def mutation(
    *needs: str, shape: str = ""
) -> Callable[[Callable[[], Patches]], Callable[[], Patches]]:
    def register(make: Callable[[], Patches]) -> Callable[[], Patches]:
        MUTATIONS[make.__name__] = Mutation(make, frozenset(needs), shape)
        return make

    return register


def without_waiting(*, out_since: float, now: float, load: Load, times: DrainTimes) -> Decision:
    """Only the floor is kept."""
    left = out_since + times.floor - now
    return Wait(left) if left > 0 else Proceed(cut=0)
