"""Workers that are to be replaced while they run, whatever the source: tables and properties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.api.conditions import Reason
from isthmus.backends.base import Worker, WorkerGroup
from isthmus.modeldeployment.policy.displacement.base import Displacement
from isthmus.modeldeployment.policy.rollout import (
    Blocked,
    Create,
    GroupKey,
    Hold,
    PoolState,
    Retire,
    Step,
    Strategy,
    next_step,
)
from tests.unit.builders import NOW, slurm_group, slurm_worker

KEY = GroupKey(pool="hpc", revision="new")


def displaced(
    worker: str, *, involuntary: bool = False, ready_by: float | None = None
) -> Displacement:
    return Displacement(
        worker=worker,
        reason=Reason.JOB_TIME_LIMIT,
        message="because",
        involuntary=involuntary,
        ready_by=ready_by,
    )


def pool(target: int, *states: str, replaces: Sequence[str | None] = ()) -> PoolState:
    """A pool of jobs `hpc-new-<n>`; `replaces` says whom the last ones of them were made for."""
    found = slurm_group(*states)
    first = len(states) - len(replaces)
    workers = (
        *found.workers[:first],
        *(replace(w, replaces=r) for w, r in zip(found.workers[first:], replaces, strict=True)),
    )
    return PoolState(name="hpc", target=target, current=replace(found, workers=workers))


def step(state: PoolState, *found: Displacement, surge: int = 1) -> Step:
    return next_step([state], strategy=Strategy(surge=surge), displaced=found, now=NOW)


class TestVoluntary:
    def test_the_successor_comes_first_and_is_bound(self) -> None:
        found = step(pool(2, "ready", "ready"), displaced("hpc-new-0"))
        assert found == Step(create=(Create(key=KEY, replaces="hpc-new-0"),))

    @pytest.mark.parametrize("state", ["pending", "starting", "joining"])
    def test_it_stays_until_the_successor_is_available(self, state: str) -> None:
        waits = pool(2, "ready", "ready", state, replaces=["hpc-new-0"])
        found = step(waits, displaced("hpc-new-0"))
        assert (found.create, found.retire) == ((), ())
        assert found.blocked == Blocked(pool="hpc", hold=Hold.AVAILABILITY)

    def test_then_it_goes_and_none_else(self) -> None:
        there = pool(2, "ready", "ready", "ready", replaces=["hpc-new-0"])
        assert step(there, displaced("hpc-new-0")).retire == (Retire(key=KEY, worker="hpc-new-0"),)

    def test_of_two_the_one_goes_whose_successor_is_there(self) -> None:
        there = pool(2, "ready", "ready", "ready", replaces=["hpc-new-1"])
        found = step(there, displaced("hpc-new-0"), displaced("hpc-new-1"))
        assert found.retire == (Retire(key=KEY, worker="hpc-new-1"),)
        assert found.create == (Create(key=KEY, replaces="hpc-new-0"),)

    def test_the_next_one_is_bound_too_where_the_successor_itself_has_to_go(self) -> None:
        """Seed 1986: its own node was drained while it loaded, and its own was made for nobody."""
        there = pool(1, "ready", "starting", replaces=["hpc-new-0"])
        found = step(there, displaced("hpc-new-0"), displaced("hpc-new-1"))
        assert found.retire == (Retire(key=KEY, worker="hpc-new-1"),)
        assert found.create == (Create(key=KEY, replaces="hpc-new-0"),)

    def test_two_are_replaced_one_after_the_other(self) -> None:
        both = displaced("hpc-new-0"), displaced("hpc-new-1")
        assert len(step(pool(2, "ready", "ready"), *both).create) == 1
        assert len(step(pool(2, "ready", "ready"), *both, surge=2).create) == 2

    def test_one_that_does_not_serve_stays_while_workers_are_missing(self) -> None:
        """It may serve yet, and the next one may find no place."""
        assert step(pool(2, "ready", "starting"), displaced("hpc-new-1")).retire == ()
        enough = pool(2, "ready", "starting", "ready", replaces=["hpc-new-1"])
        assert [r.worker for r in step(enough, displaced("hpc-new-1")).retire] == ["hpc-new-1"]

    def test_what_is_missing_comes_before_what_is_replaced(self) -> None:
        found = step(pool(3, "ready", "ready"), displaced("hpc-new-0"))
        assert [one.replaces for one in found.create] == [None, "hpc-new-0"]

    def test_a_displacement_that_is_over_lets_the_successor_go(self) -> None:
        back = pool(1, "ready", "starting", replaces=["hpc-new-0"])
        assert step(back).retire == (Retire(key=KEY, worker="hpc-new-1"),)

    def test_scaling_down_takes_the_displaced_one(self) -> None:
        found = step(pool(1, "ready", "ready"), displaced("hpc-new-0"))
        assert found == Step(retire=(Retire(key=KEY, worker="hpc-new-0"),))


class TestInvoluntary:
    BOTH = tuple(displaced(f"hpc-new-{n}", involuntary=True, ready_by=NOW) for n in (1, 0))

    def test_two_that_are_due_at_once_get_two_successors(self) -> None:
        found = step(pool(2, "ready", "ready"), *self.BOTH)
        assert [one.replaces for one in found.create] == ["hpc-new-0", "hpc-new-1"]

    def test_with_one_on_its_way_only_the_other_gets_one(self) -> None:
        one = pool(2, "ready", "ready", "starting", replaces=["hpc-new-1"])
        assert step(one, *self.BOTH).create == (Create(key=KEY, replaces="hpc-new-0"),)

    def test_before_it_is_due_nothing_happens(self) -> None:
        later = [replace(one, ready_by=NOW + 1) for one in self.BOTH]
        assert step(pool(2, "ready", "ready"), *later) == Step()

    def test_it_comes_before_one_without_hurry(self) -> None:
        found = step(pool(2, "ready", "ready"), displaced("hpc-new-0"), self.BOTH[0])
        assert [one.replaces for one in found.create] == ["hpc-new-1"]


@pytest.mark.parametrize(
    ("state", "hold"),
    [
        (pool(2, "ready", "ready", "crashing", replaces=["hpc-new-0"]), Hold.AVAILABILITY),
        (replace(pool(2, "ready", "ready"), frozen=True), None),
        (replace(pool(2, "ready", "ready"), startable=False), Hold.NOT_STARTABLE),
        (replace(pool(3, "ready", "ready"), frozen=True), Hold.UNSEEN),
    ],
)
def test_why_nothing_moves(state: PoolState, hold: Hold | None) -> None:
    found = step(state, displaced("hpc-new-0"))
    assert (found.create, found.retire) == ((), ())
    assert found.blocked == (None if hold is None else Blocked(pool="hpc", hold=hold))


STATES = ("ready", "joining", "degraded", "ejected", "starting", "pending", "crashing", "stopping")


@st.composite
def some_case(draw: st.DrawFn) -> tuple[PoolState, tuple[Displacement, ...]]:
    states = draw(st.lists(st.sampled_from(STATES), max_size=5))
    state = pool(draw(st.integers(0, 4)), *states)
    named = [w.name for w in state.current.workers]
    found = []
    for one in named:
        if draw(st.booleans()):
            when = draw(st.sampled_from([None, NOW - 1, NOW, NOW + 60]))
            found.append(displaced(one, involuntary=draw(st.booleans()), ready_by=when))
    old = slurm_group(*draw(st.lists(st.sampled_from(STATES), max_size=2)), revision="old")
    return replace(state, others=(old,)), tuple(found)


@given(case=some_case(), surge=st.integers(1, 3))
def test_what_every_step_keeps(
    case: tuple[PoolState, tuple[Displacement, ...]], surge: int
) -> None:
    state, found = case
    taken = step(state, *found, surge=surge)
    gone = {one.worker for one in taken.retire}
    live = [w for group in state.groups for w in group.live_workers]
    available = sum(w.available for w in live)
    kept = [w for w in live if w.name not in gone]
    assert len(gone) == len(taken.retire)
    assert gone <= {w.name for w in live}
    assert sum(w.available for w in kept) >= min(available, state.target)
    assert sum(w.serving for w in kept) >= min(sum(w.serving for w in live), state.target)
    bound = [one.replaces for one in taken.create if one.replaces is not None]
    due = {one.worker: one for one in found if one.due(now=NOW)}
    staying = {w.name for w in kept if w.revision == "new"}
    assert len(set(bound)) == len(bound)
    assert set(bound) <= set(due) & staying
    if taken.create:
        hurried = sum(due[name].involuntary for name in set(due) & staying)
        waiting = sum(w.phase == "Pending" for w in state.current.live_workers)
        most = state.target + max(surge, hurried) + waiting
        assert len(kept) + len(taken.create) <= most


def born(create: Create, number: int) -> Worker:
    name = f"born-{number}"
    return replace(slurm_worker(name, state="ready", slot=number), replaces=create.replaces)


@settings(max_examples=200)
@given(some_case())
def test_in_the_end_the_displaced_are_gone_and_the_targets_reached(
    case: tuple[PoolState, tuple[Displacement, ...]],
) -> None:
    """Applied again and again, while each successor comes to serve."""
    state, found = case
    least = min(sum(w.available for g in state.groups for w in g.live_workers), state.target)
    for number in range(40):
        taken = step(state, *found)
        if not taken.create and not taken.retire and _all_available(state):
            break
        gone = {one.worker for one in taken.retire}
        state = replace(
            state,
            current=_after(
                state.current,
                gone,
                [born(c, 100 + number * 9 + n) for n, c in enumerate(taken.create)],
            ),
            others=tuple(_after(one, gone, []) for one in state.others),
        )
        assert sum(w.available for g in state.groups for w in g.live_workers) >= least
    due = {one.worker for one in found if one.due(now=NOW)}
    left = [w for group in state.groups for w in group.live_workers]
    assert len(left) == state.target
    assert not due & {w.name for w in left}


def _after(group: WorkerGroup, gone: set[str | None], more: list[Worker]) -> WorkerGroup:
    """Whoever was on the way serves now; who was told to go is gone."""
    kept = [w for w in group.workers if w.live and w.name not in gone]
    workers = (
        *(
            slurm_worker(w.name, slot=w.slot, revision=w.revision, replaces=w.replaces)
            for w in kept
        ),
        *more,
    )
    return replace(group, wanted=len(workers), workers=workers)


def _all_available(state: PoolState) -> bool:
    return all(w.available for group in state.groups for w in group.live_workers)
