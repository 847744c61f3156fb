"""The line in front of sbatch: few under way, all of them called in order, no place lost."""

from __future__ import annotations

from isthmus.api.desired import ClusterReference
from isthmus.apiserver.key import Key
from isthmus.slurmcluster.submission_line import CALL_LASTS, UNDER_WAY, SubmissionLine, Turn
from isthmus.slurmjob.observation import Limits

HPC = ClusterReference(namespace="isthmus-system", name="hpc")
OTHER = ClusterReference(namespace="isthmus-system", name="other")


class Lab:
    def __init__(self) -> None:
        self.now = 0.0
        self.called: list[Key] = []
        self.line = SubmissionLine(wake=self.called.append, clock=lambda: self.now)

    def enter(self, number: int, cluster: ClusterReference = HPC) -> Turn:
        return self.line.enter(cluster, key(number))


def key(number: int) -> Key:
    return Key("SlurmJob", "team-a", f"job-{number}")


def full() -> Lab:
    """With as many under way as there are places, and three more that wait."""
    lab = Lab()
    assert {lab.enter(number) for number in range(UNDER_WAY)} == {Turn.NOW}
    assert {lab.enter(number) for number in (100, 101, 102)} == {Turn.JOINED}
    return lab


def test_only_few_are_under_way_and_clusters_do_not_wait_for_each_other() -> None:
    lab = full()
    assert lab.enter(100) is Turn.WAITING
    assert lab.enter(200, OTHER) is Turn.NOW
    assert lab.called == []


def test_below_the_number_from_which_on_nothing_is_submitted() -> None:
    limits = Limits(submit_unknown_wait=1, deregister_delay=1, termination_grace=1)
    assert limits.max_unresolved > UNDER_WAY


def test_who_leaves_calls_the_next_and_its_place_is_kept() -> None:
    lab = full()
    lab.line.leave(HPC, key(0))
    assert lab.called == [key(100)]
    assert lab.enter(0) is Turn.JOINED, "the place is for the one that was called"
    assert lab.enter(100) is Turn.NOW
    lab.line.leave(HPC, key(1))
    lab.line.leave(HPC, key(2))
    assert lab.called == [key(100), key(101), key(102)]


def test_one_that_does_not_come_when_called_loses_its_place() -> None:
    lab = full()
    lab.line.leave(HPC, key(0))
    lab.now += CALL_LASTS
    assert lab.enter(102) is Turn.WAITING, "another one is called first"
    assert lab.called == [key(100), key(101)]
    assert lab.enter(101) is Turn.NOW
    assert lab.enter(100) is Turn.JOINED


def test_m8_another_namespace_is_next_however_many_wait() -> None:
    lab = full()
    for number in range(200, 700):
        lab.enter(number)
    other = Key("SlurmJob", "team-b", "job-1")
    assert lab.line.enter(HPC, other) is Turn.JOINED
    lab.line.leave(HPC, key(0))
    lab.line.leave(HPC, key(1))
    assert other in lab.called


def test_who_is_held_back_when_called_keeps_no_place_from_the_next() -> None:
    lab = full()
    lab.line.leave(HPC, key(0))
    lab.line.withdraw(HPC, key(101))
    lab.line.withdraw(HPC, key(100))
    assert lab.called == [key(100), key(102)]
    lab.line.withdraw(HPC, key(102))
    lab.line.withdraw(OTHER, key(102))
    assert lab.enter(300) is Turn.NOW


def test_everybody_gets_a_turn() -> None:
    lab = Lab()
    submitted: set[int] = set()
    under_way = [number for number in range(50) if lab.enter(number) is Turn.NOW]
    while under_way:
        assert len(under_way) <= UNDER_WAY
        submitted.add(gone := under_way.pop(0))
        lab.line.leave(HPC, key(gone))
        called, lab.called[:] = list(lab.called), []
        for each in called:
            number = int(each.name.removeprefix("job-"))
            assert lab.enter(number) is Turn.NOW
            under_way.append(number)
    assert submitted == set(range(50))
