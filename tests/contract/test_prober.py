"""The prober tells healthy engines of ours from sick ones and from strangers."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from random import Random
from urllib.parse import urlsplit

import pytest

from isthmus.apiserver.key import Key
from isthmus.errors import EngineRefusedError
from isthmus.probing.client import EngineAnswer, HttpProbeClient
from isthmus.probing.prober import Prober
from isthmus.probing.verdict import ProbeState, ProbeTarget
from tests.virtualtime import run_virtual

KEY = Key("SlurmJob", "team-a", "llama-hpc-0-x7k2qp")
SGLANG = ProbeTarget(
    url_base="http://node7:41003",
    model="llama",
    attempt="x7k2qp",
    engine="sglang",
    interval=5,
    timeout=5,
    success_threshold=2,
    failure_threshold=3,
)
VLLM = replace(SGLANG, engine="vllm")


@dataclass
class Engine:
    """An engine as the probes see it; its state is changed by the tests."""

    names: list[str] = field(default_factory=lambda: ["llama"])
    attempt: str = "x7k2qp"
    health: int = 200
    ready: int = 200
    takes: float = 0.01
    refuses: bool = False
    load: int | None = 0  # what the gauges say, None for no metrics at all
    active: int | None = 0  # what the HTTP server says, None for a release that does not count
    silent_at: str = ""  # begin of the URLs at which nothing answers
    asked: list[tuple[float, str, str]] = field(default_factory=list)
    sent: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # path and headers

    async def get(self, url: str, *, headers: Mapping[str, str]) -> EngineAnswer:
        """See `isthmus.probing.client.ProbeClient`."""
        path = urlsplit(url).path
        now = asyncio.get_running_loop().time()
        self.asked.append((now, path, headers.get("Authorization", "")))
        self.sent.append((path, dict(headers)))
        if self.refuses:
            raise EngineRefusedError("connection refused")
        if self.silent_at and url.startswith(self.silent_at):
            await asyncio.sleep(3600)
        await asyncio.sleep(self.takes)
        match path:
            case "/health":
                return EngineAnswer(self.health, b"")
            case "/ready":
                return EngineAnswer(self.ready, b"")
            case "/v1/models":
                return _json({"data": [{"id": each} for each in self.names]})
            case "/model_info":
                return _json({"weight_version": self.attempt})
            case "/metrics" if self.load is not None:
                return EngineAnswer(200, self.page())
        return EngineAnswer(404, b"")

    def page(self) -> bytes:
        lines = [f"sglang:num_running_reqs {self.load}", "sglang:num_queue_reqs 0"]
        if self.active is not None:
            counted = {"/metrics": 1, "/v1/chat/completions": self.active}
            lines += [
                f'sglang:http_requests_active{{endpoint="{path}",method="POST"}} {count}'
                for path, count in counted.items()
            ]
        return ("\n".join(lines) + "\n").encode()

    async def stream(
        self, url: str, *, headers: Mapping[str, str], take: Callable[[bytes], bool]
    ) -> int:
        """See `isthmus.probing.client.ProbeClient`."""
        answer = await self.get(url, headers=headers)
        take(answer.body)
        return answer.status

    def paths(self) -> list[str]:
        return [path for _, path, _ in self.asked]


def _json(content: object) -> EngineAnswer:
    return EngineAnswer(200, json.dumps(content).encode())


class Watching:
    """A prober with one engine, and what it reported."""

    def __init__(self, engine: Engine, target: ProbeTarget = SGLANG) -> None:
        self.engine = engine
        self.changes: list[float] = []
        self.prober = Prober(
            engine,
            on_change=lambda key: self.changes.append(asyncio.get_running_loop().time()),
            random=Random(1),
        )
        self.prober.watch(KEY, target)

    @property
    def state(self) -> ProbeState:
        state = self.prober.state(KEY)
        assert state is not None
        return state

    async def until_healthy(self, healthy: bool | None) -> float:
        """Return the loop time at which it became so."""
        while self.prober.state(KEY) is None or self.state.healthy is not healthy:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return asyncio.get_running_loop().time()


def watched(
    test: Callable[[Watching], Awaitable[None]],
    *,
    target: ProbeTarget = SGLANG,
    engine: Engine | None = None,
) -> None:
    async def main() -> None:
        watching = Watching(engine or Engine(), target)
        await asyncio.wait_for(test(watching), timeout=10_000)
        await watching.prober.close()

    run_virtual(main)


def test_worker_becomes_healthy_after_enough_successes_in_a_row() -> None:
    async def test(watching: Watching) -> None:
        await asyncio.sleep(1)
        assert watching.state.last.ok
        assert watching.state.healthy is None, "one success is not two"
        at = await watching.until_healthy(True)
        assert at < 6

    watched(test)


def test_worker_becomes_unhealthy_after_enough_failures_in_a_row() -> None:
    async def test(watching: Watching) -> None:
        await watching.until_healthy(True)
        watching.engine.health = watching.engine.ready = 503
        await asyncio.sleep(10)
        assert watching.state.last.reason == "NotReady"
        assert watching.state.healthy is True, "two failures are not three"
        watching.engine.health = watching.engine.ready = 200
        await asyncio.sleep(6)
        watching.engine.health = watching.engine.ready = 503
        began = asyncio.get_running_loop().time()
        assert await watching.until_healthy(False) - began > 10, "in a row"
        assert watching.state.consecutive_failures == 3

    watched(test)


def test_load_is_read_with_the_full_probes() -> None:
    async def test(watching: Watching) -> None:
        watching.engine.load = 7
        await watching.until_healthy(True)
        assert watching.state.load == 7
        assert watching.prober.load(KEY) is not None
        watching.engine.load = None
        await asyncio.sleep(40)
        assert watching.state.healthy is True, "metrics are not health"
        found = watching.prober.load(KEY)
        assert found is not None
        assert found.silent_for > 0

    watched(test)


def test_draining_worker_is_read_every_second_and_told_when_idle() -> None:
    async def test(watching: Watching) -> None:
        watching.engine.load = 2
        await watching.until_healthy(True)
        watching.engine.asked.clear()
        watching.prober.watch(KEY, SGLANG, draining=True)
        await asyncio.sleep(10)
        assert set(watching.engine.paths()) == {"/metrics"}
        assert 9 <= len(watching.engine.asked) <= 11
        watching.changes.clear()
        watching.engine.load = 0
        await asyncio.sleep(2.5)
        assert len(watching.changes) == 1
        found = watching.prober.load(KEY)
        assert found is not None
        assert (found.requests, found.silent_for) == (0, 0.0)
        assert found.age < 1.1
        assert found.idle_for >= found.proof > 0

    watched(test)


def test_a_request_in_prefill_is_load_though_no_gauge_shows_it() -> None:
    async def test(watching: Watching) -> None:
        await watching.until_healthy(True)
        watching.engine.active = 1
        watching.prober.watch(KEY, SGLANG, draining=True)
        watching.changes.clear()
        await asyncio.sleep(30)
        found = watching.prober.load(KEY)
        assert found is not None
        assert (found.requests, found.idle_for) == (1, 0.0)
        assert watching.state.load == 1
        assert not watching.changes

    watched(test)


def test_the_idleness_of_a_release_that_counts_no_requests_is_watched_for_longer() -> None:
    async def test(watching: Watching) -> None:
        watching.engine.active = None
        watching.engine.load = 1
        await watching.until_healthy(True)
        watching.prober.watch(KEY, SGLANG, draining=True)
        await asyncio.sleep(5)
        watching.engine.load = 0
        watching.changes.clear()
        await asyncio.sleep(20)
        assert not watching.changes
        watching.engine.load = None  # a gap in the readings begins the row anew
        await asyncio.sleep(3)
        watching.engine.load = 0
        await asyncio.sleep(25)
        assert not watching.changes
        await asyncio.sleep(10)
        assert len(watching.changes) == 1

    watched(test)


def test_silence_of_a_draining_worker_grows() -> None:
    async def test(watching: Watching) -> None:
        watching.engine.load = 2
        watching.prober.watch(KEY, SGLANG, draining=True)
        await asyncio.sleep(3)
        watching.engine.load = None
        await asyncio.sleep(20)
        found = watching.prober.load(KEY)
        assert found is not None
        assert found.requests == 2
        assert 18 < found.silent_for < 21

    watched(test)


def test_a_draining_worker_is_read_by_a_detour_where_its_own_url_is_silent() -> None:
    """Its supervisor may be cut off, and has not noticed yet."""

    async def test(watching: Watching) -> None:
        watching.engine.load = 2
        watching.engine.silent_at = SGLANG.url_base
        detours = ("http://10.9.0.9:20007",)
        watching.prober.watch(KEY, SGLANG, draining=True, detours=detours)
        await asyncio.sleep(30)
        found = watching.prober.load(KEY)
        assert found is not None
        assert found.requests == 2
        assert found.silent_for == 0.0
        watching.engine.load = None
        await asyncio.sleep(30)
        found = watching.prober.load(KEY)
        assert found is not None
        assert found.silent_for > 15, "nobody tells"

    watched(test)


def test_a_probe_that_hangs_is_no_silence_of_the_metrics() -> None:
    """A worker that begins to drain meanwhile would be told to end unread."""

    async def test(watching: Watching) -> None:
        watching.engine.load = 2
        await watching.until_healthy(True)
        watching.engine.takes = 60
        await asyncio.sleep(3)
        watching.prober.watch(KEY, SGLANG, draining=True)
        await asyncio.sleep(0.1)
        found = watching.prober.load(KEY)
        assert found is not None
        assert found.silent_for == 0.0

    watched(test)


def test_loads_are_read_on_demand_and_within_a_limit() -> None:
    async def test(watching: Watching) -> None:
        watching.engine.load = 4
        assert await watching.prober.loads({"a": SGLANG, "b": VLLM}, time_limit=1) == {
            "a": 4,
            "b": None,
        }
        watching.engine.takes = 60
        began = asyncio.get_running_loop().time()
        assert await watching.prober.loads({"a": SGLANG}, time_limit=1) == {"a": None}
        assert asyncio.get_running_loop().time() - began < 1.1

    watched(test)


def test_long_dead_worker_is_asked_less_often_and_found_again() -> None:
    async def test(watching: Watching) -> None:
        await watching.until_healthy(True)
        watching.engine.refuses = True
        await watching.until_healthy(False)
        await asyncio.sleep(1000)
        watching.engine.asked.clear()
        await asyncio.sleep(600)
        assert 9 <= len(watching.engine.asked) <= 12
        watching.engine.refuses = False
        began = asyncio.get_running_loop().time()
        assert await watching.until_healthy(True) - began < 70

    watched(test)


def test_a_probe_that_a_decision_needs_comes_at_once() -> None:
    async def test(watching: Watching) -> None:
        await watching.until_healthy(True)
        watching.engine.refuses = True
        await watching.until_healthy(False)
        await asyncio.sleep(1000)
        watching.engine.refuses = False
        watching.prober.probe_now(KEY)
        await asyncio.sleep(1)
        assert watching.state.last.ok
        assert watching.prober.age(KEY) <= 1

    watched(test)


def test_starting_worker_is_asked_as_often_as_ever() -> None:
    async def test(watching: Watching) -> None:
        await asyncio.sleep(1000)
        watching.engine.asked.clear()
        await asyncio.sleep(60)
        assert len(watching.engine.asked) >= 11

    watched(test, engine=Engine(refuses=True))


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda engine: setattr(engine, "refuses", True), "Refused"),
        (lambda engine: setattr(engine, "health", 503), "NotReady"),
        (lambda engine: setattr(engine, "takes", 60), "Timeout"),
        (lambda engine: setattr(engine, "names", ["mistral"]), "WrongModel"),
        (lambda engine: setattr(engine, "attempt", "zzzzzz"), "WrongAttempt"),
        (lambda engine: setattr(engine, "health", 500), "HttpError"),
    ],
)
def test_each_failure_has_its_reason(break_it: Callable[[Engine], None], reason: str) -> None:
    engine = Engine()
    break_it(engine)

    async def test(watching: Watching) -> None:
        await watching.until_healthy(False)
        assert watching.state.last.reason == reason
        assert watching.state.last.message

    watched(test, engine=engine)


@pytest.mark.parametrize(
    ("names", "attempt", "reason"),
    [
        ([f"lora-{n}-{'x' * 40}" for n in range(60)], "x7k2qp", "WrongModel"),
        (["\x1b[2J\x00\ud800\n" + "x" * 100_000], "x7k2qp", "WrongModel"),
        (["llama"], "\x1b[31m\n" + "z" * 100_000, "WrongAttempt"),
    ],
)
def test_h2_what_a_stranger_calls_itself_is_told_in_one_bounded_line(
    names: list[str], attempt: str, reason: str
) -> None:
    async def test(watching: Watching) -> None:
        await watching.until_healthy(False)
        assert watching.state.last.reason == reason
        assert watching.state.last.message.isprintable()
        assert len(watching.state.last.message) <= 300

    watched(test, engine=Engine(names=names, attempt=attempt))


@pytest.mark.parametrize("target", [SGLANG, VLLM])
def test_stranger_behind_a_known_address_is_out_at_its_first_full_probe(
    target: ProbeTarget,
) -> None:
    engine = Engine(names=["llama", "isthmus-attempt-x7k2qp"])

    async def test(watching: Watching) -> None:
        await watching.until_healthy(True)
        engine.names, engine.attempt = ["llama", "isthmus-attempt-zzzzzz"], "zzzzzz"
        began = asyncio.get_running_loop().time()
        assert await watching.until_healthy(False) - began <= 6 * 5 * 1.05
        assert watching.state.last.reason == "WrongAttempt"
        assert watching.state.consecutive_failures == 1, "identity needs no second failure"

    watched(test, target=target, engine=engine)


def test_worker_that_was_away_must_prove_its_identity_again() -> None:
    async def test(watching: Watching) -> None:
        await watching.until_healthy(True)
        watching.engine.refuses = True
        await asyncio.sleep(6)
        watching.engine.refuses = False
        watching.engine.attempt = "zzzzzz"
        await watching.until_healthy(False)
        assert watching.state.last.reason == "WrongAttempt"

    watched(test)


def test_vllm_without_its_second_name_is_not_our_attempt() -> None:
    async def test(watching: Watching) -> None:
        await watching.until_healthy(False)
        assert watching.state.last.reason == "WrongAttempt"
        assert "isthmus-attempt-x7k2qp" in watching.state.last.message

    watched(test, target=VLLM, engine=Engine(names=["llama"]))


def test_healthy_sglang_is_asked_for_a_token_only_now_and_then() -> None:
    async def test(watching: Watching) -> None:
        await watching.until_healthy(True)
        watching.engine.asked.clear()
        await asyncio.sleep(600)
        paths = watching.engine.paths()
        assert 15 <= paths.count("/health") <= 25
        assert 90 <= paths.count("/ready") <= 110
        assert paths.count("/model_info") == paths.count("/health"), "identity with each of them"

    watched(test)


def test_hanging_scheduler_behind_a_ready_server_is_found() -> None:
    """SGLang's /ready does not generate; only /health notices."""

    async def test(watching: Watching) -> None:
        await watching.until_healthy(True)
        watching.engine.health = 503
        began = asyncio.get_running_loop().time()
        assert await watching.until_healthy(False) - began < 6 * 5 * 1.05 + 3 * 5

    watched(test)


