"""Who is created next, for whom, and who is retired; or why nothing moves.

One step of the way from what is asked for now to the targets, never below them by our own hand:

* **Replacement first.** An available worker (ready and in the membership) goes only while more
  than the wanted number are available. So the new one serves before an old one goes; if it cannot
  be placed, the old ones stay.
* **A worker that does not serve is free to go** where it is surplus: an old revision that never
  became ready must not hold the GPUs that its correction needs.
* **A worker that serves but fails our probes** goes only while enough others serve, and one that
  was left in rotation only while enough others are in it: our view of it may be what fails.
* **One at a time.** All that is asked for stays within the targets plus the surge. A surplus worker
  that waits for resources is not counted, so that a full pool does not stop the others; one that
  fails is, so that a bad revision stops after its first worker.
* **A displaced worker is replaced like one of an old revision**, by a successor that is bound to
  it. One that does not serve stays until enough others are available, for what is wrong is where it
  runs. Those that end anyway and are due get their successors together, beyond the surge.
* **A pool that cannot be seen is left as it is.** What it has beyond its target is not counted
  either: it may be dead, and must not hold up the pool that is to take over.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from isthmus.backends.base import WAITING_FOR_PLACE, Worker, WorkerGroup
from isthmus.modeldeployment.policy.displacement.base import Displacement
from isthmus.slurmjob.policy.removal import removal_order


@dataclass(frozen=True, slots=True)
class Strategy:
    """How far a rollout goes at once.

    Attributes:
        surge: workers beyond the targets, over all pools.
    """

    surge: int = 1


@dataclass(frozen=True, slots=True)
class GroupKey:
    """Workers that are interchangeable: of one revision of one pool."""

    pool: str
    revision: str


@dataclass(frozen=True, slots=True)
class PoolState:
    """One pool as the rollout sees it.

    Attributes:
        target: workers wanted of the current revision.
        current: workers of the current revision (an empty group where there are none yet).
        others: of all other revisions, the oldest first.
        frozen: the backend cannot be seen: change nothing.
        startable: workers of the current revision that may be added now (back-off).
    """

    name: str
    target: int
    current: WorkerGroup
    others: tuple[WorkerGroup, ...] = ()
    frozen: bool = False
    startable: bool = True

    @property
    def groups(self) -> tuple[WorkerGroup, ...]:
        """All groups, that of the current revision first."""
        return (self.current, *self.others)


@dataclass(frozen=True, slots=True)
class Create:
    """One more worker; `replaces` names the displaced one that it is bound to, if any."""

    key: GroupKey
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Retire:
    """One worker less; `worker` is None for a replica that was asked for and has no pod yet."""

    key: GroupKey
    worker: str | None


class Hold(StrEnum):
    """What a step waits for; of several, the first one in this order is told."""

    UNSEEN = "Unseen"
    """Nothing is known of the pool's scheduler now."""
    NOT_STARTABLE = "NotStartable"
    """The pool's workers fail and the next waits, or its cluster takes no new ones."""
    ROOM = "Room"
    """As many workers as may exist at once do: one of them has to serve first."""
    AVAILABILITY = "Availability"
    """A worker that goes is needed until another one is available."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why nothing moves although the targets are not reached, and the first pool that waits so."""

    pool: str
    hold: Hold


@dataclass(frozen=True, slots=True)
class Step:
    """Who is created and who is retired, in order; `blocked` only if that is nobody."""

    create: tuple[Create, ...] = ()
    retire: tuple[Retire, ...] = ()
    blocked: Blocked | None = None

    def created(self, key: GroupKey) -> tuple[Create, ...]:
        """What a group gets."""
        return tuple(one for one in self.create if one.key == key)

    def retired(self, key: GroupKey) -> tuple[Retire, ...]:
        """What a group loses."""
        return tuple(one for one in self.retire if one.key == key)


def key_of(group: WorkerGroup) -> GroupKey:
    """The key of a group."""
    return GroupKey(pool=group.pool, revision=group.revision)


