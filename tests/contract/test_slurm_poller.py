"""When the poller asks, probes and waits; on a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import MappingProxyType

from isthmus.backends.slurm.client import SlurmClient
from isthmus.backends.slurm.records import (
    JobRecord,
    Snapshot,
    SubmitOutcome,
    SubmitRequest,
)
from isthmus.errors import SlurmUnavailableError
from isthmus.slurmcluster.poller import Poller, PollListener, PollTimes
from tests.virtualtime import run_virtual


class FakeCluster(SlurmClient):
    """Answers while `up()`; counts what it is asked."""

    def __init__(self, up: Callable[[float], bool], *, reason: str = "ControllerUnreachable"):
        self.up = up
        self.reason = reason
        self.polls: list[float] = []
        self.pings: list[float] = []

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def snapshot(self) -> Snapshot:
        self.polls.append(self.now())
        if not self.up(self.now()):
            raise SlurmUnavailableError("down", reason=self.reason)
        return Snapshot((), MappingProxyType({}), self.now(), self.now(), 0)

    async def ping(self) -> bool:
        self.pings.append(self.now())
        return self.up(self.now()) or self.reason == "AuthenticationFailed"

    async def version(self) -> str:
        raise NotImplementedError

    async def submit(self, request: SubmitRequest) -> SubmitOutcome:
        raise NotImplementedError

    async def terminate(self, *, job_id: int, job_name: str) -> None:
        raise NotImplementedError

    async def cancel(self, *, job_id: int, job_name: str) -> None:
        raise NotImplementedError

    async def show_job(self, job_id: int) -> JobRecord | None:
        raise NotImplementedError


class Run:
    """One poller on one cluster for some virtual seconds."""

    def __init__(
        self,
        cluster: FakeCluster,
        *,
        seconds: float,
        pokes: tuple[float, ...] = (),
        prepare: Callable[[], Awaitable[bool]] | None = None,
    ):
        self.cluster = cluster
        self.prepare = prepare
        self.snapshots: list[float] = []
        self.failures: list[str] = []
        run_virtual(lambda: self._run(seconds, pokes))

    async def _run(self, seconds: float, pokes: tuple[float, ...]) -> None:
        loop = asyncio.get_running_loop()
        poller = Poller(
            self.cluster,
            listener=PollListener(
                on_snapshot=lambda snapshot: self.snapshots.append(snapshot.taken_at),
                on_failure=lambda error: self.failures.append(error.reason),
                prepare=self.prepare,
            ),
            times=PollTimes(interval=30),
            clock=loop.time,
            uniform=lambda low, high: (low + high) / 2,
        )
        for at in pokes:
            loop.call_at(at, poller.poke)
        running = asyncio.create_task(poller.run())
        await asyncio.sleep(seconds)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_polls_at_the_interval() -> None:
    run = Run(FakeCluster(lambda _now: True), seconds=100)
    assert run.snapshots == [0, 30, 60, 90]
    assert run.cluster.pings == []


def test_poke_brings_one_poll_forward_and_no_more() -> None:
    run = Run(FakeCluster(lambda _now: True), seconds=50, pokes=(10, 10.5, 11))
    assert run.snapshots == [0, 10, 12, 42]


def test_backs_off_and_probes_while_it_is_down() -> None:
    run = Run(FakeCluster(lambda _now: False), seconds=3600)
    gaps = [b - a for a, b in zip(run.cluster.polls, run.cluster.polls[1:], strict=False)]
    assert gaps == sorted(gaps)
    assert gaps[0] == 15
    assert max(gaps) == 300
    assert len(run.failures) == len(run.cluster.polls) < 20
    assert 200 < len(run.cluster.pings) <= 240
    assert run.snapshots == []


def test_polls_soon_after_recovery_though_the_back_off_is_long() -> None:
    run = Run(FakeCluster(lambda now: now < 10 or now > 2000), seconds=2100)
    assert run.snapshots[0] == 0
    assert 2000 < run.snapshots[1] <= 2016
    assert run.snapshots[2] - run.snapshots[1] == 30


def test_answered_probe_does_not_end_the_back_off_of_another_fault() -> None:
    run = Run(FakeCluster(lambda _now: False, reason="AuthenticationFailed"), seconds=3600)
    assert len(run.cluster.polls) < 20


def test_poke_is_heard_while_it_is_down() -> None:
    run = Run(FakeCluster(lambda _now: False), seconds=2000, pokes=(1500,))
    assert any(1500 <= at <= 1502 for at in run.cluster.polls)


def test_what_comes_first_is_tried_until_it_is_done_and_stops_no_poll() -> None:
    cluster, tried = FakeCluster(lambda _now: True), []

    async def prepare() -> bool:
        tried.append(cluster.now())
        return cluster.now() >= 70

    run = Run(cluster, seconds=200, prepare=prepare)
    assert tried == [0, 30, 60, 90]
    assert run.snapshots == [0, 30, 60, 90, 120, 150, 180]


class OddCluster(FakeCluster):
    """Prints for a while what nobody has thought of."""

    async def snapshot(self) -> Snapshot:
        self.polls.append(self.now())
        if self.now() < 40:
            int("9" * 5000)
        return Snapshot((), MappingProxyType({}), self.now(), self.now(), 0)

    async def ping(self) -> bool:
        self.pings.append(self.now())
        raise ValueError("odd")


def test_m1_what_a_site_prints_ends_no_poller() -> None:
    run = Run(OddCluster(lambda _now: True), seconds=200)
    assert set(run.failures) == {"IncompleteOutput"}
    assert run.snapshots