def test_changes_are_reported_once_and_probes_are_not() -> None:
    async def test(watching: Watching) -> None:
        await asyncio.sleep(600)
        assert len(watching.changes) == 2, "the first result and the change to healthy"
        watching.engine.refuses = True
        await asyncio.sleep(600)
        assert len(watching.changes) == 4, "the new reason and the change to unhealthy"

    watched(test)


def test_unwatched_worker_is_left_alone_and_a_changed_one_starts_anew() -> None:
    async def test(watching: Watching) -> None:
        await watching.until_healthy(True)
        watching.prober.watch(KEY, replace(SGLANG))
        assert watching.state.healthy is True, "an equal target changes nothing"
        watching.prober.watch(KEY, replace(SGLANG, url_base="http://node8:41003"))
        assert watching.prober.state(KEY) is None
        await watching.until_healthy(True)
        watching.prober.watch(KEY, None)
        watching.engine.asked.clear()
        await asyncio.sleep(60)
        assert watching.prober.state(KEY) is None
        assert watching.engine.asked == []

    watched(test)


@pytest.mark.parametrize("kind", [SGLANG, VLLM], ids=["sglang", "vllm"])
def test_h1_secrets_go_with_questions_for_the_identity_and_are_not_shown(kind: ProbeTarget) -> None:
    """Who listens at a published port is first asked without any: not health, nor metrics."""
    target = replace(
        kind,
        api_key="geheim",
        headers=(("X-Probe", "offen"),),
        secret_headers=(("X-Token", "vertraulich"),),
    )
    open_paths = {"/health", "/metrics"} | ({"/ready"} if kind is SGLANG else set())
    guarded = {"/v1/models"} | ({"/model_info"} if kind is SGLANG else set())

    async def test(watching: Watching) -> None:
        await watching.until_healthy(True)
        await asyncio.sleep(60)
        watching.prober.watch(KEY, target, draining=True)
        await asyncio.sleep(10)
        sent = watching.engine.sent
        assert {path for path, _ in sent} == open_paths | guarded
        secret = {"Authorization": "Bearer geheim", "X-Token": "vertraulich"}
        for path, headers in sent:
            assert headers == {"X-Probe": "offen"} | (secret if path in guarded else {}), path

    identity = ["llama", "isthmus-attempt-x7k2qp"]
    watched(test, target=target, engine=Engine(names=identity))
    assert "geheim" not in repr(target)
    assert "vertraulich" not in repr(target)


