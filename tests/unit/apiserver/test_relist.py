"""The relist: nothing runs before the first one, and each later one is best effort."""

import asyncio
from collections.abc import Sequence
from random import Random

import pytest

from isthmus.apiserver.client import KubernetesApiServer
from isthmus.apiserver.objects import ObjectList
from isthmus.apiserver.relist import Relist, RelistTimes
from isthmus.apiserver.resources import PODS, SERVICES, Resource
from isthmus.apiserver.store import Store
from isthmus.errors import ApiUnavailableError
from tests.virtualtime import run_virtual

WATCHED = ((PODS, "mine"), (SERVICES, ""))


class Lists(KubernetesApiServer):
    """An API server that can only list."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, str, str, Sequence[str] | None]] = []
        self.items: list[dict[str, object]] = []
        self.revision = 10
        self.down = False

    async def list(
        self,
        resource: Resource,
        *,
        label_selector: str = "",
        namespaces: Sequence[str] | None = None,
    ) -> ObjectList:
        now = asyncio.get_running_loop().time()
        self.asked.append((now, resource.plural, label_selector, namespaces))
        if self.down:
            raise ApiUnavailableError("connection refused")
        items = tuple(self.items) if resource is PODS else ()
        return ObjectList(items=items, resource_version=self.revision)


def world(namespaces: Sequence[str] | None = None) -> tuple[Lists, Store, Relist]:
    api, store = Lists(), Store(watched=[PODS, SERVICES])
    relist = Relist(
        api=api,
        store=store,
        watched=WATCHED,
        namespaces=namespaces,
        times=RelistTimes(interval=300),
        random=Random(1),
    )
    return api, store, relist


def pod(name: str, version: int) -> dict[str, object]:
    meta = {"namespace": "n", "name": name, "uid": name, "resourceVersion": str(version)}
    return {"metadata": meta}


def test_first_sync_lists_everything_with_its_selector() -> None:
    async def main() -> None:
        api, store, relist = world(["n"])
        api.items = [pod("a", 5)]
        await relist.first_sync(deadline=30)
        assert store.synced
        assert store.get(PODS, "n", "a")
        assert [each[1:] for each in api.asked] == [
            ("pods", "mine", ["n"]),
            ("services", "", ["n"]),
        ]

    run_virtual(main)


def test_first_sync_waits_for_the_api_server() -> None:
    async def main() -> None:
        api, store, relist = world()
        api.down = True
        syncing = asyncio.create_task(relist.first_sync(deadline=30))
        await asyncio.sleep(10)
        assert not syncing.done()
        api.down = False
        await syncing
        assert store.synced

    run_virtual(main)


def test_first_sync_gives_up_at_its_deadline() -> None:
    async def main() -> None:
        api, store, relist = world()
        api.down = True
        with pytest.raises(ApiUnavailableError):
            await relist.first_sync(deadline=30)
        assert 28 <= asyncio.get_running_loop().time() <= 30
        assert not store.synced

    run_virtual(main)


def test_rounds_repeat_and_failures_keep_what_is_known() -> None:
    async def main() -> None:
        api, store, relist = world()
        api.items = [pod("a", 5)]
        await relist.first_sync(deadline=30)
        running = asyncio.create_task(relist.run())
        api.down = True
        await asyncio.sleep(1000)
        assert store.get(PODS, "n", "a"), "no answer is no absence"
        api.down, api.items, api.revision = False, [], 20
        await asyncio.sleep(320)
        assert store.get(PODS, "n", "a") is None
        times = sorted({at for at, *_ in api.asked})
        assert len(times) == 5
        running.cancel()

    run_virtual(main)


def test_many_requests_make_one_early_round() -> None:
    async def main() -> None:
        api, _, relist = world()
        await relist.first_sync(deadline=30)
        running = asyncio.create_task(relist.run())
        await asyncio.sleep(10)
        for _ in range(1000):
            relist.request()
        await asyncio.sleep(100)
        assert sorted({at for at, *_ in api.asked}) == [0, 15]
        running.cancel()

    run_virtual(main)
