"""M8: what one namespace asks for does not hold up another one's, wherever places are few."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.api.conditions import Reason
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import namespace
from isthmus.telemetry.events import EventRecorder
from isthmus.turns import Places, Turns
from tests.virtualtime import run_virtual

NAMES = st.sampled_from(["team-a", "team-b", "team-c"])


def popped(turns: Turns[int]) -> list[tuple[str, int]]:
    found = []
    while (one := turns.pop()) is not None:
        found.append(one)
    return found


@given(st.lists(st.tuples(NAMES, st.integers(0, 9))))
def test_m8_each_namespace_has_its_turn_and_keeps_its_own_order(
    items: list[tuple[str, int]],
) -> None:
    turns: Turns[int] = Turns()
    for name, item in items:
        turns.add(name, item)
    assert all(turns.holds(name, item) for name, item in items)
    found = popped(turns)
    assert not turns
    assert sorted(found) == sorted(set(items)), "each once"
    for name in {name for name, _ in items}:
        mine = [item for owner, item in found if owner == name]
        assert mine == list(dict.fromkeys(item for owner, item in items if owner == name))
    owners = [name for name, _ in found]
    for first, name in enumerate(owners):
        if name in owners[first + 1 :]:
            again = owners.index(name, first + 1)
            others = set(owners[again:]) - {name}
            assert others <= set(owners[first:again]), "nobody twice before everybody once"


def test_what_is_removed_has_no_turn() -> None:
    turns: Turns[int] = Turns()
    turns.add("team-a", 1)
    turns.remove("team-a", 2)
    turns.remove("team-b", 1)
    turns.remove("team-a", 1)
    assert turns.pop() is None
    turns.add("team-a", 1)
    assert turns.pop(lambda name: name != "team-a") is None
    assert turns.pop() == ("team-a", 1)


def test_m8_one_namespace_never_holds_all_places() -> None:
    async def work() -> None:
        places = Places(4, of_one=3)
        inside: list[str] = []
        go = asyncio.Event()

        async def hold(name: str) -> None:
            async with places.taken(name):
                inside.append(name)
                await go.wait()

        tasks = [asyncio.create_task(hold("hostile")) for _ in range(100)]
        await asyncio.sleep(1)
        assert inside == ["hostile"] * 3
        tasks.append(asyncio.create_task(hold("good")))
        await asyncio.sleep(0)
        assert inside[-1] == "good", "at once"
        tasks += [asyncio.create_task(hold("good")) for _ in range(2)]
        await asyncio.sleep(1)
        assert len(inside) == 4
        go.set()
        await asyncio.gather(*tasks)
        assert sorted(inside) == ["good"] * 3 + ["hostile"] * 100
        assert set(inside[4:8]) == {"good", "hostile"}, "in turn"

    run_virtual(work)


@given(st.lists(st.tuples(NAMES, st.booleans()), max_size=30), st.integers(1, 4))
def test_no_place_is_lost_whoever_is_cancelled(wanted: list[tuple[str, bool]], number: int) -> None:
    async def work() -> None:
        places = Places(number)
        most = now = 0

        async def hold(name: str) -> None:
            nonlocal most, now
            async with places.taken(name):
                now += 1
                most = max(most, now)
                try:
                    await asyncio.sleep(1)
                finally:
                    now -= 1

        tasks = [asyncio.create_task(hold(name)) for name, _ in wanted]
        for step, (task, (_, cancelled)) in enumerate(zip(tasks, wanted, strict=True)):
            if cancelled:
                await asyncio.sleep(step % 3 / 2)
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert most <= number
        if number > 1:  # of one namespace three quarters
            await asyncio.gather(*(hold(f"later-{place}") for place in range(number)))
            assert most <= number
        assert now == 0

    run_virtual(work)


class Written:
    """An API server that takes what it gets."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def create(self, resource: object, obj: dict[str, object]) -> dict[str, object]:
        self.events.append(namespace(obj))
        return obj


@pytest.mark.parametrize("hostile", [1, 5])
def test_m8_events_of_one_namespace_take_none_of_another(hostile: int) -> None:
    now = 0.0
    api = Written()
    recorder = EventRecorder(
        cast("ApiServer", api),
        instance="op",
        clock=lambda: now,
        wall_clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
    )

    def emit(place: str) -> None:
        obj = {"kind": "SlurmJob", "metadata": {"namespace": place, "name": "a", "uid": "u"}}
        recorder.emit(obj, type="Normal", reason=Reason.HEALTHY, message="")

    async def work() -> None:
        nonlocal now
        writing = asyncio.create_task(recorder.run())
        for second in range(60):
            now = float(second)
            for number in range(hostile):
                for _ in range(100):
                    emit(f"hostile-{number}")
            emit("good")
            await asyncio.sleep(0.1)
        writing.cancel()

    run_virtual(work)
    assert api.events.count("good") == 60
    assert api.events.count("hostile-0") <= 25 + 2 * 60
