"""How many replicas each pool gets, and why.

Pools in falling `priority`, ties in the order of the list. First every pool's `minReplicas` in
that order, then each pool is filled to `maxReplicas`. Never more than `replicas` in all: a scale
to zero means zero, whatever the minimums say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isthmus.api.desired import Desired, Pool


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the replicas of a deployment go.

    Attributes:
        counts: pool name to number of workers; the sum is at most `replicas`, and less only where
            every pool is at its `maxReplicas`.
        why: pool name to what decided the number, for the status.
    """

    counts: Mapping[str, int]
    why: Mapping[str, str]

    @property
    def placed(self) -> int:
        """Workers over all pools."""
        return sum(self.counts.values())


def by_priority(pools: Sequence[Pool]) -> tuple[Pool, ...]:
    """Pools in the order in which they are filled (sorting is stable, so ties keep their order)."""
    return tuple(sorted(pools, key=lambda pool: -pool.priority))


def place(desired: Desired) -> Placement:
    """Spread the replicas of a deployment over its pools, whose names are distinct."""
    ordered = by_priority(desired.pools)
    counts: dict[str, int] = {}
    remaining = desired.replicas
    for pool in ordered:
        counts[pool.name] = min(pool.min_replicas, remaining)
        remaining -= counts[pool.name]
    for pool in ordered:
        room = remaining if pool.max_replicas is None else pool.max_replicas - counts[pool.name]
        added = max(0, min(room, remaining))
        counts[pool.name] += added
        remaining -= added
    return Placement(
        counts=counts, why={pool.name: _why(pool, count=counts[pool.name]) for pool in ordered}
    )


def _why(pool: Pool, *, count: int) -> str:
    if pool.max_replicas is not None and count == pool.max_replicas:
        return f"priority {pool.priority}; filled to maxReplicas {count}"
    if count and count == pool.min_replicas:
        return f"priority {pool.priority}; kept at minReplicas {count}"
    return f"priority {pool.priority}"
