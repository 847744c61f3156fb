"""What a probe tells to whoever listens, and what it takes from him."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from tests.before.findings import any_of, built, finding
from tests.before.memory import key

_KEY = "isthmus-THE-DEPLOYMENTS-KEY"


class _Engine:
    """Answers each question; keeps the headers of each."""

    def __init__(self, *models: str, health: int = 200) -> None:
        self.models, self.health = models, health
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    async def get(self, url: str, *, headers: Mapping[str, str]) -> Any:
        answer = any_of("isthmus.probing.client:EngineAnswer", "isthmus.health.client:EngineAnswer")
        self.asked.append((url.rpartition(":")[2], dict(headers)))
        if url.endswith("/v1/models"):
            return answer(200, json.dumps({"data": [{"id": m} for m in self.models]}).encode())
        return answer(self.health, b"")


def probe_target(url: str, *, timeout: float = 5.0) -> Any:
    """A worker to probe, with an API key."""
    return built(
        "isthmus.probing.verdict:ProbeTarget",
        "isthmus.health.prober:ProbeTarget",
        health_path="/health",
        url_base=url,
        model="llama",
        attempt="abcdef",
        engine="vllm",
        interval=60.0,
        timeout=timeout,
        success_threshold=1,
        failure_threshold=1,
        api_key=_KEY,
    )


async def _probed(engine: _Engine) -> Any:
    """The state of a worker after its first probe."""
    told = asyncio.Event()
    prober = any_of("isthmus.probing.prober:Prober", "isthmus.health.prober:Prober")(
        engine, on_change=lambda _: told.set()
    )
    worker = key("SlurmJob", "team-a", "llama-0")
    prober.watch(worker, probe_target("http://10.0.0.1:41000"))
    try:
        async with asyncio.timeout(10):
            await told.wait()
        return prober.state(worker)
    finally:
        await prober.close()


@finding("H1", "a stranger at the published port, who is never well, is told the API key")
async def stranger_is_told_the_key() -> bool:
    engine = _Engine(health=503)
    await _probed(engine)
    assert engine.asked
    return any(_KEY in str(headers) for _, headers in engine.asked)


@finding("H2", "an engine that names 60 models makes a message longer than a status takes")
async def names_make_a_long_message() -> bool:
    state = await _probed(_Engine(*(f"lora-{n:03}-{'x' * 32}" for n in range(60))))
    assert state.last.reason == "WrongModel"
    return len(state.last.message) > 1024
