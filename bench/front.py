"""`python -m bench.front`: which front is the best, on loopback before simulated engines.

Each candidate and the direct way take turns in short rounds, so that a slow minute of the machine
meets all. What is compared are ratios to the direct way of the same round.
"""

import argparse
import asyncio
import contextlib
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.front_candidates import CANDIDATES, Candidate, instant_engines
from bench.http_load import Address, Clients, Result
from playground.engines.install import install
from playground.engines.launch import EngineProcess, free_port, start
from playground.progress import Progress

CLIENTS = 16
TOKENS = 16
ENGINES = 4
REALISTIC = {
    "SIMULATOR_LOAD_SECONDS": "0.1",
    "SIMULATOR_FIRST_TOKEN_SECONDS": "0.04",
    "SIMULATOR_TOKENS_PER_SECOND": "400",
}
"""About 80 ms an answer."""

SETTLE = 1.5
"""Seconds between a change of the membership and what happens to the worker."""


@dataclass(slots=True)
class Ratios:
    """One path against the direct one, an element a round."""

    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    failed: int = 0

    def take(self, mine: Result, direct: Result) -> None:
        """Add a round."""
        self.p50.append(mine.percentile(0.5) / direct.percentile(0.5))
        self.p99.append(mine.percentile(0.99) / direct.percentile(0.99))
        self.rate.append(mine.rate / direct.rate)
        self.failed += mine.failed


