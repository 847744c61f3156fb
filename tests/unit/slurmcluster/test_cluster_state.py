"""What is concluded from one snapshot after another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isthmus.api.desired import ClusterReference
from isthmus.errors import SlurmUnavailableError
from isthmus.slurmcluster.state import ClusterState, ClusterStates
from tests.unit.builders import JOB_NAME, NOW, node, record, snapshot

DOWN = SlurmUnavailableError("slurmctld does not answer", reason="ControllerUnreachable")


@pytest.fixture
def state() -> ClusterState:
    return ClusterState(stale_after=90.0)


class TestFreshness:
    def test_nothing_is_known_at_first(self, state: ClusterState) -> None:
        assert not state.fresh(now=NOW)
        assert state.why_not_fresh(now=NOW)[0] == "NotObservedYet"
        assert state.snapshot_starts == ()

    @pytest.mark.parametrize(("age", "fresh"), [(0, True), (89, True), (91, False)])
    def test_a_snapshot_ages(self, state: ClusterState, age: float, fresh: bool) -> None:
        state.take(snapshot(at=NOW))
        assert state.fresh(now=NOW + 0.2 + age) is fresh
        reason, message = state.why_not_fresh(now=NOW + 0.2 + age)
        assert reason == "SnapshotStale"
        assert f"{age} s" in message

    def test_a_failure_counts_at_once_and_until_the_next_snapshot(
        self, state: ClusterState
    ) -> None:
        state.take(snapshot(record(), at=NOW))
        state.fail(DOWN)
        assert not state.fresh(now=NOW + 1)
        reason, message = state.why_not_fresh(now=NOW + 1)
        assert reason == "ControllerUnreachable"
        assert "slurmctld does not answer" in message
        # What was seen last is kept: a failed look is no absence.
        assert [one.job_id for one in state.records(JOB_NAME)] == [101]
        assert state.last_seen(JOB_NAME) == NOW
        state.take(snapshot(record(), at=NOW + 30))
        assert state.fresh(now=NOW + 31)

    def test_only_a_new_cause_is_news(self, state: ClusterState) -> None:
        assert state.fail(DOWN)
        assert not state.fail(SlurmUnavailableError(str(DOWN), reason=DOWN.reason))
        assert state.fail(SlurmUnavailableError("munge refuses", reason="AuthenticationFailed"))
        state.take(snapshot())
        assert state.fail(DOWN)


class TestRecords:
    def test_names_match_as_a_whole(self, state: ClusterState) -> None:
        state.take(snapshot(record(), record(name=f"{JOB_NAME}-8b", job_id=9)))
        assert [one.job_id for one in state.records(JOB_NAME)] == [101]
        assert state.records(JOB_NAME[:-1]) == ()

    def test_all_of_one_name(self, state: ClusterState) -> None:
        state.take(snapshot(record(), record("FAILED", job_id=102)))
        assert [one.job_id for one in state.records(JOB_NAME)] == [101, 102]

    def test_what_changed_is_told(self, state: ClusterState) -> None:
        other = record(name="other-job", job_id=7)
        assert state.take(snapshot(record(), other)).jobs == {JOB_NAME, "other-job"}
        assert state.take(snapshot(record(), other, at=NOW + 30)).jobs == frozenset()
        assert state.take(snapshot(record("COMPLETING"), other, at=NOW + 60)).jobs == {JOB_NAME}
        assert state.take(snapshot(other, at=NOW + 90)).jobs == {JOB_NAME}
        assert state.take(snapshot(other, at=NOW + 120)).jobs == frozenset()

    def test_a_node_that_is_drained_and_resumed_is_told(self, state: ClusterState) -> None:
        """It was noticed at the next resync only, though each look shows it."""

        def draining(*words: str, reason: str = "") -> bool:
            found = replace(node(), states=frozenset(words), reason=reason)
            return state.take(snapshot(nodes=[found])).draining

        assert not draining("MIXED")
        assert draining("MIXED", "DRAIN", reason="disk")
        assert not draining("MIXED", "DRAIN", reason="disk")
        assert draining("MIXED", "DRAIN", reason="disk and memory")
        assert draining("MIXED")
        assert not draining("IDLE")

    def test_a_snapshot_without_a_name_is_no_sight_of_it(self, state: ClusterState) -> None:
        state.take(snapshot(record(), at=NOW))
        state.take(snapshot(at=NOW + 30))
        assert state.records(JOB_NAME) == ()
        assert state.last_seen(JOB_NAME) == NOW

    def test_the_memory_is_bounded(self, state: ClusterState) -> None:
        state.take(snapshot(record(), at=NOW))
        for number in range(1, 20):
            state.take(snapshot(at=NOW + 30 * number))
        assert state.last_seen(JOB_NAME) is None
        starts = state.snapshot_starts
        assert len(starts) == 8
        assert starts[-1] == NOW + 570
        assert list(starts) == sorted(starts)


class TestConfirmedGone:
    def test_a_job_that_shows_up_again_is_not_gone(self, state: ClusterState) -> None:
        state.confirmed_gone.add((101, JOB_NAME))
        state.confirmed_gone.add((7, "other-job"))
        state.take(snapshot(at=NOW))
        assert (101, JOB_NAME) in state.confirmed_gone
        state.take(snapshot(record(), at=NOW + 30))
        assert state.confirmed_gone == {(7, "other-job")}


def test_states_of_several_clusters() -> None:
    states = ClusterStates()
    one = ClusterReference(namespace="isthmus-system", name="hpc")
    two = ClusterReference(namespace="team-a", name="hpc")
    states.put(one, ClusterState(stale_after=1.0))
    assert states.get(two) is None
    states.put(two, ClusterState(stale_after=2.0))
    assert set(states.references()) == {one, two}
    states.drop(one)
    states.drop(one)
    assert states.get(one) is None
    found = states.get(two)
    assert found is not None
    assert found.stale_after == 2.0
