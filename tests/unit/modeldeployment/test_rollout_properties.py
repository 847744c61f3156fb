"""One step of scaling and updating, and where many of them lead: properties."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.backends.base import WAITING_FOR_PLACE, Worker, WorkerGroup
from isthmus.modeldeployment.policy.rollout import PoolState, Strategy, key_of
from isthmus.modeldeployment.policy.rollout import next_step as next_named_step
from isthmus.slurmjob.policy.removal import removal_order
from tests.unit import reference_rollout
from tests.unit.builders import NOW, asked, group, worker

Counts = Mapping[tuple[str, str], int]


def next_step(pools: Sequence[PoolState]) -> Counts:
    """What is asked for after a step without displacements."""
    return asked(pools, next_named_step(pools, strategy=Strategy(), now=NOW))


OLD = ("ready", "joining", "degraded", "starting", "pending", "crashing", "stopping", "failed")
STATES = st.lists(st.sampled_from(OLD), max_size=4)


@st.composite
def some_groups(
    draw: st.DrawFn, *, pool: str, revision: str, shrinking: bool = True
) -> WorkerGroup:
    states = draw(STATES)
    backend = "slurm" if pool == "p2" else "kubernetes"
    live = sum(state not in {"stopping", "failed"} for state in states)
    wanted = draw(st.just(live) | st.integers(0 if shrinking else live, 5))
    return group(*states, pool=pool, revision=revision, backend=backend, wanted=wanted)  # type: ignore[arg-type]


@st.composite
def some_pools(
    draw: st.DrawFn, *, held: bool = True, shrinking: bool = True
) -> tuple[PoolState, ...]:
    """Pools in any state; `shrinking`: Deployments may still have more pods than they want."""
    found = []
    for index in range(draw(st.integers(1, 3))):
        name = f"p{index}"
        found.append(
            PoolState(
                name=name,
                target=draw(st.integers(0, 4)),
                current=draw(some_groups(pool=name, revision="new", shrinking=shrinking)),
                others=tuple(
                    draw(some_groups(pool=name, revision=f"old{number}"))
                    for number in range(draw(st.integers(0, 2)))
                ),
                frozen=held and draw(st.booleans()),
                startable=not held or draw(st.booleans()),
            )
        )
    return tuple(found)


def groups_of(pools: tuple[PoolState, ...]) -> list[WorkerGroup]:
    return [one for pool in pools for one in (pool.current, *pool.others)]


def applied(
    pools: tuple[PoolState, ...], counts: Counts, change: Callable[[WorkerGroup, int], WorkerGroup]
) -> tuple[PoolState, ...]:
    def of(one: WorkerGroup) -> WorkerGroup:
        return change(one, counts[one.pool, one.revision])

    return tuple(
        replace(pool, current=of(pool.current), others=tuple(of(one) for one in pool.others))
        for pool in pools
    )


def cheapest_first(one: Worker) -> tuple[int, str]:
    """The order in which both backends take workers away."""
    return (2 if one.available else 1 if one.serving else 0), one.name


def brought_about(before: WorkerGroup, count: int) -> WorkerGroup:
    """A group after its backend has done what was asked; nothing new is ready."""
    live = sorted(before.live_workers, key=cheapest_first)
    kept = live[max(0, len(live) - count) :]
    born = [
        worker(
            f"{before.pool}-{before.revision}-born-{len(before.workers) + number}",
            state="starting",
            pool=before.pool,
            backend=before.backend,
            revision=before.revision,
        )
        for number in range(count - len(kept))
    ]
    return replace(before, wanted=count, exists=True, workers=(*kept, *born))


@settings(max_examples=500)
@given(some_pools())
def test_a_step_without_displacements_is_the_one_that_spoke_in_counts(
    pools: tuple[PoolState, ...],
) -> None:
    """The numbers, and of jobs the names: those that were chosen later by the order of removal."""
    step = next_named_step(pools, strategy=Strategy(), now=NOW)
    counts = reference_rollout.next_step(pools)
    assert asked(pools, step) == counts
    assert all(one.replaces is None for one in step.create)
    for one in groups_of(pools):
        gone = [retired.worker for retired in step.retired(key_of(one))]
        if one.backend == "slurm":
            cheapest = sorted(one.live_workers, key=removal_order)
            assert (
                gone
                == [w.name for w in cheapest][: max(0, one.wanted - counts[one.pool, one.revision])]
            )


@given(some_pools())
def test_nothing_moves_for_a_reason_or_because_all_is_as_wanted(
    pools: tuple[PoolState, ...],
) -> None:
    step = next_named_step(pools, strategy=Strategy(), now=NOW)
    if step.create or step.retire:
        assert step.blocked is None
    else:
        assert (step.blocked is None) is _settled(pools)


@given(some_pools(shrinking=False))
def test_a_second_step_asks_for_nothing_new(pools: tuple[PoolState, ...]) -> None:
    """Unless a Deployment grows again before it has shrunk: it keeps pods that were to go."""
    counts = next_step(pools)
    asked = applied(pools, counts, lambda before, count: replace(before, wanted=count))
    # Jobs are counted as they exist; of pods the Deployment's number counts.
    asked = applied(
        asked, counts, lambda before, count: brought_about(before, count)
        if before.backend == "slurm" else before
    )  # fmt: skip
    assert next_step(asked) == counts
    done = applied(pools, counts, brought_about)
    assert next_step(done) == counts


@given(some_pools())
def test_no_step_takes_away_what_is_needed(pools: tuple[PoolState, ...]) -> None:
    counts = next_step(pools)
    target = sum(pool.target for pool in pools)
    before = groups_of(pools)
    after = [replace(one, wanted=counts[one.pool, one.revision]) for one in before]
    available = sum(one.available for one in before)
    serving = sum(one.serving for one in before)
    assert sum(one.available for one in after) >= min(available, target)
    assert sum(one.serving for one in after) >= min(serving, target)


@given(some_pools())
def test_no_step_asks_for_too_much(pools: tuple[PoolState, ...]) -> None:
    counts = next_step(pools)
    target = sum(pool.target for pool in pools)
    grown = False
    for pool in pools:
        for one in (pool.current, *pool.others):
            count = counts[one.pool, one.revision]
            assert count >= 0
            if pool.frozen:
                assert count == one.wanted
            if count > one.wanted:
                assert one is pool.current
                assert pool.startable
                assert count <= pool.target
                grown = True
    if grown:
        excused = sum(_excused(pool, counts) for pool in pools)
        assert sum(counts.values()) <= target + Strategy().surge + excused


def _excused(pool: PoolState, counts: Counts) -> int:
    """Surplus that waits for a place, and surplus that cannot be taken away."""
    asked = sum(counts[one.pool, one.revision] for one in (pool.current, *pool.others))
    if pool.frozen:
        return max(0, asked - pool.target)
    waiting = sum(
        one.live and one.pending is not None and one.pending.pending_class in WAITING_FOR_PLACE
        for one in pool.current.workers
    )
    return min(waiting, sum(counts[one.pool, one.revision] for one in pool.others))


@given(some_pools(held=False))
def test_zero_is_reached_in_one_step(pools: tuple[PoolState, ...]) -> None:
    counts = next_step([replace(pool, target=0) for pool in pools])
    assert set(counts.values()) == {0}


@settings(max_examples=200)
@given(pools=some_pools(held=False), random=st.randoms(use_true_random=False))
def test_from_anywhere_to_the_targets(pools: tuple[PoolState, ...], random: object) -> None:
    """Applied again and again, while workers of the new revision become ready one by one."""
    target = sum(pool.target for pool in pools)
    for _ in range(80):
        counts = next_step(pools)
        before = sum(one.available for one in groups_of(pools))
        pools = applied(pools, counts, brought_about)
        assert sum(one.available for one in groups_of(pools)) >= min(before, target)
        if _settled(pools):
            break
        pools = _one_more_ready(pools, random)
    assert _settled(pools)
    assert next_step(pools) == {(one.pool, one.revision): one.wanted for one in groups_of(pools)}
    assert sum(one.available for one in groups_of(pools)) <= target


def _settled(pools: tuple[PoolState, ...]) -> bool:
    return all(
        pool.current.wanted == pool.target and not any(one.wanted for one in pool.others)
        for pool in pools
    )


def _one_more_ready(pools: tuple[PoolState, ...], random: object) -> tuple[PoolState, ...]:
    """Let any one live worker of a current revision become available."""
    waiting = [one for pool in pools for one in pool.current.live_workers if not one.available]
    if not waiting:
        return pools
    chosen = random.choice(waiting)  # type: ignore[attr-defined]
    ready = worker(chosen.name, pool=chosen.pool, backend=chosen.backend, revision=chosen.revision)

    def changed(one: WorkerGroup) -> WorkerGroup:
        return replace(one, workers=tuple(ready if w is chosen else w for w in one.workers))

    return tuple(replace(pool, current=changed(pool.current)) for pool in pools)


@given(old=st.integers(1, 5), target=st.integers(1, 5), steps=st.integers(1, 12))
def test_a_revision_that_never_serves_never_costs_an_old_worker(
    old: int, target: int, steps: int
) -> None:
    pools: tuple[PoolState, ...] = (
        PoolState(
            name="k8s",
            target=target,
            current=group(),
            others=(group(*["ready"] * old, revision="old"),),
        ),
    )
    for _ in range(steps):
        pools = applied(pools, next_step(pools), brought_about)
        crashing = tuple(
            worker(one.name, state="crashing", revision=one.revision)
            for one in pools[0].current.workers
        )
        pools = (replace(pools[0], current=replace(pools[0].current, workers=crashing)),)
    assert pools[0].others[0].available == min(old, target)
    assert pools[0].current.wanted <= max(1, target + 1 - old)