class Lab:
    """Engines and fronts of one run, ended with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = folder / "engines"
        self._stack = contextlib.ExitStack()
        install(self.tree)

    def __enter__(self) -> "Lab":
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """End every process."""
        self._stack.close()

    def engine(self) -> EngineProcess:
        """One more simulated vLLM, ready."""
        port = free_port()
        command: list[str | Path] = [self.tree / "bin" / "vllm", "serve", "org/model"]
        command += ["--port", str(port), "--served-model-name", "llama", "--shutdown-timeout", "30"]
        served = self._stack.enter_context(
            start(command, log_path=self.folder / f"{port}.log", port=port, environment=REALISTIC)
        )
        served.wait_ready(timeout=60)
        return served

    def front(self, name: str, workers: Sequence[Address]) -> Candidate:
        """A front of that kind before these workers."""
        folder = Path(tempfile.mkdtemp(dir=self.folder, prefix=f"{name}-"))
        made = CANDIDATES[name](folder)
        self._stack.callback(made.kill)
        made.start(workers)
        return made

    def instant(self) -> list[Address]:
        """Engines that answer at once."""
        process, addresses = instant_engines(self.folder, count=ENGINES)
        self._stack.callback(process.kill)
        return addresses


def address_of(served: EngineProcess) -> Address:
    """Where an engine listens."""
    return "127.0.0.1", int(served.url.rpartition(":")[2])


async def load(
    targets: Callable[[], Sequence[Address]], *, seconds: float, clients: int = CLIENTS
) -> Result:
    """Clients for that long; the first second is not counted."""
    await Clients(targets, count=clients, tokens=TOKENS, streams=False).run(1.0)
    return await Clients(targets, count=clients, tokens=TOKENS, streams=False).run(seconds)


def one_target(front: Candidate) -> Callable[[], Sequence[Address]]:
    """Every connection goes to this front."""
    return lambda: [front.address]


async def overhead(
    lab: Lab, names: Sequence[str], workers: Sequence[Address], *, options: argparse.Namespace
) -> dict[str, Ratios]:
    """Each front against the direct way, in turns."""
    seconds, clients = options.seconds, options.clients
    fronts = {name: lab.front(name, workers) for name in names}
    found = {name: Ratios() for name in names}
    for _ in range(options.rounds):
        direct = await load(lambda: workers, seconds=seconds, clients=clients)
        for name, made in fronts.items():
            mine = await load(one_target(made), seconds=seconds, clients=clients)
            found[name].take(mine, direct)
    for made in fronts.values():
        made.kill()
    return found


@dataclass(slots=True)
class Failures:
    """What failed, by what happened, and other facts of one front."""

    by_event: dict[str, str] = field(default_factory=dict)
    shares: str = ""
    memory: str = ""


async def events(lab: Lab, name: str) -> Failures:
    """Everything that happens to a front, under load with kept connections, half of it streams."""
    found = Failures()
    engines = [lab.engine() for _ in range(3)]
    front = lab.front(name, [address_of(one) for one in engines])
    targets = [front.address]

    async def under_load(event: str, happen: Callable[[], Awaitable[None]]) -> None:
        clients = Clients(lambda: targets, count=CLIENTS, tokens=TOKENS, streams=True)
        await asyncio.sleep(2)
        await happen()
        await asyncio.sleep(4)
        result = await clients.end()
        worst = ", ".join(f"{n} x {what}" for what, n in result.failures.most_common(2))
        total = result.failed + len(result.seconds)
        found.by_event[event] = f"{result.failed} of {total}" + (f" ({worst})" if worst else "")

    async def more() -> None:
        engines.append(lab.engine())
        front.set(list(map(address_of, engines)))

    async def fewer() -> None:
        gone = engines.pop(0)
        front.set(list(map(address_of, engines)))
        await asyncio.sleep(SETTLE)
        gone.terminate()

    async def killed() -> None:
        gone = engines.pop(0)
        gone.process.kill()
        await asyncio.sleep(3)
        front.set(list(map(address_of, engines)))

    async def replaced() -> None:
        nonlocal front
        old = front
        front = lab.front(name, [address_of(one) for one in engines])
        targets[:] = [front.address]
        await old.stop()

    await under_load("worker added", more)
    await under_load("worker removed", fewer)
    await under_load("worker killed", killed)
    await under_load("front replaced", replaced)
    found.shares = await shares(front, engines)
    found.memory = f"{front.memory():.0f} MiB"
    front.kill()
    for one in engines:
        one.process.kill()
    return found


async def shares(front: Candidate, engines: Sequence[EngineProcess]) -> str:
    """Requests of the least and the most used worker, as parts of an even share."""
    before = [_answered(one) for one in engines]
    await load(lambda: [front.address], seconds=6)
    counts = [_answered(one) - old for one, old in zip(engines, before, strict=True)]
    even = sum(counts) / len(counts)
    return f"{min(counts) / even:.2f} to {max(counts) / even:.2f}"


def _answered(served: EngineProcess) -> float:
    import httpx

    lines = httpx.get(f"{served.url}/metrics", trust_env=False, timeout=10).text.splitlines()
    found = [line for line in lines if line.startswith("vllm:request_success_total")]
    return sum(float(line.rpartition(" ")[2]) for line in found)


def lines_of(title: str, found: dict[str, Ratios]) -> Iterator[str]:
    """A table in Markdown."""
    yield f"\n**{title}**\n"
    yield "| path | p50 | p99 | throughput | failed |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name, each in found.items():
        ratios = [_spread(values) for values in (each.p50, each.p99, each.rate)]
        yield f"| {name} | {' | '.join(ratios)} | {each.failed} |"


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def event_lines(found: dict[str, Failures]) -> Iterator[str]:
    """What failed, in Markdown."""
    names = list(found)
    yield "\n**Failed requests with 16 kept connections, half of the requests streams**\n"
    yield f"| | {' | '.join(names)} |"
    yield f"| --- |{' --- |' * len(names)}"
    for event in next(iter(found.values())).by_event:
        yield f"| {event} | {' | '.join(found[name].by_event[event] for name in names)} |"
    yield f"| least to most used worker | {' | '.join(found[name].shares for name in names)} |"
    yield f"| memory, resident | {' | '.join(found[name].memory for name in names)} |"


async def measure(options: argparse.Namespace) -> list[str]:
    """Everything; returns lines of Markdown."""
    names = options.fronts.split(",")
    lines: list[str] = []
    progress = Progress()
    with tempfile.TemporaryDirectory(prefix="isthmus-front-") as folder, Lab(Path(folder)) as lab:
        if "overhead" in options.parts:
            with progress.step("realistic engines"):
                engines = [lab.engine() for _ in range(ENGINES)]
                workers = list(map(address_of, engines))
                found = await overhead(lab, names, workers, options=options)
                for one in engines:
                    one.process.kill()
            lines += lines_of("Engines that take 80 ms, ratio to direct: median (range)", found)
            with progress.step("instant engines"):
                found = await overhead(lab, names, lab.instant(), options=options)
            lines += lines_of("Engines that take nothing, ratio to direct: median (range)", found)
        if "events" in options.parts:
            failures = {}
            for name in names:
                with progress.step(f"what happens to {name}"):
                    failures[name] = await events(lab, name)
            lines += event_lines(failures)
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.front", description=__doc__)
    parser.add_argument("--fronts", default=",".join(CANDIDATES), help="which (%(default)s)")
    parser.add_argument("--parts", default="overhead,events", help="which (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (%(default)s)")
    parser.add_argument("--clients", type=int, default=CLIENTS, help="at a time (%(default)s)")
    options = parser.parse_args()
    print("\n".join(asyncio.run(measure(options))))


if __name__ == "__main__":
    main()
