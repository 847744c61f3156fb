"""Clients: they send requests to what the EndpointSlices say, and each request takes its time.

What is on its way when an engine is told to end is the oracle's witness of a drain.
"""

import asyncio
from random import Random
from typing import TYPE_CHECKING

from isthmus.api import names
from isthmus.api.times import epoch
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import ENDPOINT_SLICES, PODS
from tests.simulation.apiserver import Json
from tests.simulation.clock import EPOCH, outside
from tests.simulation.promises.tunnels import is_tunnel, place_of

if TYPE_CHECKING:
    from tests.simulation.world import World

_EVERY = 4.0
_LAG = 3.0
"""Seconds in which the endpoints follow a pod's labels."""
_VLLM_LAG = 0.5
"""Seconds by which its gauges are late at most."""


class Traffic:
    """Requests to every Service, until it is stopped."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._random = Random(f"{world.seed}/traffic")
        # Drawn apart: the requests of a seed stay what they were.
        self._prefills = Random(f"{world.seed}/prefills")
        self._context = outside()
        self.stopped = False

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(_EVERY * (0.5 + self._random.random()), self._send, context=self._context)

    def _send(self) -> None:
        if self.stopped or self._world.over:
            return
        for obj in self._world.api.all(ENDPOINT_SLICES):
            port = int(k8s.number(k8s.dig(obj, "ports", 0, "port")) or 0)
            for endpoint in obj.get("endpoints", ()):
                if k8s.dig(endpoint, "conditions", "ready") and self._random.random() < 0.3:
                    if is_tunnel(obj):
                        self._through_tunnel(obj)
                        continue
                    self._to_draining(str(k8s.dig(endpoint, "targetRef", "name")))
                    self._one(str(endpoint["addresses"][0]), port)
        self._world.tunnel_oracle.look()
        self.start()

    def _through_tunnel(self, obj: Json) -> None:
        engine, seconds = self._world.tunnel_oracle.through(obj), self._duration()
        if engine is not None:
            end = self._world.now + seconds
            engine.begin(end, shown_from=self._shown_from(seconds))
            self._world.machines.doors[place_of(obj)].requests.append((engine, end))

    def _one(self, address: str, port: int) -> None:
        now, seconds = self._world.now, self._duration()
        engine = self._world.machines.listening.get((address, port))
        if engine is not None and self._world.machines.serves(engine, now=now):
            engine.begin(now + seconds, shown_from=self._shown_from(seconds, late=_VLLM_LAG))

    def _shown_from(self, seconds: float, *, late: float | None = None) -> float:
        """When the gauges have a request: SGLang's only after its prefill and some tokens."""
        longest = seconds if late is None else min(late, seconds)
        return self._world.now + longest * self._prefills.random()

    def _duration(self) -> float:
        kind = self._random.random()
        longest = 5.0 if kind < 0.7 else 60.0 if kind < 0.95 else 500.0
        return 0.2 + self._random.random() * longest

    def _to_draining(self, pod: str) -> None:
        found = next((one for one in self._world.api.all(PODS) if k8s.name(one) == pod), None)
        if found is None:
            return
        marked = epoch(k8s.annotations(found).get(names.ANNOTATION_DRAINING_SINCE))
        if marked is not None and not self._world.oracle.clocks_jumped:
            late = self._world.now + EPOCH - marked
            slow = late < _LAG or self._world.oracle.caches_late
            self._world.oracle.require(slow, f"traffic to {pod}, draining for {late:.0f} s")
