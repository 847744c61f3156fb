"""Which slots new SLURM attempts take: the smallest free ones, as a StatefulSet does."""

from collections.abc import Collection


def free_slots(*, taken: Collection[int], count: int) -> tuple[int, ...]:
    """The `count` smallest non-negative numbers not in `taken`, ascending."""
    slots: list[int] = []
    candidate = 0
    while len(slots) < count:
        if candidate not in taken:
            slots.append(candidate)
        candidate += 1
    return tuple(slots)
