"""Simulated engines, whatever else listens on a node, and the HTTP client that asks them.

An engine is a process on a node. It knows nothing of SLURM and outlives slurmctld; the ledger of
engines started is the oracle's first witness.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Protocol
from urllib.parse import urlsplit

from isthmus.errors import EngineAnswerError, EngineRefusedError
from isthmus.probing.client import EngineAnswer

Address = tuple[str, int]
POD_PORT = 8000


@dataclass(slots=True, eq=False)
class Engine:
    """One engine process, or a foreign server (`job_name` "").

    Attributes:
        attempt: what it reports as its own (`--weight-version`).
        ready_at: loop time at which it has loaded.
        checked: it once answered a probe as healthy, with this identity.
    """

    job_name: str
    job_id: int
    attempt: str
    model: str
    address: str
    port: int
    started_at: float
    ready_at: float
    arguments: tuple[str, ...] = ()
    api_key: str = ""
    alive: bool = True
    draining: bool = False
    terminated_at: float | None = None
    broken_until: float = 0.0  # answers 503
    slow_until: float = 0.0  # answers too late
    checked: bool = False
    lost_by_slurm: bool = False  # slurmctld has forgotten it
    bad_since: float = 0.0  # when it last began not to answer as it should
    requests: list[float] = field(default_factory=list)  # loop times at which they are done
    shown_from: dict[float, float] = field(default_factory=dict)  # by end: on a gauge from then on

    def begin(self, end: float, *, shown_from: float) -> None:
        """A request comes that is done at `end`; until `shown_from` its scheduler tells nothing."""
        self.requests.append(end)
        self.shown_from[end] = shown_from

    def shown(self, now: float) -> int:
        """Requests of which its scheduler's gauges tell."""
        self.shown_from = {end: at for end, at in self.shown_from.items() if end > now}
        return sum(now >= self.shown_from.get(end, now) for end in self.requests if end > now)

    def held(self, now: float) -> int:
        """Requests that it has begun and not finished."""
        self.requests = [end for end in self.requests if end > now]
        return len(self.requests)


class Way(Protocol):
    """What a door leads through: silent where connections are taken and nothing answers."""

    silent: bool


@dataclass(slots=True, eq=False)
class Door:
    """A port of a tunnel host that leads to a port of a node.

    Attributes:
        answered_at: when a request through it was last answered.
        requests: on their way through it: the engine, and when it is done.
    """

    target: Address
    opened_at: float
    way: Way
    answered_at: float | None = None
    requests: list[tuple[Engine, float]] = field(default_factory=list)

    def held(self, now: float) -> int:
        """Requests under way."""
        self.requests = [one for one in self.requests if one[1] > now and one[0].alive]
        return len(self.requests)

    def cut(self, now: float) -> None:
        """Everything under way ends unanswered; the engines notice."""
        for engine, end in self.requests:
            if end > now and end in engine.requests:
                engine.requests.remove(end)


@dataclass(slots=True)
class Machines:
    """All compute nodes: who listens where, and who ever did; and the doors that lead to them."""

    random: Random
    listening: dict[Address, Engine] = field(default_factory=dict)
    doors: dict[Address, Door] = field(default_factory=dict)
    taken: set[Address] = field(default_factory=set)  # ports of tunnel hosts that others have
    ledger: list[Engine] = field(default_factory=list)
    unreachable_until: dict[str, float] = field(default_factory=dict)  # address → loop time

    def start(self, engine: Engine) -> None:
        """A process begins to run; it listens at once, as SGLang does, and says 503."""
        self.ledger.append(engine)
        self.listening[engine.address, engine.port] = engine

    def end(self, engine: Engine) -> None:
        """The process is gone, its port free."""
        engine.alive = False
        place = engine.address, engine.port
        if self.listening.get(place) is engine:
            del self.listening[place]

    def running(self, job_name: str) -> list[Engine]:
        """Engines of an attempt that are alive now."""
        return [e for e in self.ledger if e.alive and e.job_name == job_name]

    def behind(self, place: Address) -> Engine | None:
        """Who listens at an address, or behind the door there."""
        door = self.doors.get(place)
        return self.listening.get(place if door is None else door.target)

    def serves(self, engine: Engine, *, now: float) -> bool:
        """Whether it answers as healthy now."""
        return engine.alive and not engine.draining and now >= self.good_since(engine)

    def good_since(self, engine: Engine) -> float:
        """From when on it answers as it should, if nothing more happens."""
        away = self.unreachable_until.get(engine.address, 0.0)
        return max(engine.ready_at, engine.broken_until, engine.slow_until, away)


@lru_cache(maxsize=4096)
def _parsed(url: str) -> tuple[str, int, str]:
    parsed = urlsplit(url)
    return parsed.hostname or "", parsed.port or 80, parsed.path


class ProbeClient:
    """Takes the place of the HTTP client in the prober."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    async def __aenter__(self) -> "ProbeClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def get(self, url: str, *, headers: Mapping[str, str]) -> EngineAnswer:
        """See `isthmus.probing.client.ProbeClient`."""
        loop, machines = asyncio.get_running_loop(), self._machines
        host, port, path = _parsed(url)
        door = machines.doors.get((host, port))
        if door is not None:
            host, port = door.target
            if door.way.silent:
                await asyncio.sleep(600)
        if loop.time() < machines.unreachable_until.get(host, 0.0):
            await asyncio.sleep(600)
        await asyncio.sleep(0.002 + 0.02 * machines.random.random())
        engine = machines.listening.get((host, port))
        if engine is None:
            if door is not None:
                raise EngineAnswerError("closed without an answer")
            raise EngineRefusedError("connection refused")
        if loop.time() < engine.slow_until:
            await asyncio.sleep(600)
        if door is not None:
            door.answered_at = loop.time()
        return self._ask(engine, path, headers.get("Authorization"), now=loop.time())

    async def stream(
        self, url: str, *, headers: Mapping[str, str], take: Callable[[bytes], bool]
    ) -> int:
        """See `isthmus.probing.client.ProbeClient`."""
        answer = await self.get(url, headers=headers)
        take(answer.body)
        return answer.status

    def _ask(self, engine: Engine, path: str, sent: str | None, *, now: float) -> EngineAnswer:
        if not self._machines.serves(engine, now=now):
            return EngineAnswer(503, b"")
        guarded = path not in ("/health", "/ready", "/metrics")
        if guarded and engine.api_key and sent != f"Bearer {engine.api_key}":
            return EngineAnswer(401, b"")
        if path == "/v1/models":
            return EngineAnswer(200, json.dumps({"data": [{"id": engine.model}]}).encode())
        if path == "/model_info":
            engine.checked = True
            return EngineAnswer(200, json.dumps({"weight_version": engine.attempt}).encode())
        if path == "/metrics":
            return EngineAnswer(200, _metrics(engine, now=now).encode())
        return EngineAnswer(200 if path in ("/health", "/ready") else 404, b"")


def _metrics(engine: Engine, *, now: float) -> str:
    """What an engine says of its load: vLLM in pods, SGLang in jobs."""
    shown = engine.shown(now)
    if engine.port == POD_PORT:
        return f'vllm:num_requests_running{{engine="0"}} {shown}\nvllm:num_requests_waiting 0\n'
    active = "sglang:http_requests_active"
    return (
        f'sglang:num_running_reqs{{tp_rank="0"}} {shown}\nsglang:num_queue_reqs 0\n'
        f'{active}{{endpoint="/metrics",method="GET"}} 1\n'
        f'{active}{{endpoint="/v1/chat/completions",method="POST"}} {engine.held(now)}\n'
    )
