"""Leader election: never two at a time, and an answer to "may I write?" that needs no network."""

import asyncio
import copy
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from random import Random

import pytest

from isthmus.apiserver.election import Candidate, ElectionTimes, LeaderElector
from isthmus.apiserver.objects import Object, ObjectList, dig
from isthmus.apiserver.resources import Resource
from isthmus.errors import (
    ApiAlreadyExistsError,
    ApiConflictError,
    ApiUnavailableError,
    ApiUnclearError,
    NotLeaderError,
    SettingsError,
)
from tests.virtualtime import run_virtual

LEASE, RENEW, TIMEOUT = 15.0, 2.0, 1.5


class LeaseServer:
    """One Lease with compare-and-swap, and ways to fail."""

    def __init__(self) -> None:
        self.lease: dict[str, object] | None = None
        self.version = 0
        self.down = False
        self.hanging = False
        self.lose_answers = False
        self.writes = 0

    async def get(self, resource: Resource, *, namespace: str, name: str) -> Object | None:
        await self._fail()
        return copy.deepcopy(self.lease)

    async def create(self, resource: Resource, obj: Object) -> Object:
        await self._fail()
        if self.lease is not None:
            raise ApiAlreadyExistsError("exists")
        return await self._store({"spec": obj["spec"]})

    async def patch(
        self, resource: Resource, *, namespace: str, name: str, patch: Object, subresource: str = ""
    ) -> Object:
        await self._fail()
        assert self.lease is not None
        if dig(patch, "metadata", "resourceVersion") != str(self.version):
            raise ApiConflictError("changed")
        spec = patch["spec"]
        old = self.lease["spec"]
        assert isinstance(spec, Mapping)
        assert isinstance(old, Mapping)
        return await self._store({"spec": {**old, **spec}})

    async def list(
        self,
        resource: Resource,
        *,
        label_selector: str = "",
        namespaces: Sequence[str] | None = None,
    ) -> ObjectList:
        raise AssertionError

    async def apply(self, resource: Resource, obj: Object, *, dry_run: bool = False) -> Object:
        raise AssertionError

    async def delete(
        self,
        resource: Resource,
        *,
        namespace: str,
        name: str,
        uid: str,
        propagation: str = "Background",
        grace_seconds: int | None = None,
    ) -> Object | None:
        raise AssertionError

    @property
    def holder(self) -> object:
        return dig(self.lease, "spec", "holderIdentity")

    async def _store(self, lease: dict[str, object]) -> Object:
        self.version += 1
        self.writes += 1
        self.lease = lease | {"metadata": {"resourceVersion": str(self.version)}}
        if self.lose_answers:
            raise ApiUnclearError("no answer")
        return copy.deepcopy(self.lease)

    async def _fail(self) -> None:
        await asyncio.sleep(0.01)
        if self.hanging:
            await asyncio.sleep(3600)
        if self.down:
            raise ApiUnavailableError("connection refused")


def elector(server: LeaseServer, identity: str, **changes: float) -> LeaderElector:
    times = {"lease_duration": LEASE, "renew_interval": RENEW, "request_timeout": TIMEOUT}
    times |= changes
    times.setdefault("renew_deadline", times["lease_duration"] * 2 / 3)
    loop = asyncio.get_running_loop()
    return LeaderElector(
        server,
        candidate=Candidate(namespace="isthmus-system", name="isthmus", identity=identity),
        times=ElectionTimes(**times),
        clock=loop.time,
        wall_clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        random=Random(1),
    )


def now() -> float:
    return asyncio.get_running_loop().time()


def test_first_candidate_creates_the_lease_and_keeps_it_for_hours() -> None:
    async def main() -> None:
        server = LeaseServer()
        one = elector(server, "one")
        with pytest.raises(NotLeaderError, match="not held yet"):
            one.check()
        await one.acquire()
        keeping = asyncio.create_task(one.keep())
        await asyncio.sleep(3600)
        one.check()
        assert not keeping.done()
        assert server.holder == "one"
        assert 1600 < server.writes < 2100, "renewed at its interval, and not more often"

    run_virtual(main)


def test_second_candidate_takes_over_when_the_first_dies_and_not_before() -> None:
    async def main() -> None:
        server = LeaseServer()
        one, two = elector(server, "one"), elector(server, "two")
        await one.acquire()
        keeping = asyncio.create_task(one.keep())
        waiting = asyncio.create_task(two.acquire())
        await asyncio.sleep(100)
        assert not waiting.done()
        keeping.cancel()
        died = now()
        await waiting
        assert LEASE - RENEW < now() - died < LEASE + 2 * RENEW
        assert server.holder == "two"
        assert dig(server.lease, "spec", "leaseTransitions") == 1
        with pytest.raises(NotLeaderError):
            one.check()

    run_virtual(main)


def test_released_lease_is_taken_at_once() -> None:
    async def main() -> None:
        server = LeaseServer()
        one, two = elector(server, "one"), elector(server, "two")
        await one.acquire()
        waiting = asyncio.create_task(two.acquire())
        await asyncio.sleep(5)
        await one.release()
        with pytest.raises(NotLeaderError, match="given back"):
            one.check()
        released = now()
        await waiting
        assert now() - released < 2 * RENEW

    run_virtual(main)


