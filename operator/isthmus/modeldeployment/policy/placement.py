"""How many replicas each pool gets.

Pools in falling `priority`, ties in the order of the list. First every pool's `minReplicas` in
that order, then each pool is filled to `maxReplicas`. Never more than `replicas` in all: a scale
to zero means zero, whatever the minimums say.
"""

from collections.abc import Mapping, Sequence

from isthmus.api.desired import Pool


def by_priority(pools: Sequence[Pool]) -> tuple[Pool, ...]:
    """Pools in the order in which they are filled (sorting is stable, so ties keep their order)."""
    return tuple(sorted(pools, key=lambda pool: -pool.priority))


def place(*, replicas: int, pools: Sequence[Pool]) -> Mapping[str, int]:
    """Spread replicas over the pools.

    Args:
        replicas: workers wanted in all, >= 0.
        pools: with distinct names.

    Returns:
        Pool name to number of workers; the sum is at most `replicas`, and less only where every
        pool is at its `maxReplicas`.
    """
    ordered = by_priority(pools)
    placed: dict[str, int] = {}
    remaining = replicas
    for pool in ordered:
        placed[pool.name] = min(pool.min_replicas, remaining)
        remaining -= placed[pool.name]
    for pool in ordered:
        room = remaining if pool.max_replicas is None else pool.max_replicas - placed[pool.name]
        added = max(0, min(room, remaining))
        placed[pool.name] += added
        remaining -= added
    return placed
