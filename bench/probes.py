"""`python -m bench.probes`: how many workers one prober keeps up with.

One process simulates all engines: a single socket that answers at every address of 127.0.0.0/8, so
each worker has an address of its own. Another process runs the operator's own prober over them at
the default interval, with a connection for each probe, as it does in truth. Lateness is seen by the
engines: how much later than interval and jitter allow a probe comes.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from rich.console import Console

from bench.report import Rows, markdown_tables, tables
from isthmus.apiserver.key import Key
from isthmus.probing.client import HttpProbeClient
from isthmus.probing.prober import Prober
from isthmus.probing.verdict import ProbeTarget

ATTEMPT = "x7k2qp"
INTERVAL = 5.0
JITTER = 1.05
"""The prober spreads its probes by five per cent each way."""
_STEP = 50
_PAGE = (
    b"sglang:num_running_reqs 1\nsglang:num_queue_reqs 0\n"
    b'sglang:http_requests_active{endpoint="/metrics",method="GET"} 1\n'
)
_ANSWERS: dict[bytes, bytes] = {
    b"/health": b"",
    b"/ready": b"",
    b"/v1/models": json.dumps({"data": [{"id": "llama"}]}).encode(),
    b"/model_info": json.dumps({"weight_version": ATTEMPT}).encode(),
    b"/metrics": _PAGE,
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: seconds of lateness, share of one processor, MiB."""

    workers: int
    healthy: int
    probes: int
    processor: float
    memory: float
    late_median: float
    late_p99: float
    late_most: float


class _Engines(asyncio.Protocol):
    """One connection to one of the simulated engines."""

    seen: dict[str, float] = {}  # noqa: RUF012
    gaps: list[float] = []  # noqa: RUF012

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        path = data.split(b" ", 2)[1]
        if path in (b"/health", b"/ready"):
            address, now = self._transport.get_extra_info("sockname")[0], time.monotonic()
            if address in self.seen:
                self.gaps.append(now - self.seen[address])
            self.seen[address] = now
        body = _ANSWERS.get(path)
        status = b"404 Not Found" if body is None else b"200 OK"
        body = body or b""
        self._transport.write(
            b"HTTP/1.1 %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
            % (status, len(body), body)
        )
        self._transport.close()


def _engines(pipe: Connection) -> None:
    """The process of the engines: port out, "clear" and "gaps" in."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Engines, "0.0.0.0", 0, backlog=8192)
        pipe.send(server.sockets[0].getsockname()[1])
        while await asyncio.to_thread(pipe.recv) == "clear":
            _Engines.gaps.clear()
        pipe.send(list(_Engines.gaps))

    asyncio.run(serve())


def _prober(pipe: Connection, port: int, workers: int, seconds: float) -> None:
    """The process of the prober; its processor time and memory are its own."""

    async def probe() -> tuple[int, float, float]:
        async with HttpProbeClient() as client:
            prober = Prober(client, on_change=lambda key: None)
            keys = []
            for index, address in zip(range(workers), _addresses(), strict=False):
                keys.append(Key("SlurmJob", "bench", f"worker-{index}"))
                prober.watch(keys[-1], _target(f"http://{address}:{port}"))
                if index % _STEP == 0:
                    await asyncio.sleep(INTERVAL * _STEP / workers)  # not all at once
            await asyncio.sleep(2 * INTERVAL)
            pipe.send("warm")
            begin, used = time.monotonic(), time.process_time()
            await asyncio.sleep(seconds)
            share = (time.process_time() - used) / (time.monotonic() - begin)
            states = [prober.state(key) for key in keys]
            healthy = sum(state is not None and state.healthy is True for state in states)
            await prober.close()
            return healthy, share, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    pipe.send(asyncio.run(probe()))


def _addresses() -> Iterator[str]:
    return (f"127.{a}.{b}.{c}" for a in range(1, 3) for b in range(256) for c in range(1, 255))


def _target(url: str) -> ProbeTarget:
    return ProbeTarget(
        url_base=url,
        model="llama",
        attempt=ATTEMPT,
        engine="sglang",
        interval=INTERVAL,
        timeout=20.0,
        success_threshold=1,
        failure_threshold=3,
    )


def measure(workers: int, *, seconds: float) -> Measured:
    """Probe that many workers for some seconds."""
    context = multiprocessing.get_context("spawn")
    engines, theirs = context.Pipe()
    prober, ours = context.Pipe()
    serving = context.Process(target=_engines, args=(theirs,), daemon=True)
    serving.start()
    probing = context.Process(
        target=_prober, args=(ours, engines.recv(), workers, seconds), daemon=True
    )
    probing.start()
    try:
        prober.recv()
        engines.send("clear")
        healthy, share, memory = prober.recv()
        engines.send("gaps")
        late = sorted(max(0.0, gap - INTERVAL * JITTER) for gap in engines.recv())
    finally:
        for process in (probing, serving):
            process.join(5)
            process.kill()
    return Measured(
        workers=workers,
        healthy=healthy,
        probes=len(late),
        processor=share,
        memory=memory,
        late_median=statistics.median(late),
        late_p99=late[int(len(late) * 0.99)],
        late_most=late[-1],
    )


def rows(found: list[Measured]) -> Rows:
    """The table."""
    head = ("workers", *(str(one.workers) for one in found))
    lines: list[tuple[str, ...]] = [head]
    for title, values in (
        ("healthy at the end", [str(one.healthy) for one in found]),
        ("probes seen by the engines", [str(one.probes) for one in found]),
        ("processor time, of one processor", [f"{one.processor:.0%}" for one in found]),
        ("memory, resident", [f"{one.memory:.0f} MiB" for one in found]),
        ("lateness, median", [f"{one.late_median * 1000:.0f} ms" for one in found]),
        ("lateness, 99 %", [f"{one.late_p99 * 1000:.0f} ms" for one in found]),
        ("lateness, most", [f"{one.late_most * 1000:.0f} ms" for one in found]),
    ):
        lines.append((title, *values))
    return lines


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.probes", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[2000, 5000])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--priority",
        type=int,
        default=0,
        help="nice value of this session, such as -15 on a machine that does other things",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    options = parser.parse_args()
    if options.priority:
        # The kernel weighs sessions against each other; a nice value counts only inside of one.
        Path("/proc/self/autogroup").write_text(str(options.priority), encoding="ascii")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    found = [measure(workers, seconds=options.seconds) for workers in options.workers]
    print(json.dumps([asdict(one) for one in found]), file=sys.stderr)
    sections = [("Probes of many workers by one process", rows(found))]
    for table in tables(sections):
        Console().print(table)
    if options.markdown:
        command = shlex.join(["python", "-m", "bench.probes", *sys.argv[1:]])
        note = f"Load average {os.getloadavg()[0]:.1f}."
        text = markdown_tables(sections, command=command, note=note)
        options.markdown.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
