"""What a supervisor concludes from what it sees of its forwards. Pure.

A forward accepts connections as soon as ssh listens, even if nothing answers behind it, so only an
answer over HTTP proves that it works. Three things are told apart: the engine answers; the engine
refuses (the way works, nobody listens); silence (the way is broken in the middle, or the engine
hangs).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class Outcome(StrEnum):
    """What one HTTP request through a forward came to."""

    ANSWERED = "answered"
    """Any HTTP answer."""
    CLOSED = "closed"
    """The connection was taken and closed without an answer: nobody listens behind it."""
    SILENT = "silent"
    """No answer in time."""
    REFUSED = "refused"
    """Nothing listens on our own port."""


FAILURES_BEFORE_DOWN = 2


@dataclass(frozen=True, slots=True)
class Health:
    """What the requests through one forward say together, since its connection was made.

    Attributes:
        last: None before the first one.
        failures: in a row without an answer.
        silences: in a row without a word.
        answered: it answered at least once.
    """

    last: Outcome | None = None
    failures: int = 0
    silences: int = 0
    answered: bool = False

    def after(self, outcome: Outcome) -> "Health":
        """The health after one more request."""
        if outcome is Outcome.ANSWERED:
            return Health(last=outcome, answered=True)
        silent = self.silences + 1 if outcome is Outcome.SILENT else 0
        return replace(self, last=outcome, failures=self.failures + 1, silences=silent)

    @property
    def way_works(self) -> bool:
        """Whether requests get as far as the engine's node."""
        if self.last is None or self.last is Outcome.REFUSED:
            return False
        return self.silences < (FAILURES_BEFORE_DOWN if self.answered else 1)

    @property
    def serves(self) -> bool:
        """Whether requests are answered; one failure alone takes nobody out."""
        return self.answered and self.failures < FAILURES_BEFORE_DOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One forward as the supervisor sees it.

    Attributes:
        key: uid of its SlurmJob.
        service: namespace and name of the Service it belongs to.
        in_traffic: wanted in traffic.
        established: ssh listens for it.
        health: what answers through it.
        was_ready: it is published as ready now, or was before our own side failed.
        forbidden: the server's rules refuse connections to its engine.
    """

    key: str
    service: tuple[str, str]
    in_traffic: bool
    established: bool
    health: Health
    was_ready: bool = False
    forbidden: bool = False

    @property
    def up(self) -> bool:
        """Whether the way through it works."""
        return self.established and self.health.way_works and not self.forbidden


def ready_forwards(
    views: Iterable[View], *, others: Mapping[tuple[str, str], int], leaving: bool = False
) -> frozenset[str]:
    """Which forwards are published as ready.

    Those that are wanted in traffic and serve. If our own side failed and that would leave a
    Service without any ready endpoint, those that were ready stay: requests would fail either
    way, and as it is they succeed again the moment the way is back.

    Args:
        views: our forwards.
        others: by Service, ready endpoints that are not ours and may be expected to work.
        leaving: we are about to end, so none of ours is ready.
    """
    if leaving:
        return frozenset()
    all_views = tuple(views)
    good = {v.key for v in all_views if v.in_traffic and v.established and v.health.serves}
    served = {v.service for v in all_views if v.key in good}
    for view in all_views:
        alone = view.service not in served and not others.get(view.service)
        if alone and view.in_traffic and view.was_ready and not view.up:
            good.add(view.key)
    return frozenset(good)


def forbidden(health: Health, *, forbids: bool) -> bool:
    """Whether connections through a forward are closed because the server's rules forbid them.

    A connection that is closed without an answer proves a way only where nothing has said so.

    Args:
        health: of the forward.
        forbids: the server has refused connections through this connection by its rules.
    """
    return forbids and health.last is Outcome.CLOSED and not health.answered


def half_dead(health: Iterable[Health]) -> bool:
    """Whether a connection looks alive and is not: all that answered through it are silent.

    What never answered through this connection proves nothing, so an engine that hangs costs at
    most one new connection.
    """
    answered = [one for one in health if one.answered]
    return bool(answered) and all(one.silences >= FAILURES_BEFORE_DOWN for one in answered)


def may_leave(
    *, ours: Mapping[str, bool], elsewhere: Iterable[str], waited: float, patience: float
) -> bool:
    """Whether a supervisor that is asked to end may take its forwards out of rotation.

    Args:
        ours: by uid of the SlurmJob, whether it is in rotation through us.
        elsewhere: those whose forward is up on another supervisor.
        waited: seconds since it was asked to end.
        patience: how long it waits for a successor.
    """
    there = frozenset(elsewhere)
    return waited >= patience or all(key in there for key, ready in ours.items() if ready)


@dataclass(frozen=True, slots=True)
class Beat:
    """The heartbeat of another supervisor, as far as we have seen it.

    Attributes:
        value: what its Lease said last.
        since: since when we have read the same, by our clock.
        reads: how often we have read the same in a row.
    """

    value: str
    since: float
    reads: int = 1

    def after(self, value: str, *, now: float) -> "Beat":
        """The heartbeat after one more successful read."""
        if value != self.value:
            return Beat(value=value, since=now)
        return replace(self, reads=self.reads + 1)

    def dead(self, *, now: float, duration: float) -> bool:
        """Whether it has surely stopped; never from one look back over a gap of ours."""
        return self.reads >= 3 and now - self.since > duration