@pytest.mark.parametrize("fault", ["down", "hanging"])
def test_leader_without_an_api_server_stops_before_another_may_lead(fault: str) -> None:
    async def main() -> None:
        server = LeaseServer()
        one = elector(server, "one")
        await one.acquire()
        keeping = asyncio.create_task(one.keep())
        await asyncio.sleep(60)
        setattr(server, fault, True)
        began = now()
        with pytest.raises(NotLeaderError, match="not renewed"):
            await keeping
        assert now() - began <= LEASE * 2 / 3 + RENEW
        with pytest.raises(NotLeaderError):
            one.check()
        setattr(server, fault, False)
        with pytest.raises(NotLeaderError):
            one.check()  # what is lost stays lost: the process has to end
        with pytest.raises(NotLeaderError):
            await one.acquire()

    run_virtual(main)


def test_check_fails_by_the_clock_alone_when_the_process_was_stopped() -> None:
    """After SIGSTOP no task has run; the first thing a writer does must still fail."""

    async def main() -> None:
        server = LeaseServer()
        one = elector(server, "one")
        await one.acquire()
        one.check()
        await asyncio.sleep(LEASE * 2 / 3)
        with pytest.raises(NotLeaderError, match="another instance may lead"):
            one.check()

    run_virtual(main)


def test_short_outage_is_survived() -> None:
    async def main() -> None:
        server = LeaseServer()
        one = elector(server, "one")
        await one.acquire()
        keeping = asyncio.create_task(one.keep())
        for _ in range(20):
            await asyncio.sleep(30)
            server.down = True
            await asyncio.sleep(6)
            server.down = False
            one.check()
        assert not keeping.done()

    run_virtual(main)


def test_renewal_with_a_lost_answer_is_neither_counted_nor_fatal() -> None:
    async def main() -> None:
        server = LeaseServer()
        one = elector(server, "one")
        await one.acquire()
        keeping = asyncio.create_task(one.keep())
        await asyncio.sleep(20)
        server.lose_answers = True
        await asyncio.sleep(5)
        server.lose_answers = False
        await asyncio.sleep(20)
        one.check()
        assert not keeping.done()
        server.lose_answers = True
        with pytest.raises(NotLeaderError):
            await keeping

    run_virtual(main)


def test_stolen_lease_is_noticed_at_the_next_renewal() -> None:
    async def main() -> None:
        server = LeaseServer()
        one = elector(server, "one")
        await one.acquire()
        keeping = asyncio.create_task(one.keep())
        await asyncio.sleep(5)
        assert server.lease is not None
        server.version += 1
        server.lease = {
            "metadata": {"resourceVersion": str(server.version)},
            "spec": {"holderIdentity": "thief", "leaseDurationSeconds": 15},
        }
        with pytest.raises(NotLeaderError, match="held by thief"):
            await asyncio.wait_for(keeping, timeout=3 * RENEW)
        await one.release()
        assert server.holder == "thief", "what is another's is not given back"

    run_virtual(main)


def test_lease_of_another_is_judged_by_observation_and_not_by_its_clock() -> None:
    """Its renewTime lies in the future or far in the past; only changes count."""

    async def main(renew_time: str) -> float:
        server = LeaseServer()
        server.version = 7
        server.lease = {
            "metadata": {"resourceVersion": "7"},
            "spec": {
                "holderIdentity": "dead",
                "leaseDurationSeconds": 15,
                "renewTime": renew_time,
            },
        }
        await elector(server, "one").acquire()
        return now()

    for renew_time in ("1999-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"):
        assert LEASE <= run_virtual(lambda at=renew_time: main(at)) < LEASE + 2 * RENEW  # type: ignore[misc]


def test_of_many_candidates_exactly_one_leads_at_any_time() -> None:
    async def main() -> None:
        server = LeaseServer()
        random = Random(3)
        electors: list[LeaderElector] = []

        async def candidate(number: int) -> None:
            generation = 0
            while True:
                generation += 1
                me = elector(server, f"{number}-{generation}")
                electors.append(me)
                await me.acquire()
                keeping = asyncio.create_task(me.keep())
                await asyncio.sleep(random.uniform(1, 60))
                keeping.cancel()
                if random.random() < 0.5:
                    await me.release()
                else:
                    await asyncio.sleep(LEASE)  # died; its successor starts anew
                electors.remove(me)

        tasks = [asyncio.create_task(candidate(number)) for number in range(4)]
        led = 0
        for _ in range(20_000):
            await asyncio.sleep(0.1)
            server.down = random.random() < 0.02
            leaders = [each.identity for each in electors if each.is_leader()]
            assert len(leaders) <= 1, leaders
            led += len(leaders)
        assert led > 5_000
        for task in tasks:
            task.cancel()

    run_virtual(main)


def test_contradicting_times_are_refused_with_a_sentence() -> None:
    async def main() -> None:
        with pytest.raises(SettingsError, match="request timeout < renew interval"):
            elector(LeaseServer(), "one", request_timeout=3)
        elector(  # and there is no lower bound
            LeaseServer(),
            "one",
            request_timeout=0.001,
            renew_interval=0.002,
            lease_duration=0.02,
        )

    run_virtual(main)