def _costs_nothing(worker: Worker) -> bool:
    return not (worker.serving or worker.available)


@dataclass(slots=True)
class _Budget:
    """What may still be taken away in this step, over all pools.

    Attributes:
        reached: as many workers as are wanted are available.
    """

    available: int
    serving: int
    rotating: int
    reached: bool

    def takes(self, worker: Worker | None, *, displaced: bool) -> bool:
        """Whether this worker may go now; what it costs is used up."""
        if worker is None or _costs_nothing(worker):
            return self.reached or not displaced
        costs = (worker.available, worker.serving, worker.available or worker.in_rotation)
        left = (self.available, self.serving, self.rotating)
        if any(cost and not rest for cost, rest in zip(costs, left, strict=True)):
            return False
        self.available -= costs[0]
        self.serving -= costs[1]
        self.rotating -= costs[2]
        return True


@dataclass(slots=True)
class _Course:
    """The step while it is being made.

    Attributes:
        displaced: by worker, those that are due.
        counts: workers asked for, by group, after what was decided so far.
    """

    displaced: Mapping[str, Displacement]
    counts: dict[GroupKey, int]
    create: list[Create] = field(default_factory=list)
    retire: list[Retire] = field(default_factory=list)
    blocked: Blocked | None = None

    def hold(self, pool: PoolState, hold: Hold) -> None:
        """Note why a pool waits; the cause that stands first in `Hold` is kept."""
        order = list(Hold)
        if self.blocked is None or order.index(hold) < order.index(self.blocked.hold):
            self.blocked = Blocked(pool=pool.name, hold=hold)

    def leaving(self, pool: PoolState) -> list[Worker]:
        """Displaced workers of the current revision that stay in this step."""
        return [worker for worker in self.staying(pool) if worker.name in self.displaced]

    def goes(self, worker: Worker) -> bool:
        """Whether it ends once its successor serves."""
        found = self.displaced.get(worker.name)
        return found is not None and not found.on_trial

    def staying(self, pool: PoolState) -> list[Worker]:
        """Workers of the current revision that stay in this step."""
        gone = {one.worker for one in self.retire}
        return [worker for worker in pool.current.live_workers if worker.name not in gone]


def next_step(
    pools: Sequence[PoolState],
    *,
    strategy: Strategy,
    displaced: Sequence[Displacement] = (),
    now: float,
) -> Step:
    """One step of scaling, updating and replacing.

    Args:
        pools: all pools, including those no longer in the specification (target 0), in the order
            in which they are filled.
        strategy: how far it goes at once.
        displaced: workers to be replaced, each named once; those of other revisions than the
            current one are replaced anyway.
        now: epoch seconds.
    """
    target = sum(pool.target for pool in pools)
    groups = [group for pool in pools for group in pool.groups]
    available = sum(group.available for group in groups)
    budget = _Budget(
        available=max(0, available - target),
        serving=max(0, sum(group.serving for group in groups) - target),
        rotating=max(0, sum(group.rotating for group in groups) - target),
        reached=available >= target,
    )
    course = _Course(
        displaced={one.worker: one for one in displaced if one.due(now=now)},
        counts={key_of(group): group.wanted for group in groups},
    )
    for pool in pools:
        if not pool.frozen:
            _shrink(pool, course, budget)
        elif pool.current.wanted != pool.target or any(one.wanted for one in pool.others):
            course.hold(pool, Hold.UNSEEN)
    surge = max(strategy.surge, _involuntary(pools, course))
    room = target + surge - sum(course.counts.values())
    room += sum(_excused(pool, course) for pool in pools)
    for pool in pools:
        room -= _grow(pool, course, room=room)
    moves = bool(course.create or course.retire)
    return Step(
        create=tuple(course.create),
        retire=tuple(course.retire),
        blocked=None if moves else course.blocked,
    )


