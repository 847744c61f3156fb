"""`python -m tests.traffic --url URL`: asks until TERM, and says each half second how it goes.

Each line is one JSON object: `{"answered": n, "failed": n}` while it runs, the report at its end.
"""

import argparse
import asyncio
import json
import signal
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.traffic.requests import TOKENS, Answer, ask, body

_MOST_FAILURES = 50
_REQUEST_SECONDS = 300.0


@dataclass(slots=True)
class _Record:
    answered: int = 0
    failed: int = 0
    failures: list[dict[str, object]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    workers: Counter[str] = field(default_factory=Counter)

    def take(self, answer: Answer, *, lane: int, stream: bool, started: float) -> None:
        ended = time.time()
        if not answer.problem:
            self.answered += 1
            self.seconds.append(ended - started)
            self.workers[answer.worker] += 1
            return
        self.failed += 1
        if len(self.failures) < _MOST_FAILURES:
            self.failures.append(
                {
                    "problem": answer.problem,
                    "lane": lane,
                    "stream": stream,
                    "begun": answer.begun,
                    "worker": answer.worker,
                    "started": started,
                    "ended": ended,
                }
            )

    def report(self, *, since: float) -> dict[str, object]:
        ordered = sorted(self.seconds)
        return {
            "answered": self.answered,
            "failed": self.failed,
            "failures": self.failures,
            "seconds": time.time() - since,
            "p50": statistics.median(ordered) if ordered else 0.0,
            "p99": ordered[int(len(ordered) * 0.99)] if ordered else 0.0,
            "slowest": ordered[-1] if ordered else 0.0,
            "workers": dict(self.workers.most_common()),
        }


async def _lane(number: int, arguments: argparse.Namespace, record: _Record, end: Any) -> None:
    """One client: asks, reads to the end, asks again."""
    stream = number % 2 == 0 if arguments.stream == "mixed" else arguments.stream == "yes"
    headers = {} if arguments.connections == "kept" else {"Connection": "close"}
    if arguments.key:
        headers["Authorization"] = f"Bearer {arguments.key}"
    request = body(model=arguments.model, tokens=arguments.tokens, stream=stream)
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=60)
    timeout = httpx.Timeout(_REQUEST_SECONDS, connect=10)
    async with httpx.AsyncClient(timeout=timeout, trust_env=False, limits=limits) as client:
        while not end.is_set():
            started = time.time()
            answer = await ask(client, arguments.url, request=request, headers=headers)
            record.take(answer, lane=number, stream=stream, started=started)
            await asyncio.sleep(arguments.pause if not answer.problem else 0.2)


async def _run(arguments: argparse.Namespace) -> None:
    record, end, since = _Record(), asyncio.Event(), time.time()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    loop.call_later(arguments.seconds, end.set)
    lanes = [
        asyncio.create_task(_lane(n, arguments, record, end)) for n in range(arguments.concurrency)
    ]
    while not end.is_set():
        print(json.dumps({"answered": record.answered, "failed": record.failed}), flush=True)
        try:
            await asyncio.wait_for(end.wait(), 0.5)
        except TimeoutError:
            continue
    await asyncio.gather(*lanes)  # what has been asked is read to its end
    print(json.dumps({"report": record.report(since=since)}), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.traffic", description=__doc__)
    parser.add_argument("--url", required=True, help="address of the service, without /v1")
    parser.add_argument("--model", default="llama", help="served name to ask for (llama)")
    parser.add_argument("--key", default="", help="API key to send as bearer token")
    parser.add_argument("--concurrency", type=int, default=16, help="requests at a time (16)")
    parser.add_argument("--tokens", type=int, default=TOKENS, help=f"tokens an answer ({TOKENS})")
    parser.add_argument("--stream", choices=["yes", "no", "mixed"], default="mixed")
    parser.add_argument("--connections", choices=["kept", "new"], default="kept")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between two requests")
    parser.add_argument("--seconds", type=float, default=600.0, help="end after this long (600)")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(_run(_arguments()))
