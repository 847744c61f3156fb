"""Which addresses a front sends requests to, and when it believes that there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from isthmus.apiserver.objects import Object
from isthmus.front import envoy
from isthmus.front.apiserver import WatchExpiredError
from isthmus.front.follow import Follower
from isthmus.routing.members import Worker, workers


def slices(name: str, *endpoints: dict[str, Any], port: int = 8000, **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "resourceVersion": "7"},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": port}],
        **more,
    }


def at(address: str, **conditions: bool | None) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions or {"ready": True}}


A, B = at("10.0.0.1"), at("10.0.0.2")


class TestWorkers:
    def test_pods_and_workers_outside_with_ports_of_their_own(self) -> None:
        found = workers([slices("pods", A, B), slices("job", at("10.9.0.1"), port=41000)])
        assert list(map(str, found)) == ["10.0.0.1:8000", "10.0.0.2:8000", "10.9.0.1:41000"]

    def test_what_is_not_ready_gets_nothing(self) -> None:
        assert workers([slices("pods", A, at("10.0.0.3", ready=False))]) == (
            Worker("10.0.0.1", 8000, workload="/"),
        )

    def test_an_absent_condition_means_ready(self) -> None:
        assert workers([slices("pods", {"addresses": ["10.0.0.1"]})])

    def test_the_last_resort_is_what_is_ending_and_still_serves(self) -> None:
        ending = at("10.0.0.3", ready=False, serving=True, terminating=True)
        dying = at("10.0.0.4", ready=False, serving=False, terminating=True)
        assert workers([slices("pods", A, ending)]) == (Worker("10.0.0.1", 8000, workload="/"),)
        assert workers([slices("pods", ending, dying)]) == (Worker("10.0.0.3", 8000, workload="/"),)

    @pytest.mark.parametrize(
        "address",
        ["", "gpu01", "10.0.0.256", "10.0.0.1 ", "010.0.0.1", "fe80::1%eth0", "[::1]", "0.0.0.0",
         "::", "224.0.0.1", "10.0.0.1:80", "10.0.0.1/8", "\u0661.0.0.1"],
    )  # fmt: skip
    def test_l8_what_is_no_address_drops_itself_only(self, address: str) -> None:
        """Envoy refuses a file with one such address as a whole, so no worker came or went."""
        found = workers([slices("pods", A, at(address)), slices("job", B, at(address))])
        assert list(map(str, found)) == ["10.0.0.1:8000", "10.0.0.2:8000"]

    @pytest.mark.parametrize("port", [0, -1, 65536, 10**30])
    def test_l8_what_is_no_port_drops_its_slice_only(self, port: int) -> None:
        found = workers([slices("pods", A), slices("job", B, port=port)])
        assert list(map(str, found)) == ["10.0.0.1:8000"]

    def test_an_endpoint_counts_once(self) -> None:
        """While the controller moves endpoints, one may stand in two slices."""
        assert len(workers([slices("a", A), slices("b", A)])) == 1

    @pytest.mark.parametrize(
        "broken",
        [
            {"ports": []},
            {"ports": None},
            {"ports": [{"name": "metrics", "port": 9}]},
            {"endpoints": None},
            {"endpoints": [{}]},
            {"addressType": "FQDN"},
        ],
    )
    def test_a_slice_that_says_nothing_is_skipped(self, broken: dict[str, Any]) -> None:
        assert len(workers([{**slices("x", B), **broken}, slices("y", A)])) == 1

    def test_ipv6(self) -> None:
        found = workers([slices("pods", at("fd00::1"), addressType="IPv6")])
        assert str(found[0]) == "[fd00::1]:8000"


class TestFiles:
    def test_the_same_workers_give_the_same_text(self) -> None:
        one, other = workers([slices("x", A, B)]), workers([slices("y", B), slices("z", A)])
        assert envoy.text(envoy.endpoints(one)) == envoy.text(envoy.endpoints(other))

    def test_no_worker_is_a_valid_document(self) -> None:
        assert '"lb_endpoints": []' in envoy.text(envoy.endpoints(()))


class Script:
    """A source that says what it is told to; an exception is raised instead of an answer."""

    def __init__(self, *lists: Any, events: list[Any] | None = None) -> None:
        self._lists = list(lists)
        self._events = events or []
        self.asked = 0

    async def list(self) -> tuple[list[Object], str]:
        self.asked += 1
        if not self._lists:
            await asyncio.Event().wait()
        found = self._lists.pop(0)
        if isinstance(found, Exception):
            raise found
        return found, "7"

    async def watch(self, version: str, *, seconds: int) -> AsyncIterator[tuple[str, Object]]:
        while self._events:
            event = self._events.pop(0)
            if isinstance(event, Exception):
                raise event
            yield event
        raise WatchExpiredError


async def told(script: Script) -> list[list[str]]:
    """Each set that was told, as addresses, until the script is over."""
    found: list[list[str]] = []

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)

    follower = Follower(
        script, changed=lambda new: found.append([one.address for one in new]), sleep=sleep
    )
    task = asyncio.create_task(follower.run())
    for _ in range(200):
        await asyncio.sleep(0)
    assert not task.done(), task
    task.cancel()
    return found


ONE, TWO = slices("pods", A), slices("pods", A, B)
LOST = httpx.ConnectError("no route")


class TestFollower:
    async def test_each_change_is_told_once(self) -> None:
        events = [("MODIFIED", TWO), ("BOOKMARK", {"metadata": {"resourceVersion": "9"}})]
        assert await told(Script([ONE], events=[*events, ("MODIFIED", TWO)])) == [
            ["10.0.0.1"],
            ["10.0.0.1", "10.0.0.2"],
        ]

    async def test_a_slice_of_its_own_comes_and_goes(self) -> None:
        job = slices("job", at("10.9.0.1"), port=41000)
        events = [("ADDED", job), ("DELETED", job)]
        assert await told(Script([ONE], events=events)) == [
            ["10.0.0.1"],
            ["10.0.0.1", "10.9.0.1"],
            ["10.0.0.1"],
        ]

    @pytest.mark.parametrize(
        "failure", [LOST, httpx.ReadTimeout("slow"), ValueError("no list"), OSError("reset")]
    )
    async def test_what_is_known_stays_while_nobody_answers(self, failure: Exception) -> None:
        script = Script([TWO], failure, failure, [ONE])
        assert await told(script) == [["10.0.0.1", "10.0.0.2"], ["10.0.0.1"]]
        assert script.asked == 5

    async def test_one_empty_answer_empties_nothing(self) -> None:
        assert await told(Script([TWO], [], [TWO])) == [["10.0.0.1", "10.0.0.2"]]

    async def test_two_empty_answers_do(self) -> None:
        assert await told(Script([TWO], [], [])) == [["10.0.0.1", "10.0.0.2"], []]

    async def test_an_event_that_leaves_nothing_is_believed_after_a_list(self) -> None:
        gone = [("DELETED", TWO)]
        assert await told(Script([TWO], [TWO], events=gone)) == [["10.0.0.1", "10.0.0.2"]]
        assert (await told(Script([TWO], [], [], events=gone)))[-1] == []

    async def test_no_worker_at_first_is_told_at_once(self) -> None:
        """A front with nothing behind it is a front all the same."""
        assert await told(Script([])) == [[]]
