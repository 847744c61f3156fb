"""Kubernetes events at transitions, for `kubectl describe`.

They are told and forgotten: a status says what is, an event only when it changed. So writing them
never holds up or fails a pass, and of a burst that is more than the rate allows the rest is left
out.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from isthmus.api.conditions import MAX_MESSAGE, Reason
from isthmus.api.texts import one_line
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import Object, name, namespace, uid
from isthmus.apiserver.resources import EVENTS
from isthmus.errors import IsthmusError
from isthmus.guarded import where

_log = logging.getLogger(__name__)

EventType = Literal["Normal", "Warning"]

COMPONENT = "isthmus"
_WAITING = 256
_BURST = 25
_PER_SECOND = 2.0


class EventSink(Protocol):
    """Takes events; never fails and never waits."""

    def emit(self, obj: Object, *, type: EventType, reason: Reason, message: str) -> None:
        """Tell of a change of `obj`, an object as it is stored."""
        ...


class NoEvents:
    """Tells nobody."""

    def emit(self, obj: Object, *, type: EventType, reason: Reason, message: str) -> None:
        """See `EventSink`."""


@dataclass(slots=True)
class _Bucket:
    """A rate: so many at once, and then so many a second."""

    clock: Callable[[], float]
    tokens: float = _BURST
    at: float = 0.0

    def take(self) -> bool:
        now = self.clock()
        self.tokens = min(_BURST, self.tokens + (now - self.at) * _PER_SECOND)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class EventRecorder:
    """Writes events one after another in a task of its own."""

    def __init__(
        self,
        api: ApiServer,
        *,
        instance: str,
        clock: Callable[[], float],
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_id: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        """Prepare; `run` writes.

        Args:
            api: the API server.
            instance: name of this process.
            clock: seconds, monotonic.
            wall_clock: for the times in the events.
            new_id: a part of a name that no other event has.
        """
        self._api, self._instance = api, instance
        self._wall_clock, self._new_id = wall_clock, new_id
        self._bucket = _Bucket(clock, at=clock())
        self._queue: asyncio.Queue[Object] = asyncio.Queue(maxsize=_WAITING)

    def emit(self, obj: Object, *, type: EventType, reason: Reason, message: str) -> None:
        """See `EventSink`."""
        if not self._bucket.take():
            return
        try:
            self._queue.put_nowait(self._event(obj, type, reason, message))
        except asyncio.QueueFull:
            return

    async def run(self) -> None:
        """Write what was told, for ever; a failed one is lost."""
        while True:
            event = await self._queue.get()
            try:
                await self._api.create(EVENTS, event)
            except IsthmusError as error:
                _log.debug("An event was lost: %s", error)
            except Exception as error:  # texts of anybody are in it; none ends the process
                _log.warning("An event was lost: %s", where(error))

    def _event(self, obj: Object, type: EventType, reason: Reason, message: str) -> Object:
        now = self._wall_clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "metadata": {
                "name": f"{name(obj)[:230]}.{self._new_id()}",
                "namespace": namespace(obj),
            },
            "involvedObject": {
                "apiVersion": obj.get("apiVersion"),
                "kind": obj.get("kind"),
                "namespace": namespace(obj),
                "name": name(obj),
                "uid": uid(obj),
            },
            "type": type,
            "reason": str(reason),
            "message": one_line(message, limit=MAX_MESSAGE),
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
