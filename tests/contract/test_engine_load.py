"""What the simulated engines say of their load, and what operator and pods make of it.

The engines are told to take long for a prefill: the time in which SGLang's gauges show nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from isthmus.backends.kubernetes.prestop import pre_stop
from isthmus.engines import ENGINES
from isthmus.engines.metrics import Reading, held_requests
from playground.engines.install import install
from playground.engines.launch import EngineProcess, free_port, start

KNOBS = {
    "SIMULATOR_LOAD_SECONDS": "0.1",
    "SIMULATOR_FIRST_TOKEN_SECONDS": "0.01",
    "SIMULATOR_TOKENS_PER_SECOND": "200",
    "SIMULATOR_PREFILL_TOKEN_SECONDS": "0.001",
    "SIMULATOR_TEARDOWN_SECONDS": "0",
}
MODEL = "org/model"
PROMPT = "word " * 600
"""A prefill of 0.6 s."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the simulators once."""
    destination = tmp_path_factory.mktemp("engines")
    install(destination)
    return destination


@contextmanager
def launched(
    tree: Path, log: Path, name: str, *words: str, key: str = ""
) -> Iterator[EngineProcess]:
    port = free_port()
    model = [MODEL] if name == "vllm" else ["--model-path", MODEL, "--enable-metrics"]
    command: list[str | Path] = [tree / "bin" / name, "serve", *model, "--port", str(port), *words]
    environment = KNOBS
    if key and name == "vllm":
        environment = KNOBS | {"VLLM_API_KEY": key}
    elif key:
        command += ["--api-key", key]
    with start(command, log_path=log, port=port, environment=environment) as engine:
        engine.wait_ready(path="/health" if name == "vllm" else "/ready")
        yield engine


def page(engine: EngineProcess) -> bytes:
    return httpx.get(f"{engine.url}/metrics", trust_env=False).content


def reading(engine: EngineProcess, name: str) -> Reading:
    found = held_requests(page(engine), rule=ENGINES[name].load)
    assert found is not None
    return found


def gauges(engine: EngineProcess) -> float:
    """What SGLang's scheduler says."""
    lines = page(engine).decode().splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith(("sglang:num_running_reqs{", "sglang:num_queue_reqs{"))
    )


def eventually(condition: Callable[[], bool], *, timeout: float = 20.0) -> None:
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, "it never became so"
        time.sleep(0.02)


class Asking:
    """A request that is asked in a thread; `over` when its answer is there."""

    def __init__(self, engine: EngineProcess, *, tokens: int = 5, **fields: object) -> None:
        body = {"prompt": PROMPT, "max_tokens": tokens, "ignore_eos": True, **fields}
        self.over = threading.Event()
        self.status = 0
        self._url = f"{engine.url}/v1/completions"
        self._body = json.dumps(body)
        threading.Thread(target=self._ask, daemon=True).start()

    def _ask(self) -> None:
        kind = {"content-type": "application/json"}
        try:
            answer = httpx.post(
                self._url, content=self._body, headers=kind, timeout=60, trust_env=False
            )
            self.status = answer.status_code
        finally:
            self.over.set()


def hook(engine: EngineProcess, name: str) -> subprocess.Popen[bytes]:
    found: Any = pre_stop(
        floor=0, budget=60, metrics=f"{engine.url}/metrics", rule=ENGINES[name].load
    )
    return subprocess.Popen(found["exec"]["command"], env={"PATH": os.environ["PATH"]})


def test_the_gauges_of_sglang_do_not_show_a_prefill_and_forty_tokens(
    tree: Path, tmp_path: Path
) -> None:
    with launched(tree, tmp_path / "log", "sglang") as engine:
        asking = Asking(engine, tokens=30)
        eventually(lambda: reading(engine, "sglang").requests == 1)
        seen = []
        while not asking.over.is_set():
            seen.append((gauges(engine), reading(engine, "sglang").requests))
        assert {shown for shown, _ in seen} == {0.0}
        assert [held for _, held in seen[:-1]] == [1] * (len(seen) - 1)
        assert len(seen) > 5
        loads = httpx.get(f"{engine.url}/v1/loads", trust_env=False).json()["loads"]
        assert loads[0]["num_total_reqs"] == 0
        long = Asking(engine, tokens=200, prompt="short")
        eventually(lambda: gauges(engine) == 1)  # after forty steps
        assert long.over.wait(30)
        eventually(lambda: gauges(engine) == 0)


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_a_pod_in_prefill_is_not_told_to_end(tree: Path, tmp_path: Path, name: str) -> None:
    with launched(tree, tmp_path / "log", name) as engine:
        begun = time.monotonic()
        asking = Asking(engine, prompt=PROMPT * 4)
        eventually(lambda: reading(engine, name).requests == 1)
        assert hook(engine, name).wait(30) == 0
        assert time.monotonic() - begun >= 4 * 0.6, "the hook was over before the prefill"
        assert asking.over.wait(10)
        assert asking.status == 200


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_waiting_requests_count_and_an_answered_one_does_not(
    tree: Path, tmp_path: Path, name: str
) -> None:
    one = ["--max-num-seqs" if name == "vllm" else "--max-running-requests", "1"]
    with launched(tree, tmp_path / "log", name, *one) as engine:
        asking = [Asking(engine) for _ in range(3)]
        eventually(lambda: reading(engine, name).requests == 3)
        assert all(each.over.wait(30) for each in asking)
        eventually(lambda: reading(engine, name).requests == 0)


