"""The line in front of each cluster's sbatch: who may submit now, and who is called next.

A submission takes a write, a file and an sbatch, and holds a worker of the loop meanwhile. Of
hundreds of attempts that begin together only a few are therefore under way; the others give their
worker back at once and are called when a place is free, one of each namespace in turn. Apart from
the limit in `slurmjob/policy/submission.py`, which is about submissions whose outcome is not known.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from isthmus.api.desired import ClusterReference
from isthmus.apiserver.key import Key
from isthmus.turns import Turns

UNDER_WAY = 12
"""Submissions of one cluster under way at once: some write their status, some run sbatch. Below the
number of unclear ones from which on nothing is submitted."""

CALL_LASTS = 5.0
"""Seconds for which a place is kept for one that was called."""

LOOK_AGAIN = 15.0
"""Seconds after which one that waits comes by itself, should its call be lost."""


class Turn(Enum):
    """What the line says to an attempt that wants to submit."""

    NOW = "now"
    """Submit, and call `leave` after it."""
    JOINED = "joined"
    """It stands in the line from now on, and will be called."""
    WAITING = "waiting"
    """It stands in the line already."""


@dataclass(slots=True)
class _Line:
    under_way: set[Key] = field(default_factory=set)
    called: dict[Key, float] = field(default_factory=dict)  # → when
    waiting: Turns[Key] = field(default_factory=Turns)

    def free(self) -> int:
        return UNDER_WAY - len(self.under_way) - len(self.called)


class SubmissionLine:
    """The lines of all clusters. Nothing here waits."""

    def __init__(self, *, wake: Callable[[Key], None], clock: Callable[[], float]) -> None:
        """Make empty lines.

        Args:
            wake: has a pass made over an attempt that is called.
            clock: seconds, monotonic.
        """
        self._wake = wake
        self._clock = clock
        self._lines: dict[ClusterReference, _Line] = {}

    def enter(self, reference: ClusterReference, key: Key) -> Turn:
        """Ask for a place."""
        line = self._lines.setdefault(reference, _Line())
        self._call(line)
        if key in line.called or line.free() > 0:
            line.called.pop(key, None)
            line.waiting.remove(key.namespace, key)
            line.under_way.add(key)
            return Turn.NOW
        if line.waiting.holds(key.namespace, key):
            return Turn.WAITING
        line.waiting.add(key.namespace, key)
        return Turn.JOINED

    def leave(self, reference: ClusterReference, key: Key) -> None:
        """Give the place back, and call the next."""
        line = self._lines[reference]
        line.under_way.discard(key)
        self._go_on(reference, line)

    def withdraw(self, reference: ClusterReference, key: Key) -> None:
        """Stand in the line no more, called or not: something else holds the attempt back now."""
        line = self._lines.get(reference)
        if line is None:
            return
        line.waiting.remove(key.namespace, key)
        if line.called.pop(key, None) is not None:
            self._go_on(reference, line)

    def _go_on(self, reference: ClusterReference, line: _Line) -> None:
        self._call(line)
        if not (line.under_way or line.called or line.waiting):
            del self._lines[reference]

    def _call(self, line: _Line) -> None:
        """Call as many as there are places; who was called and did not come has lost its."""
        now = self._clock()
        line.called = {key: at for key, at in line.called.items() if now - at < CALL_LASTS}
        while line.free() > 0 and (called := line.waiting.pop()) is not None:
            _, key = called
            line.called[key] = now
            self._wake(key)
