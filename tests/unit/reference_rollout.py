"""The rollout as it was while it spoke in counts: what a step without displacements must equal.

Kept as an independent reference for a property test; nothing else reads it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from isthmus.backends.base import WAITING_FOR_PLACE, WorkerGroup
from isthmus.modeldeployment.policy.rollout import PoolState

SURGE = 1


@dataclass(slots=True)
class _Budget:
    """What may still be taken away in this step, over all pools."""

    available: int
    serving: int
    rotating: int


Counts: TypeAlias = Mapping[tuple[str, str], int]


def next_step(pools: Sequence[PoolState]) -> Counts:
    """One step of scaling and updating.

    Args:
        pools: all pools, including those no longer in the specification (target 0), in the order
            in which they are filled.

    Returns:
        (pool, revision) to the number of workers to ask for, for every group of every pool.
    """
    target = sum(pool.target for pool in pools)
    groups = [group for pool in pools for group in (pool.current, *pool.others)]
    budget = _Budget(
        available=max(0, sum(group.available for group in groups) - target),
        serving=max(0, sum(group.serving for group in groups) - target),
        rotating=max(0, sum(group.rotating for group in groups) - target),
    )
    counts = {(group.pool, group.revision): group.wanted for group in groups}
    for pool in pools:
        if not pool.frozen:
            _shrink(pool, counts, budget)
    room = target + SURGE - sum(counts.values()) + sum(_excused(pool, counts) for pool in pools)
    for pool in pools:
        if pool.frozen or not pool.startable:
            continue
        key = (pool.name, pool.current.revision)
        growth = max(0, min(pool.target - counts[key], room))
        counts[key] += growth
        room -= growth
    return counts


def _shrink(pool: PoolState, counts: dict[tuple[str, str], int], budget: _Budget) -> None:
    surplus_by_group = [(group, group.wanted) for group in pool.others]
    surplus_by_group.append((pool.current, max(0, pool.current.wanted - pool.target)))
    for group, surplus in surplus_by_group:
        removed = _removable(group, surplus, budget)
        counts[group.pool, group.revision] -= removed


def _removable(group: WorkerGroup, surplus: int, budget: _Budget) -> int:
    """How many of a group may go now, the cheapest first; uses up the budget."""
    idle = min(surplus, max(0, group.wanted - group.serving))
    kept = max(0, group.rotating - group.available)  # they fail our probes and are members still
    ejected = max(0, group.serving - group.available - kept)
    out = min(surplus - idle, ejected, budget.serving)
    budget.serving -= out
    members = min(surplus - idle - out, kept, budget.serving, budget.rotating)
    budget.serving -= members
    budget.rotating -= members
    rest = surplus - idle - out - members
    available = min(rest, group.available, budget.available, budget.serving, budget.rotating)
    budget.available -= available
    budget.serving -= available
    budget.rotating -= available
    return idle + out + members + available


def _excused(pool: PoolState, counts: Counts) -> int:
    """Workers beyond the target that do not count: out of sight, or waiting for a place.

    The latter are new workers of a pool whose old ones still serve.
    """
    old = sum(counts[group.pool, group.revision] for group in pool.others)
    if pool.frozen:
        return max(0, old + counts[pool.name, pool.current.revision] - pool.target)
    if not old:
        return 0
    waiting = sum(
        worker.live
        and worker.pending is not None
        and worker.pending.pending_class in WAITING_FOR_PLACE
        for worker in pool.current.workers
    )
    return min(waiting, old)
