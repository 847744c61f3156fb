"""What of the actions on an attempt's job fails: which, since when, how often.

Apart from the reconciler, which only says what it is about to do. The count lives in memory, the
moment in the condition, so after a restart it is counted anew and still told since when. It is
told in steps, or each try would be a write.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from isthmus.api.conditions import ConditionType, Reason
from isthmus.api.texts import one_line
from isthmus.apiserver.key import Key
from isthmus.errors import NameTakenError
from isthmus.rules.actions import RemoveFinalizer
from isthmus.rules.telling import problem_of, with_problem
from isthmus.slurmjob.actions import (
    Cancel,
    CloseGate,
    ConfirmGone,
    EnsureSlice,
    SlurmJobAction,
    Submit,
    Terminate,
)
from isthmus.slurmjob.policy.failed_action import seen_beside
from isthmus.slurmjob.record import AttemptStatus

_STEPS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_WORDS: Final[dict[type, str]] = {
    Submit: "what comes before its submission",
    Terminate: "sending TERM to its engine",
    Cancel: "cancelling its job",
    ConfirmGone: "asking SLURM whether its job is gone",
    CloseGate: "closing its start gate",
    EnsureSlice: "putting its worker into the Service",
    RemoveFinalizer: "removing its files",
}


_PATIENCE: Final = 120.0
"""Seconds after which a failure counts as past though what failed was not done since."""


@dataclass(slots=True)
class _Failing:
    action: str
    times: int
    at: float


@dataclass(frozen=True, slots=True)
class _Begun:
    action: SlurmJobAction
    planned: AttemptStatus


class ActionFailures:
    """The failures of all attempts."""

    def __init__(self) -> None:
        self._failing: dict[Key, _Failing] = {}
        self._begun: dict[Key, _Begun] = {}

    def begin(self, key: Key, action: SlurmJobAction, *, planned: AttemptStatus) -> None:
        """An action is about to be done; `planned` is the status when all of the pass is done."""
        self._begun[key] = _Begun(action, planned)

    def forget(self, key: Key) -> None:
        """The object is gone."""
        self._failing.pop(key, None)
        self._begun.pop(key, None)

    def settled(
        self, key: Key, status: AttemptStatus, *, done: Iterable[SlurmJobAction], now: float
    ) -> AttemptStatus:
        """Return the status after a pass without a failure: what failed may not be over yet.

        A pass between two tries has nothing to do, and must not tell that all is well.
        """
        self._begun.pop(key, None)
        if not problem_of(status.conditions, ConditionType.ACTIONS_SUCCEED):
            self._failing.pop(key, None)
            return status
        known = self._failing.setdefault(key, _Failing("", 0, now))  # told before a restart
        over = now - known.at > _PATIENCE or any(_words(action) == known.action for action in done)
        if not over:
            return status
        del self._failing[key]
        conditions = with_problem(
            status.conditions,
            ConditionType.ACTIONS_SUCCEED,
            reason=Reason.ACTION_FAILED,
            problem="",
            now=now,
        )
        return replace(status, conditions=conditions)

    def told(
        self, key: Key, stored: AttemptStatus, error: Exception, *, now: float
    ) -> AttemptStatus:
        """Count one more failure; return the status with the condition, and with what was seen."""
        begun = self._begun.pop(key, None)
        status = stored
        if begun is not None:
            status = seen_beside(begun.action, stored=stored, planned=begun.planned)
        words = _words(None if begun is None else begun.action)
        found = self._failing.get(key)
        if found is None or found.action != words:
            found = self._failing[key] = _Failing(words, 0, now)
        found.times, found.at = found.times + 1, now
        step = _STEPS[bisect_right(_STEPS, found.times) - 1]
        often = "" if step == 1 else f", {step} times or more"
        message = f"{found.action} fails{often}; it is tried again: {one_line(str(error))}"
        conditions = with_problem(
            status.conditions,
            ConditionType.ACTIONS_SUCCEED,
            reason=_reason(error),
            problem=message,
            now=now,
        )
        return replace(status, conditions=conditions)


def _reason(error: Exception) -> Reason:
    return Reason.NAME_CONFLICT if isinstance(error, NameTakenError) else Reason.ACTION_FAILED


def _words(action: SlurmJobAction | None) -> str:
    return _WORDS.get(type(action), "what is to be done about it")