def _standing(group: WorkerGroup) -> list[Worker | None]:
    """Who stands for the number that is asked for, the cheapest to lose first.

    Replicas without a pod are None. Of pods beyond the number the cheapest are on their way out.
    """
    live: list[Worker | None] = [*sorted(group.live_workers, key=removal_order)]
    beyond = len(live) - group.wanted
    return live[beyond:] if beyond >= 0 else [*[None] * -beyond, *live]


def _shrink(pool: PoolState, course: _Course, budget: _Budget) -> None:
    for group in pool.others:
        _retire(pool, group, _standing(group), course, budget)
    standing = _standing(pool.current)
    good = [w for w in standing if w is None or not course.goes(w)]
    beside = {w.replaces for w in standing if w is not None}
    tried = sum(w is not None and w.name in course.displaced and w.name in beside for w in good)
    surplus = good[: max(0, len(good) - tried - pool.target)]
    leaving = [w for w in standing if w is not None and course.goes(w)]
    succeeded = {worker.replaces for worker in pool.current.workers if worker.available}
    leaving.sort(key=lambda worker: worker.name not in succeeded)
    _retire(pool, pool.current, [*_order(surplus, leaving)], course, budget)


def _order(surplus: Sequence[Worker | None], leaving: Sequence[Worker]) -> Iterable[Worker | None]:
    """Those that cost nothing first, then the displaced ones, then the rest of the surplus."""
    yield from (worker for worker in surplus if worker is None or _costs_nothing(worker))
    yield from leaving
    yield from (worker for worker in surplus if worker and not _costs_nothing(worker))


def _retire(
    pool: PoolState,
    group: WorkerGroup,
    candidates: Sequence[Worker | None],
    course: _Course,
    budget: _Budget,
) -> None:
    key = key_of(group)
    for worker in candidates:
        displaced = group is pool.current and worker is not None and worker.name in course.displaced
        if budget.takes(worker, displaced=displaced):
            course.retire.append(Retire(key=key, worker=None if worker is None else worker.name))
            course.counts[key] -= 1
        else:
            course.hold(pool, Hold.AVAILABILITY)


def _involuntary(pools: Sequence[PoolState], course: _Course) -> int:
    """Displaced workers that go anyway and whose successors are due."""
    leaving = [w for pool in pools if not pool.frozen for w in course.leaving(pool)]
    return sum(course.displaced[worker.name].involuntary for worker in leaving)


def _grow(pool: PoolState, course: _Course, *, room: int) -> int:
    """Add to a pool what fits; returns how many."""
    key = key_of(pool.current)
    leaving = course.leaving(pool)
    wanted = max(0, pool.target - (course.counts[key] - len(leaving)))
    if pool.frozen or not wanted:
        return 0
    if not pool.startable or room <= 0:
        course.hold(pool, Hold.ROOM if pool.startable else Hold.NOT_STARTABLE)
        return 0
    growth = min(wanted, room)
    # A successor that goes in this very step, since its own node is drained, is nobody's any more.
    succeeded = {worker.replaces for worker in course.staying(pool)}
    bound = sorted(
        (course.displaced[w.name] for w in leaving if w.name not in succeeded),
        key=lambda one: (not one.involuntary, one.ready_by or 0.0, one.worker),
    )
    missing = max(0, wanted - len(bound))  # ones that nobody is there to be replaced for
    names = [*[None] * missing, *(one.worker for one in bound)]
    course.create += [Create(key=key, replaces=name) for name in names[:growth]]
    course.counts[key] += growth
    return growth


def _excused(pool: PoolState, course: _Course) -> int:
    """Workers beyond the target that do not count: out of sight, or waiting for a place.

    The latter are new workers of a pool whose old ones still serve.
    """
    old = sum(course.counts[key_of(group)] for group in pool.others)
    if pool.frozen:
        return max(0, old + course.counts[key_of(pool.current)] - pool.target)
    old += len(course.leaving(pool))
    if not old:
        return 0
    waiting = sum(
        worker.live
        and worker.pending is not None
        and worker.pending.pending_class in WAITING_FOR_PLACE
        for worker in pool.current.workers
    )
    return min(waiting, old)