def test_probes_under_way_are_no_load(tree: Path, tmp_path: Path) -> None:
    with launched(tree, tmp_path / "log", "sglang") as engine:
        probing = threading.Thread(target=engine.status, args=("/health",))
        probing.start()
        eventually(lambda: b'{endpoint="/health",method="GET"} 1.0' in page(engine))
        assert reading(engine, "sglang") == Reading(0, 0.5)
        probing.join()


def test_unknown_paths_make_the_page_of_sglang_grow_for_good(tree: Path, tmp_path: Path) -> None:
    with launched(tree, tmp_path / "log", "sglang") as engine:
        before = len(page(engine))
        with httpx.Client(base_url=engine.url, trust_env=False) as http:
            for number in range(100):
                assert http.get(f"/no/such/path/{number}").status_code == 404
        assert len(page(engine)) > before + 100 * 100
        assert reading(engine, "sglang").requests == 0


@pytest.mark.parametrize(
    ("name", "size", "version"), [("vllm", 55_000, "1.0.0"), ("sglang", 76_000, "0.0.4")]
)
def test_pages_have_the_size_and_the_type_of_the_real_ones(
    tree: Path, tmp_path: Path, name: str, size: int, version: str
) -> None:
    with launched(tree, tmp_path / "log", name) as engine:
        for path in ("/metrics", "/metrics/"):
            answer = httpx.get(f"{engine.url}{path}", trust_env=False)
            assert answer.status_code == 200
            assert f"version={version};" in answer.headers["content-type"]
            assert 0.9 * size < len(answer.content) < 1.1 * size


def test_what_vllm_says_is_at_most_half_a_second_late(tree: Path, tmp_path: Path) -> None:
    with launched(tree, tmp_path / "log", "vllm") as engine:
        eventually(lambda: reading(engine, "vllm").requests == 0)
        asking = Asking(engine)
        time.sleep(0.1)
        begun = time.monotonic()
        while reading(engine, "vllm").requests == 0:
            assert time.monotonic() - begun < 0.5 + 0.2
        assert asking.over.wait(20)


# ---- What an engine answers to whoever reaches its port


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_exactly_the_open_paths_of_the_profile_are_answered_without_the_key(
    tree: Path, tmp_path: Path, name: str
) -> None:
    with launched(tree, tmp_path / "log", name, key="k") as engine:
        listed = ENGINES[name].open_paths
        with httpx.Client(base_url=engine.url, trust_env=False, timeout=10) as http:
            for path in listed:
                answers = [http.get(path), http.post(path, json={})]
                found = {answer.status_code for answer in answers}
                assert 401 not in found, path
                assert found != {404}, path
            known = set(listed) | {"/v1/models", "/v1/chat/completions", "/v1/completions"}
            known |= {"/model_info", "/server_info", "/v1/loads", "/v1/tokenize", "/ping"}
            if name == "vllm":
                known |= set(http.get("/openapi.json").json()["paths"])
            for path in known - set(listed):
                found = {http.get(path).status_code, http.post(path, json={}).status_code}
                assert found <= {401, 404}, path


def test_vllm_works_for_whoever_reaches_its_port(tree: Path, tmp_path: Path) -> None:
    with (
        launched(tree, tmp_path / "log", "vllm", key="k") as engine,
        httpx.Client(base_url=engine.url, trust_env=False, timeout=10) as http,
    ):
        chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
        assert http.post("/v1/chat/completions", json=chat).status_code == 401
        answer = http.post("/invocations", json=chat)
        assert answer.json()["choices"][0]["message"]["content"]
        answer = http.post("/invocations", json={"prompt": "Hi", "max_tokens": 2})
        assert answer.json()["choices"][0]["text"]
        assert http.post("/tokenize", json={"prompt": "a b"}).json()["count"] == 2
        assert http.post("/scale_elastic_ep", json={}).status_code == 400
        assert http.options("/v1/chat/completions").status_code == 405
        assert http.get("/nowhere").json() == {"detail": "Not Found"}
