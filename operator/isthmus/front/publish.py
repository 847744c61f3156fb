"""Writes the workers for Envoy, each with the API key that it wants.

A worker whose key is not known yet is held back, for as long as that lasts: a request without the
key would be refused, and one that is sent elsewhere after that may carry another worker's key. The
operator writes the key down before it makes the worker, so that takes one more look. Who has none
rightly is known: there is no Secret of keys, or it says so.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

import httpx

from isthmus.apiserver.objects import Object
from isthmus.routing.members import Worker
from isthmus.routing.worker_keys import HeldKeys, held_keys

_log = logging.getLogger("isthmus.front")

PATIENCE_SECONDS = 30.0
"""From when on it is told that a worker is held back, and looked less often for its key."""
_LOOK_EVERY = 1.0
_LOOK_LATER = 10.0


class KeysSource(Protocol):
    """Where the Secret of worker keys is."""

    async def secret(self, name: str) -> Object | None:
        """The Secret, None if there is none."""


class Publisher:
    """Turns each membership into what Envoy is told."""

    def __init__(
        self,
        *,
        source: KeysSource,
        secret: str,
        publish: Callable[[Mapping[Worker, str]], None],
        clock: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            source: asked for the Secret only when a worker's key is not known.
            secret: its name, "" where workers have no keys.
            publish: called with the workers and their keys, "" for none.
            clock: seconds, monotonic.
        """
        self._source = source
        self._secret = secret
        self._publish = publish
        self._clock = clock
        self._held: HeldKeys | None = None
        self._found: tuple[Worker, ...] = ()
        self._event = asyncio.Event()
        self._first_seen: dict[Worker, float] = {}
        self._told: set[Worker] = set()

    def changed(self, found: tuple[Worker, ...]) -> None:
        """Take in a membership."""
        self._found = found
        self._event.set()

    async def run(self) -> None:
        """Publish each membership until cancelled."""
        while True:
            await self._event.wait()
            self._event.clear()
            while await self.publish_once() and not self._event.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._event.wait(), self._pause())

    async def publish_once(self) -> bool:
        """Publish what is known; returns whether a worker is held back for its key."""
        found, now = self._found, self._clock()
        self._first_seen = {worker: self._first_seen.get(worker, now) for worker in found}
        if any(self._key(worker) is None for worker in found):
            await self._read()
        known = {worker: key for worker in found if (key := self._key(worker)) is not None}
        late = {
            worker
            for worker in set(found) - known.keys()
            if now - self._first_seen[worker] >= PATIENCE_SECONDS
        }
        for worker in sorted(late - self._told):
            _log.warning(
                "No API key is known for %s: it gets no requests. Only workers of the "
                "ModelDeployment belong into its EndpointSlices",
                worker,
            )
        self._told = late
        self._publish(known)
        return len(known) < len(set(found))

    def _pause(self) -> float:
        """Seconds to the next look for keys: soon for a worker that has just come."""
        ages = [self._clock() - since for since in self._first_seen.values()]
        return _LOOK_EVERY if min(ages, default=0.0) < PATIENCE_SECONDS else _LOOK_LATER

    def _key(self, worker: Worker) -> str | None:
        if not self._secret:
            return ""
        if self._held is None:
            return None if worker.key or worker.workload else ""
        return self._held.key(digest=worker.key, workload=worker.workload)

    async def _read(self) -> None:
        try:
            secret = await self._source.secret(self._secret)
        except (httpx.HTTPError, OSError, ValueError) as error:
            _log.warning("The Secret %s cannot be read: %r", self._secret, error)
            return
        # Without a Secret no pod has a key; it is looked for again when a new pod comes.
        held = HeldKeys(others_have_none=True) if secret is None else held_keys(secret)
        self._held = held.for_workloads({w.workload for w in self._found if w.workload})
