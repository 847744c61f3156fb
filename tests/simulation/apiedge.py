"""The way from one operator to the API server: delays, lost requests, lost replies, 409.

Implements the `ApiServer` protocol for one process. A request that was sent is carried out even if
its sender is killed or stopped meanwhile.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from isthmus.apiserver.objects import Object, ObjectList
from isthmus.apiserver.resources import LEASES, Resource
from isthmus.errors import ApiError, ApiUnavailableError, ApiUnclearError
from tests.simulation.apiserver import ApiSimulator
from tests.simulation.clock import outside


@dataclass(slots=True)
class Weather:
    """What goes wrong on the way, for all operators; every value is a chance of one request."""

    down: bool = False
    lost_request: float = 0.0
    lost_reply: float = 0.0
    conflict: float = 0.0
    busy: float = 0.0
    slowest: float = 0.02  # seconds, each way


class ApiEdge:
    """One client of the API server."""

    host = ""

    def __init__(
        self,
        server: ApiSimulator,
        *,
        weather: Callable[[], Weather],
        timeout: float,
        random: Random,
        by: str,
        cut_off: Callable[[], bool] = lambda: False,
    ) -> None:
        self._server, self._weather, self._timeout = server, weather, timeout
        self._random, self._by, self._cut_off = random, by, cut_off
        self._context = outside()
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        pass

    async def get(self, resource: Resource, *, namespace: str, name: str) -> Object | None:
        found: Object | None = await self._call(
            lambda: self._server.get(resource, namespace, name), writes=False
        )
        return found

    async def list(
        self,
        resource: Resource,
        *,
        label_selector: str = "",
        namespaces: Sequence[str] | None = None,
    ) -> ObjectList:
        found: ObjectList = await self._call(
            lambda: self._server.list(
                resource, label_selector=label_selector, namespaces=namespaces
            ),
            writes=False,
        )
        return found

    async def create(self, resource: Resource, obj: Object) -> Object:
        def do() -> Object:
            self._server.refuse(resource, "create", obj["metadata"]["name"])  # type: ignore[index]
            return self._server.create(resource, obj, by=self._by)

        return await self._write(resource, do)

    async def apply(self, resource: Resource, obj: Object, *, dry_run: bool = False) -> Object:
        assert not dry_run
        return await self._write(resource, lambda: self._server.apply(resource, obj, by=self._by))

    async def patch(
        self,
        resource: Resource,
        *,
        namespace: str,
        name: str,
        patch: Object,
        subresource: str = "",
    ) -> Object:
        def do() -> Object:
            if not subresource:
                self._server.refuse(resource, "patch", name)
            if self._random.random() < self._weather().conflict and resource is not LEASES:
                self._touch(resource, namespace, name)
            return self._server.patch(
                resource, namespace, name, patch=patch, subresource=subresource, by=self._by
            )

        return await self._write(resource, do)

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
        def do() -> Object | None:
            self._server.refuse(resource, "delete", name)
            return self._server.delete(
                resource, namespace, name, uid=uid, grace_seconds=grace_seconds, by=self._by
            )

        found: Object | None = await self._write(resource, do)
        return found

    def _touch(self, resource: Resource, namespace: str, name: str) -> None:
        """Somebody else writes first."""
        if self._server.get(resource, namespace, name) is not None:
            note = {"metadata": {"annotations": {"touched": str(self._server.version)}}}
            self._server.patch(resource, namespace, name, patch=note, subresource="", by="else")

    async def _write(self, resource: Resource, do: Callable[[], Any]) -> Any:
        def counted() -> Any:
            if resource is not LEASES:
                self._server.writes += 1  # also one that changes nothing
            return do()

        return await self._call(counted, writes=True)

    async def _call(self, do: Callable[[], Any], *, writes: bool) -> Any:
        """Send, have it done, get the reply: three moments, and a time limit over all."""
        weather, random = self._weather(), self._random
        loop = self._loop
        future: asyncio.Future[Any] = loop.create_future()
        if weather.down or self._cut_off():
            await asyncio.sleep(0.01)
            raise ApiUnavailableError("connection refused")
        if random.random() < weather.busy:
            await asyncio.sleep(0.1)
            raise ApiUnavailableError("429 too many requests", status=429)
        there, back = random.random() * weather.slowest, random.random() * weather.slowest
        late = ApiUnclearError if writes else ApiUnavailableError
        if there + back >= self._timeout or random.random() < weather.lost_reply:
            back = self._timeout - there if random.random() < 0.5 else back
            refused: ApiError | None = late("no answer within the time limit")
        else:
            refused = None
        lost = random.random() < weather.lost_request

        def answer(value: Any, error: ApiError | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)

        def arrive() -> None:
            value, error = None, refused
            try:
                if lost:
                    error = late("the connection was reset")
                else:
                    value = do()
            except ApiError as found:
                error = error or found
            loop.call_later(max(0.0, back), answer, value, error, context=self._context)

        loop.call_at(loop.time() + there, arrive, context=self._context)
        return await future
