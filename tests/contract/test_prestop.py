"""The hook of a pod, as a real process in front of a server that shows metrics."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from isthmus.backends.kubernetes import prestop
from isthmus.engines import ENGINES
from playground.engines.launch import free_port
from playground.engines.metrics import HttpCounts, Statistics, sglang_page, vllm_page

RULE = ENGINES["vllm"].load


class Engine:
    """What the server shows; None for 404."""

    def __init__(self, name: str = "vllm") -> None:
        self.name = name
        self.held: Statistics | None = Statistics()
        self.http: HttpCounts | None = HttpCounts()
        self.http.begin("/metrics", "GET")  # the question itself
        self.more = b""
        self.url = ""
        self.asked = 0

    def page(self) -> bytes | None:
        self.asked += 1
        if self.held is None:
            return None
        if self.name == "vllm":
            return self.more + vllm_page(self.held, model_name="a} b")
        return self.more + sglang_page(
            self.held, model_name="llama", engine_type="unified", http=self.http
        )


@contextmanager
def shown(engine: Engine) -> Iterator[Engine]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = engine.page()
            self.send_response(404 if page is None else 200)
            self.end_headers()
            self.wfile.write(page or b"")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    engine.url = f"http://127.0.0.1:{server.server_address[1]}/metrics"
    try:
        yield engine
    finally:
        server.shutdown()
        server.server_close()


def started(engine: Engine, *, floor: int = 0, budget: int = 60) -> "subprocess.Popen[bytes]":
    hook: Any = prestop.pre_stop(
        floor=floor,
        budget=budget,
        metrics=engine.url,
        rule=ENGINES[engine.name].load,
    )
    return subprocess.Popen(hook["exec"]["command"], env={"PATH": "/usr/bin:/bin"})


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_it_waits_for_running_and_waiting_requests(name: str) -> None:
    with shown(Engine(name)) as engine:
        engine.held = Statistics(running=1, shown_running=1)
        process = started(engine)
        _asked_again(engine)
        assert process.poll() is None
        engine.held = Statistics(waiting=1, shown_waiting=1)
        _asked_again(engine)
        assert process.poll() is None
        engine.held = Statistics()
        assert process.wait(20) == 0


def test_it_waits_for_a_prefill_that_no_gauge_shows() -> None:
    with shown(Engine("sglang")) as engine:
        assert engine.http is not None
        engine.http.begin("/v1/chat/completions", "POST")
        process = started(engine)
        _asked_again(engine, times=4)
        assert process.poll() is None
        engine.http.end("/v1/chat/completions", "POST")
        assert process.wait(20) == 0


def test_a_release_that_counts_no_requests_is_watched_for_longer() -> None:
    with shown(Engine("sglang")) as engine:
        engine.http = None
        process = started(engine)
        _asked_again(engine, times=6)
        assert process.poll() is None, "two looks are no proof here"
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_it_sees_the_load_on_a_page_of_five_megabytes(name: str) -> None:
    line = b'sglang:http_requests_total{endpoint="/%d",method="GET"} 1.0\n'
    with shown(Engine(name)) as engine:
        engine.more = b"".join(line % number for number in range(100_000))
        assert len(engine.more) > 5_000_000
        engine.held = Statistics(running=1, shown_running=1)
        process = started(engine)
        _asked_again(engine)
        assert process.poll() is None
        engine.held = Statistics()
        assert process.wait(20) == 0


def test_an_idle_engine_is_left_after_the_floor() -> None:
    with shown(Engine()) as engine:
        begun = time.monotonic()
        assert started(engine, floor=1).wait(20) == 0
        assert time.monotonic() - begun >= 1


def test_it_gives_up_at_the_end_of_the_budget() -> None:
    with shown(Engine()) as engine:
        engine.held = Statistics(running=5, shown_running=5)
        assert started(engine, budget=1).wait(20) == 0


def test_it_gives_up_when_the_metrics_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prestop, "SILENCE_SECONDS", 1)
    with shown(Engine()) as engine:
        engine.held = None
        begun = time.monotonic()
        assert started(engine, budget=600).wait(30) == 0
        assert time.monotonic() - begun >= 1
        assert engine.asked > 1


def test_an_engine_that_does_not_listen_yet_is_not_waited_for_at_all() -> None:
    """It has no requests, and never was an endpoint: neither floor nor silence."""
    engine = Engine()
    engine.url = f"http://127.0.0.1:{free_port()}/metrics"
    assert started(engine, floor=600, budget=600).wait(30) == 0


def test_an_image_without_python_still_waits_the_floor() -> None:
    engine = Engine()
    hook: Any = prestop.pre_stop(floor=1, budget=60, metrics="http://127.0.0.1:1/", rule=RULE)
    begun = time.monotonic()
    bare = {"PATH": "/nowhere"}
    command = [word.replace("|| sleep", "|| /bin/sleep") for word in hook["exec"]["command"]]
    assert subprocess.run(command, env=bare, timeout=20, stderr=subprocess.DEVNULL).returncode == 0
    assert time.monotonic() - begun >= 1
    assert not engine.asked


def _asked_again(engine: Engine, *, times: int = 2) -> None:
    seen = engine.asked
    deadline = time.monotonic() + 20
    while engine.asked < seen + times:
        assert time.monotonic() < deadline, "the hook asks for the metrics"
        time.sleep(0.05)
