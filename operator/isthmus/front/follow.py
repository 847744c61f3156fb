"""Follows the EndpointSlices of one Service: list, watch, list again, and never forget too soon.

What was last known stands until the API server says otherwise: while it cannot be reached, or
answers nonsense, nothing changes. That nothing at all is left is believed only when a second list
says so too.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import httpx

from isthmus.apiserver.objects import Object, dig, name
from isthmus.front.apiserver import WatchExpiredError
from isthmus.routing.members import Worker, workers

_log = logging.getLogger("isthmus.front")

WATCH_SECONDS = 120
LISTS_EVERY = 5
"""Watches in a row before everything is listed again."""

_RETRY_FIRST, _RETRY_MOST = 0.2, 5.0
_CONFIRM_SECONDS = 1.0


class SliceSource(Protocol):
    """What is followed (`isthmus.front.apiserver.Slices`)."""

    async def list(self) -> tuple[list[Object], str]:
        """All slices and the revision to watch from."""

    def watch(self, version: str, *, seconds: int) -> AsyncIterator[tuple[str, Object]]:
        """Events since a revision."""


class Follower:
    """Tells each new set of workers."""

    def __init__(
        self,
        source: SliceSource,
        *,
        changed: Callable[[tuple[Worker, ...]], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare.

        Args:
            source: the slices.
            changed: called with each new set, in the loop's thread; also with the first one.
            sleep: between attempts.
        """
        self._source = source
        self._changed = changed
        self._sleep = sleep
        self._slices: dict[str, Object] = {}
        self._told: tuple[Worker, ...] | None = None

    async def run(self) -> None:
        """Follow until cancelled."""
        delay = _RETRY_FIRST
        while True:
            try:
                await self._once()
                delay = _RETRY_FIRST
            except WatchExpiredError:
                continue
            except (httpx.HTTPError, OSError, ValueError) as error:
                _log.warning("The API server is not to be followed, what is known stays: %r", error)
                await self._sleep(delay)
                delay = min(delay * 2, _RETRY_MOST)

    async def _once(self) -> None:
        """List, then watch for a while."""
        found, version = await self._list()
        self._slices = {name(obj): obj for obj in found}
        self._tell()
        for _ in range(LISTS_EVERY):
            async for kind, obj in self._source.watch(version, seconds=WATCH_SECONDS):
                version = str(dig(obj, "metadata", "resourceVersion", default=version))
                if kind == "DELETED":
                    self._slices.pop(name(obj), None)
                elif kind in ("ADDED", "MODIFIED"):
                    self._slices[name(obj)] = obj
                else:
                    continue
                if not workers(self._slices.values()) and self._told:
                    return  # nothing left: believed only after a list
                self._tell()

    async def _list(self) -> tuple[list[Object], str]:
        """All slices; that there is no worker any more has to be said twice."""
        found, version = await self._source.list()
        if self._told and not workers(found):
            await self._sleep(_CONFIRM_SECONDS)
            found, version = await self._source.list()
        return found, version

    def _tell(self) -> None:
        found = workers(self._slices.values())
        if found == self._told:
            return
        before = set(self._told or ())
        _log.info(
            "%d workers; new: %s; gone: %s",
            len(found),
            ", ".join(map(str, sorted(set(found) - before))) or "none",
            ", ".join(map(str, sorted(before - set(found)))) or "none",
        )
        self._told = found
        self._changed(found)
