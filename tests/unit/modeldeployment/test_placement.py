"""How replicas are spread over pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.api.desired import Pool
from isthmus.modeldeployment.policy.placement import by_priority, place
from tests.unit.builders import desired, k8s_pool


def pool(name: str, priority: int = 0, low: int = 0, high: int | None = None) -> Pool:
    return k8s_pool(name, priority=priority, min_replicas=low, max_replicas=high)


def placed(replicas: int, pools: Sequence[Pool]) -> Mapping[str, int]:
    return place(desired(*pools, replicas=replicas)).counts


@pytest.mark.parametrize(
    ("replicas", "pools", "expected"),
    [
        pytest.param(3, [pool("a")], {"a": 3}, id="one pool takes all"),
        pytest.param(3, [pool("a"), pool("b")], {"a": 3, "b": 0}, id="ties in list order"),
        pytest.param(3, [pool("a"), pool("b", 10)], {"a": 0, "b": 3}, id="higher priority first"),
        pytest.param(3, [pool("a", 10, 0, 2), pool("b")], {"a": 2, "b": 1}, id="then it spills"),
        pytest.param(
            3, [pool("a", 10), pool("b", 0, 1)], {"a": 2, "b": 1}, id="a minimum goes before"
        ),
        pytest.param(
            1, [pool("a", 0, 1), pool("b", 10, 1)], {"a": 0, "b": 1}, id="minimums by priority"
        ),
        pytest.param(0, [pool("a", 0, 2)], {"a": 0}, id="zero is zero, whatever the minimums"),
        pytest.param(
            9, [pool("a", 0, 0, 2), pool("b", 0, 0, 3)], {"a": 2, "b": 3}, id="maximums are kept"
        ),
        pytest.param(2, [pool("a", 9, 0, 0), pool("b")], {"a": 0, "b": 2}, id="a closed pool"),
        pytest.param(1, [pool("a", -5), pool("b", -10)], {"a": 1, "b": 0}, id="below zero"),
    ],
)
def test_placement(replicas: int, pools: Sequence[Pool], expected: dict[str, int]) -> None:
    assert placed(replicas, pools) == expected


def test_each_number_says_what_decided_it() -> None:
    pools = [pool("a", 10, 0, 2), pool("b", 5, 1), pool("c", -5)]
    assert place(desired(*pools, replicas=3)).why == {
        "a": "priority 10; filled to maxReplicas 2",
        "b": "priority 5; kept at minReplicas 1",
        "c": "priority -5",
    }


@st.composite
def some_pools(draw: st.DrawFn) -> tuple[Pool, ...]:
    found = []
    for index in range(draw(st.integers(1, 5))):
        low = draw(st.integers(0, 5))
        high = draw(st.none() | st.integers(low, 10))
        found.append(pool(f"p{index}", draw(st.integers(-2, 2)), low, high))
    return tuple(found)


@given(replicas=st.integers(0, 40), pools=some_pools())
def test_what_always_holds(replicas: int, pools: tuple[Pool, ...]) -> None:
    found = place(desired(*pools, replicas=replicas))
    placed = found.counts
    assert found.placed == sum(placed.values())
    assert found.why.keys() == placed.keys()
    assert set(placed) == {one.name for one in pools}
    for one in pools:
        assert 0 <= placed[one.name] <= (replicas if one.max_replicas is None else one.max_replicas)
    room = [10**6 if one.max_replicas is None else one.max_replicas for one in pools]
    assert sum(placed.values()) == min(replicas, sum(room))
    # A pool gets more than its minimum only when every minimum is met and every pool before it
    # is full.
    order = by_priority(pools)
    if any(placed[one.name] > one.min_replicas for one in order):
        assert all(placed[one.name] >= one.min_replicas for one in order)
    for index, one in enumerate(order):
        if placed[one.name] > one.min_replicas:
            assert all(placed[before.name] == before.max_replicas for before in order[:index])
        if placed[one.name] < one.min_replicas:
            assert all(placed[later.name] == 0 for later in order[index + 1 :])


@given(replicas=st.integers(0, 40), pools=some_pools())
def test_one_more_replica_takes_nothing_from_any_pool(
    replicas: int, pools: tuple[Pool, ...]
) -> None:
    before, after = placed(replicas, pools), placed(replicas + 1, pools)
    assert all(after[name] >= count for name, count in before.items())


@given(pools=some_pools())
def test_order_is_stable(pools: tuple[Pool, ...]) -> None:
    order = by_priority(pools)
    for priority in {one.priority for one in pools}:
        assert [p for p in order if p.priority == priority] == [
            p for p in pools if p.priority == priority
        ]
