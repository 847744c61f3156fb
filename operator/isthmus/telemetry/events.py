"""Kubernetes events at transitions, for `kubectl describe`.

They are told and forgotten: a status says what is, an event only when it changed. So writing them
never holds up or fails a pass, and of a burst that is more than the rate of its namespace, or of
all, allows the rest is left out.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
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
_OF_ONE = (25.0, 2.0)
_OF_ALL = (200.0, 16.0)
"""So many at once, and so many a second: of one namespace, of all together."""
_KEPT = 1024
"""Namespaces whose rates are remembered; of more the one that was silent longest is forgotten."""


class EventSink(Protocol):
    """Takes events; never fails and never waits."""

    def emit(self, obj: Object, *, type: EventType, reason: Reason, message: str) -> None:
        """Tell of a change of `obj`, an object as it is stored."""
        ...


@dataclass(slots=True)
class _Bucket:
    """A rate: so many at once, and then so many a second."""

    burst: float
    per_second: float
    at: float
    tokens: float = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = self.burst

    def has_one(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.per_second)
        self.at = now
        return self.tokens >= 1


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
        self._clock = clock
        self._all = _Bucket(*_OF_ALL, at=clock())
        self._of: OrderedDict[str, _Bucket] = OrderedDict()  # by namespace, the latest last
        self._queue: asyncio.Queue[Object] = asyncio.Queue(maxsize=_WAITING)

    def emit(self, obj: Object, *, type: EventType, reason: Reason, message: str) -> None:
        """See `EventSink`."""
        if not self._may(namespace(obj)):
            return
        try:
            self._queue.put_nowait(self._event(obj, type, reason, message))
        except asyncio.QueueFull:
            return

    def _may(self, place: str) -> bool:
        """Take one from the rate of a namespace and from that of all, if both have one."""
        now = self._clock()
        one = self._of.setdefault(place, _Bucket(*_OF_ONE, at=now))
        self._of.move_to_end(place)
        while len(self._of) > _KEPT:
            self._of.popitem(last=False)
        if not (one.has_one(now) and self._all.has_one(now)):
            return False
        one.tokens -= 1
        self._all.tokens -= 1
        return True

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