@pytest.mark.parametrize(
    ("sick", "asked"),
    [
        ({"health": 503}, {"/health"}),
        ({"health": 500}, {"/health"}),
        ({"names": ["mistral"]}, {"/health", "/v1/models"}),
        ({"attempt": "zzzzzz"}, {"/health", "/v1/models", "/model_info"}),
    ],
)
def test_h1_nothing_more_is_asked_once_something_is_wrong(
    sick: dict[str, object], asked: set[str]
) -> None:
    """So a key goes nowhere before the health is good."""
    engine = Engine()
    for name, value in sick.items():
        setattr(engine, name, value)

    async def test(watching: Watching) -> None:
        await watching.until_healthy(False)
        assert set(watching.engine.paths()) == asked

    watched(test, target=replace(SGLANG, api_key="geheim"), engine=engine)


def test_m8_what_nobody_thought_of_is_logged_once_and_not_at_each_probe(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Odd(Engine):
        async def get(self, url: str, *, headers: Mapping[str, str]) -> EngineAnswer:
            raise RuntimeError("a bug of ours")

    async def work(watching: Watching) -> None:
        await asyncio.sleep(300)
        state = watching.prober.state(KEY)
        assert state is not None
        assert state.last.message == "unexpected RuntimeError"

    watched(work, engine=Odd())
    assert caplog.text.count("failed unexpectedly") == 1


def test_m8_hanging_engines_of_one_namespace_do_not_delay_another_ones_probes() -> None:
    """Nor does it matter how many there are: they hold three quarters of the places."""

    async def work() -> None:
        engine = Engine(silent_at="http://hanging")
        prober = Prober(engine, on_change=lambda key: None, random=Random(1), concurrency=8)
        for number in range(64):
            hostile = replace(SGLANG, url_base=f"http://hanging:{number}", timeout=20)
            prober.watch(Key("SlurmJob", "team-z", f"hanging-{number}"), hostile)
        await asyncio.sleep(1)
        prober.watch(KEY, SGLANG)
        begun = asyncio.get_running_loop().time()
        await asyncio.sleep(30)
        asked = [at for at, path, _ in engine.asked if path == "/v1/models"]
        assert asked[0] - begun < 1
        assert len([at for at, path, _ in engine.asked if path in {"/ready", "/v1/models"}]) >= 5
        await prober.close()

    run_virtual(work)


# --- over real sockets


@asynccontextmanager
async def server(behaviour: str, *, takes: float = 0.0) -> AsyncIterator[str]:
    """An HTTP server that is a healthy SGLang, or drips or floods; yields its address.

    Its metrics stand on a page of five megabytes, and show a request in prefill.
    """
    unknown = b'sglang:http_requests_total{endpoint="/%d",method="GET"} 1.0\n'
    metrics = b"".join(unknown % number for number in range(100_000)) + Engine(active=1).page()
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
            await asyncio.sleep(takes)
            if behaviour != "healthy":
                writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            while behaviour != "healthy":
                writer.write(b"x" * (1_000_000 if behaviour == "floods" else 1))
                await writer.drain()
                await asyncio.sleep(0 if behaviour == "floods" else 0.05)
            body = {"data": [{"id": "llama"}], "weight_version": "x7k2qp"}
            text = json.dumps(body if path != "/health" else {}).encode()
            text = metrics if path == "/metrics" else text
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + text)
            await writer.drain()
        except (ConnectionError, EOFError):
            pass
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        connections[task] = writer

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        for writer in connections.values():  # a task that never began has closed nothing
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@asynccontextmanager
async def real_prober() -> AsyncIterator[Prober]:
    async with HttpProbeClient() as client:
        prober = Prober(client, on_change=lambda key: None)
        try:
            yield prober
        finally:
            await prober.close()


