"""What hostile engines and routers answer."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from random import Random
from unittest.mock import patch

import httpx

from isthmus.probing.client import EngineAnswer
from tests.hostile_values import NUMBERS, TEXTS, any_value
from tests.simulation import operators
from tests.simulation.engines import Engine, ProbeClient


def hostile_job(name: str) -> bool:
    return name.startswith("bad")


class HostileProbeClient(ProbeClient):
    """Engines of hostile jobs answer as they like, every second time."""

    def _ask(self, engine: Engine, path: str, sent: str | None, *, now: float) -> EngineAnswer:
        draw = self._machines.random
        if not (hostile_job(engine.job_name) and draw.random() < 0.5):
            return super()._ask(engine, path, sent, now=now)
        return EngineAnswer(draw.choice([200, 200, 200, 204, 302, 401, 503, 999]), _body(draw))


def _body(random: Random) -> bytes:
    text = random.choice(TEXTS)
    value = any_value(random)
    metrics = f"sglang:num_running_reqs{{{text}}} {random.choice(NUMBERS)}\n" * 3
    workers = [{"id": text, "url": text, "labels": value, "data": [{"id": value}]}]
    return random.choice(
        (
            text.encode("utf-8", errors="replace"),
            metrics.encode("utf-8", errors="replace"),
            _json(value),
            _json({"data": [{"id": text}], "weight_version": value}),
            _json({"data": value, "weight_version": text}),
            _json({"workers": workers}),
            _json({"workers": value}),
            b"\xff\xfe\x00" * 100,
            b"[" * 20_000,
        )
    )


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


class _Answers(httpx.AsyncByteStream):
    """A body that comes slowly, breaks off, or never ends."""

    def __init__(self, random: Random) -> None:
        self._random = random

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pause = self._random.choice([0.0, 0.0, 0.5, 20.0])
        body = _body(self._random) * self._random.choice([1, 1, 1, 2000])
        for begin in range(0, len(body), 65536):
            await asyncio.sleep(pause)
            yield body[begin : begin + 65536]
        if self._random.random() < 0.1:
            raise httpx.ReadError("reset")


def _router(request: httpx.Request) -> httpx.Response:
    random = Random(f"{asyncio.get_running_loop().time()}/{request.url}")
    if random.random() < 0.1:
        raise httpx.ConnectError("refused")
    kind = random.choice(["application/json", "text/html; charset=rot13", "x"])
    return httpx.Response(
        random.choice([200, 200, 200, 302, 404, 500]),
        headers={"Content-Type": kind, "Location": "http://127.0.0.1/"},
        stream=_Answers(random),
    )


@contextlib.contextmanager
def hostile_edges() -> Iterator[None]:
    def client(*_: object, **__: object) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(_router), timeout=None)

    with (
        patch.object(operators, "ProbeClient", HostileProbeClient),
        patch("isthmus.application.bounded_client", client),
    ):
        yield
