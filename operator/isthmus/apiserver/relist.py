"""The periodic list of everything watched: what makes the store right in the end.

kopf tells nothing of objects that were deleted while a watch was down, so a complete list decides
every few minutes, and soon after a watch had to start over, what still exists. It is also the
first sync, before anything else runs: a pass over a half-filled store would take what it has not
seen for absent.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.resources import Resource
from isthmus.apiserver.store import Store
from isthmus.errors import ApiError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelistTimes:
    """Times of the periodic list, in seconds.

    Attributes:
        interval: between two complete rounds, spread by a tenth.
        request_delay: between a request for a round and that round, so that many requests make
            one round.
        retry_interval: before a failed list is tried again in the first sync.
    """

    interval: float
    request_delay: float = 5.0
    retry_interval: float = 1.0


class Relist:
    """Lists every watched resource into the store. Times are those of the running loop."""

    def __init__(
        self,
        *,
        api: ApiServer,
        store: Store,
        watched: Sequence[tuple[Resource, str]],
        namespaces: Sequence[str] | None,
        times: RelistTimes,
        random: Random | None = None,
    ) -> None:
        """Prepare; no request is made.

        Args:
            api: the API server; only `list` is called.
            store: what to keep right.
            watched: (resource, label selector) pairs, the same that are watched.
            namespaces: where, None for the whole cluster.
            times: how often.
            random: source of the spread.
        """
        self._api, self._store = api, store
        self._watched, self._namespaces = tuple(watched), namespaces
        self._times, self._random = times, random or Random()
        self._requested = asyncio.Event()
        self.last_complete_at: float | None = None
        """Loop time of the latest complete round, None before the first; for the metrics."""

    def request(self) -> None:
        """Ask for a round soon instead of at the next interval: a deletion may have been missed."""
        self._requested.set()

    async def first_sync(self, *, deadline: float) -> None:
        """List everything once, trying again for up to `deadline` seconds.

        Raises:
            ApiError: the last failure, once the deadline has passed.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline
        for resource, selector in self._watched:
            said = ""
            while True:
                try:
                    await self._list(resource, selector)
                    break
                except ApiError as error:
                    if loop.time() + self._times.retry_interval >= end:
                        raise
                    if str(error) != said:
                        said = str(error)
                        _log.warning("First list: %s; trying again until it succeeds", error)
                await asyncio.sleep(self._times.retry_interval)
        self.last_complete_at = loop.time()

    async def run(self) -> None:
        """List everything at each interval and on request, for ever; failures are logged."""
        while True:
            await self._wait()
            self._requested.clear()
            await self.round()

    async def round(self) -> bool:
        """List everything once.

        Returns:
            Whether every list succeeded.
        """
        complete = True
        for resource, selector in self._watched:
            try:
                await self._list(resource, selector)
            except ApiError as error:
                complete = False
                _log.warning("Periodic list: %s; what is known of it stays", error)
        if complete:
            self.last_complete_at = asyncio.get_running_loop().time()
        return complete

    async def _wait(self) -> None:
        interval = self._times.interval * (0.95 + 0.1 * self._random.random())
        try:
            async with asyncio.timeout(interval):
                await self._requested.wait()
                await asyncio.sleep(self._times.request_delay)
        except TimeoutError:
            return

    async def _list(self, resource: Resource, selector: str) -> None:
        known = self._store.is_listed(resource)
        listed = await self._api.list(
            resource, label_selector=selector, namespaces=self._namespaces
        )
        changed = self._store.replace(resource, listed, namespaces=self._namespaces)
        if known and changed:
            # Each of these is something that the watch did not tell, or not yet.
            _log.info("Periodic list of %s found %d changes", resource, len(changed))