async def test_one_hanging_worker_does_not_delay_another() -> None:
    fast = replace(SGLANG, interval=0.05, timeout=30.0)
    hanging, good = replace(KEY, name="hanging"), replace(KEY, name="good")
    async with (
        server("healthy", takes=3600) as slow,
        server("healthy") as quick,
        real_prober() as prober,
    ):
        prober.watch(hanging, replace(fast, url_base=slow))
        prober.watch(good, replace(fast, url_base=quick))
        await until(lambda: (prober.state(good) or NEVER).healthy is True)
        assert prober.state(hanging) is None


@pytest.mark.parametrize(
    ("behaviour", "takes", "reason"),
    [
        ("healthy", 3600.0, "Timeout"),
        ("drips", 0.0, "Timeout"),  # each byte comes in time, the end never does
        ("floods", 0.0, "HttpError"),
    ],
)
async def test_bad_servers_cost_neither_time_nor_memory(
    behaviour: str, takes: float, reason: str
) -> None:
    async with server(behaviour, takes=takes) as address, real_prober() as prober:
        prober.watch(KEY, replace(SGLANG, url_base=address, timeout=0.5))
        await until(lambda: prober.state(KEY) is not None)
        assert (prober.state(KEY) or NEVER).last.reason == reason


async def test_the_load_is_seen_on_a_page_of_five_megabytes() -> None:
    async with server("healthy") as address, real_prober() as prober:
        target = replace(SGLANG, url_base=address)
        assert await prober.loads({"a": target}, time_limit=20) == {"a": 1}


async def test_a_bottomless_page_of_metrics_costs_no_more_than_its_time() -> None:
    async with server("floods") as address, real_prober() as prober:
        target = replace(SGLANG, url_base=address)
        assert await prober.loads({"a": target}, time_limit=20) == {"a": None}


async def test_closed_port_is_refused() -> None:
    async with server("healthy") as address:
        pass
    async with real_prober() as prober:
        prober.watch(KEY, replace(SGLANG, url_base=address))
        await until(lambda: prober.state(KEY) is not None)
        assert (prober.state(KEY) or NEVER).last.reason == "Refused"


class _Never:
    healthy = None
    last = None


NEVER: ProbeState = _Never()  # type: ignore[assignment]
