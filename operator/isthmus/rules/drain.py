"""When a worker that is out of rotation may be told to end: the one rule for pods and for jobs.

Every node and every client has to hear of it first (the floor); then its requests have a budget to
finish. Idle is what the engine's metrics say, read after the floor: before it a request may still
have been on its way. Metrics are late, each engine's by another time, so idleness must have stood
for that long after the floor. Where they say nothing, waiting shows nothing either: after a while
the engine is told to end, and finishes what it holds by its own means.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

from isthmus.api.durations import format_duration
from isthmus.backends.base import Load

SILENCE: Final = 15.0
"""Seconds of unanswered readings after which idleness is not waited for any more."""
LOOK: Final = 2.0
"""Most seconds until the next look; a reading that shows an idle engine comes sooner by itself."""
UNREADABLE: Final = Load(requests=None, silent_for=float("inf"))
"""Of an engine whose metrics cannot be asked for at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainTimes:
    """Seconds: the floor after a worker left the rotation, and the budget after the floor."""

    floor: float
    budget: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Leave it alone; look again in `seconds` at the latest."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Proceed:
    """Tell it to end.

    Attributes:
        cut: requests that it still holds; 0 when it is idle, None where nobody knows.
        over: the budget is used up, so what it holds gets no more time.
    """

    cut: int | None
    over: bool = False


Decision: TypeAlias = Wait | Proceed


def decide(*, out_since: float, now: float, load: Load, times: DrainTimes) -> Decision:
    """What to do with a worker that is being drained.

    Args:
        out_since: when it left the rotation, epoch seconds.
        now: epoch seconds.
        load: what its metrics say.
        times: floor and budget.
    """
    heard_of = out_since + times.floor
    if now < heard_of:
        return Wait(min(heard_of - now, max(LOOK, times.floor)))
    if _idle(load, heard_for=now - heard_of):
        return Proceed(cut=0)
    over = heard_of + times.budget
    if now >= over:
        return Proceed(cut=load.requests, over=True)
    if load.silent_for >= SILENCE:
        return Proceed(cut=None)
    return Wait(min(LOOK, over - now))


def _idle(load: Load, *, heard_for: float) -> bool:
    """Whether the metrics have shown for long enough that no request is left.

    What counts of a row of idle readings is its part after the floor, `heard_for` seconds ago.
    """
    if load.requests != 0 or load.silent_for > 0 or load.age > heard_for:
        return False
    return min(load.idle_for, heard_for - load.age) >= load.proof


def told(decision: Proceed, *, budget: float) -> str:
    """A sentence about a drain that did not end with an idle engine; "" for one that did."""
    limit = f"drain.timeout {format_duration(budget)}"
    if decision.cut == 0:
        return ""
    if decision.cut is None:
        return (
            f"cannot read the number of open requests until {limit}: some may be interrupted"
            if decision.over
            else "cannot read the number of open requests; relying on the engine's graceful "
            "shutdown"
        )
    requests = "1 request" if decision.cut == 1 else f"{decision.cut} requests"
    return f"{requests} interrupted after {limit}"
