"""The rules of an attempt that several ways through its plan share: each has one home."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import isthmus
from isthmus.api.conditions import PROBED, TERMINAL, UNCLEAR, UNSUBMITTED, Phase, Reason
from isthmus.api.times import rfc3339
from isthmus.slurmjob.actions import Cancel
from isthmus.slurmjob.policy import absence
from isthmus.slurmjob.policy.absence import Absence
from isthmus.slurmjob.policy.cancelling import cancel
from isthmus.slurmjob.policy.rotation import forwards_requests, gets_requests
from isthmus.slurmjob.record import AttemptStatus, Ending, Forward
from tests.unit.builders import NOW, job, status

SOURCES = Path(isthmus.__file__).parent


class TestAbsence:
    """Two snapshots and a second source."""

    @pytest.mark.parametrize(
        ("starts", "confirmed", "found"),
        [
            ((), False, Absence.TOO_EARLY),
            ((NOW - 5,), True, Absence.TOO_EARLY),
            ((NOW - 35, NOW - 5), False, Absence.UNCONFIRMED),
            ((NOW - 35, NOW - 5), True, Absence.GONE),
        ],
    )
    def test_it_takes_both(
        self, starts: tuple[float, ...], confirmed: bool, found: Absence
    ) -> None:
        seen = job(
            status=status(Phase.READY), starts=starts, last_seen=NOW - 65, confirmed_gone=confirmed
        )
        assert absence.judge(seen) is found

    @pytest.mark.parametrize("moment", ["last_seen", "submitted"])
    def test_a_snapshot_begun_before_the_moment_in_question_proves_nothing(
        self, moment: str
    ) -> None:
        late = rfc3339(NOW - 20) if moment == "submitted" else None
        before = status(Phase.READY, submit_started_at=late)
        last_seen = NOW - 20 if moment == "last_seen" else None
        seen = job(status=before, starts=(NOW - 35, NOW - 5), last_seen=last_seen)
        assert absence.judge(seen) is Absence.TOO_EARLY


class TestCancelling:
    """Again after a while, and not before."""

    def test_all_jobs_of_the_attempt_at_once(self) -> None:
        first = cancel(AttemptStatus(), job_ids=(7, 8), repeat=10, now=NOW)
        assert first.actions == (Cancel(job_id=7), Cancel(job_id=8))
        assert first.status.ending.cancelled_at == NOW
        assert first.requeue_after == 10

    @pytest.mark.parametrize(("after", "sent"), [(0, False), (9, False), (10, True), (60, True)])
    def test_it_is_repeated_after_the_pause(self, after: float, sent: bool) -> None:
        before = AttemptStatus(ending=Ending(cancelled_at=NOW))
        found = cancel(before, job_ids=(7,), repeat=10, now=NOW + after)
        assert bool(found.actions) is sent
        assert found.requeue_after == (10 if sent else 10 - after)
        assert (found.status == before) is not sent


class TestRotation:
    """The same answer for the membership and for the forward."""

    @pytest.mark.parametrize("phase", [None, *Phase])
    @pytest.mark.parametrize("reason", [Reason.PROBE_FAILED, Reason.LAST_IN_ROTATION])
    def test_ready_or_the_last(self, phase: Phase | None, reason: Reason) -> None:
        wanted = phase is Phase.READY or reason is Reason.LAST_IN_ROTATION
        assert gets_requests(AttemptStatus(phase=phase, reason=reason)) is wanted

    def test_a_forward_is_in_traffic_where_that_was_told(self) -> None:
        told = [None, Forward(), Forward(in_traffic=False)]
        assert not any(forwards_requests(AttemptStatus(forward=forward)) for forward in told)
        assert forwards_requests(AttemptStatus(forward=Forward(in_traffic=True)))


def test_no_phase_is_in_two_groups() -> None:
    groups = (TERMINAL, UNSUBMITTED, UNCLEAR, PROBED)
    assert sum(map(len, groups)) == len(frozenset().union(*groups))


RULES = {
    "api/conditions.py": r"Phase\.SUBMITTING, Phase\.SUBMIT_UNKNOWN\}|\{None, Phase\.WAITING"
    r"|Phase\.STARTING, Phase\.READY, Phase\.DEGRADED|\bPhase\([^)]*\)\.terminal",
    "slurmjob/policy/absence.py": r"complete_since\([^)]*\) *[<>=]|\.absent_snapshots",
    "slurmjob/policy/cancelling.py": r"now - [a-z.]*(cancelled_at|sent)\b",
    "slurmjob/policy/rotation.py": r"Phase\.READY or [a-z.]*reason == Reason\.LAST_IN_ROTATION",
    "api/slurmjob.py": r"ClusterReference\(\s*namespace=(?!self)[a-z.]*job[a-z.]*\.cluster_ref",
}


def _written() -> Iterator[tuple[str, str]]:
    for path in sorted(SOURCES.rglob("*.py")):
        yield path.relative_to(SOURCES).as_posix(), path.read_text(encoding="utf-8")


@pytest.mark.parametrize("home", RULES)
def test_a_rule_is_written_in_its_home_alone(home: str) -> None:
    """A copy would be forgotten when the rule changes."""
    rule = re.compile(RULES[home])
    copies = [name for name, text in _written() if name != home and rule.search(text)]
    assert copies == []
