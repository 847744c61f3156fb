"""Writes the workers for Envoy, each with the API key that it wants.

A worker whose key is not known yet is held back: a request without the key would be refused. The
operator writes the key down before it makes the worker, so that takes one more look; where it stays
unknown the worker is published all the same, since a deployment may have no keys at all.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import httpx

from isthmus.apiserver.objects import Object
from isthmus.front.workers import Worker
from isthmus.routing.worker_keys import HeldKeys, held_keys

_log = logging.getLogger("isthmus.front")

PATIENCE_SECONDS = 30.0
_LOOK_EVERY = 1.0


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
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare.

        Args:
            source: asked for the Secret only when a worker's key is not known.
            secret: its name, "" where workers have no keys.
            publish: called with the workers and their keys, "" for none.
            clock: seconds, monotonic.
            sleep: between two looks.
        """
        self._source = source
        self._secret = secret
        self._publish = publish
        self._clock = clock
        self._sleep = sleep
        self._held: HeldKeys | None = None
        self._found: tuple[Worker, ...] = ()
        self._event = asyncio.Event()
        self._first_seen: dict[Worker, float] = {}

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
                await self._sleep(_LOOK_EVERY)

    async def publish_once(self) -> bool:
        """Publish what is known; returns whether a worker is held back for its key."""
        found, now = self._found, self._clock()
        self._first_seen = {worker: self._first_seen.get(worker, now) for worker in found}
        if any(self._key(worker) is None for worker in found):
            await self._read()
        known: dict[Worker, str] = {}
        waiting = False
        for worker in found:
            key = self._key(worker)
            if key is not None:
                known[worker] = key
            elif now - self._first_seen[worker] >= PATIENCE_SECONDS:
                _log.warning("No API key is known for %s: it gets requests without one", worker)
                known[worker] = ""
            else:
                waiting = True
        self._publish(known)
        return waiting

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
