"""Which slots new attempts take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.modeldeployment.policy.slots import free_slots


@pytest.mark.parametrize(
    ("taken", "count", "expected"),
    [
        ((), 0, ()),
        ((), 3, (0, 1, 2)),
        ((0, 1), 1, (2,)),
        ((0, 2), 2, (1, 3)),
        ((1, 2, 3), 2, (0, 4)),
    ],
)
def test_smallest_free_ones(taken: tuple[int, ...], count: int, expected: tuple[int, ...]) -> None:
    assert free_slots(taken=taken, count=count) == expected


@given(taken=st.frozensets(st.integers(0, 30)), count=st.integers(0, 20))
def test_distinct_free_and_dense(taken: frozenset[int], count: int) -> None:
    slots = free_slots(taken=taken, count=count)
    assert len(set(slots)) == count
    assert list(slots) == sorted(slots)
    assert not set(slots) & taken
    if slots:
        assert set(range(slots[-1])) <= taken | set(slots)
