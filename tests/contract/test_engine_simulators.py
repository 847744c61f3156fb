"""The simulated engines as a client sees them: readiness, identity, completions, metrics, wire."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from playground.engines.install import install
from playground.engines.launch import EngineProcess, start
from playground.engines.sglang import HEALTH_STEP_SECONDS
from tests.ports import free_port

QUICK = {
    "SIMULATOR_LOAD_SECONDS": "0.2",
    "SIMULATOR_FIRST_TOKEN_SECONDS": "0.01",
    "SIMULATOR_TOKENS_PER_SECOND": "500",
}
MODEL = "org/model"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the simulators once."""
    destination = tmp_path_factory.mktemp("engines")
    install(destination)
    return destination


def launch(tree: Path, log_path: Path, engine: str, *words: str, **knobs: str) -> EngineProcess:
    """Start an engine on a free port without waiting for it."""
    port = free_port()
    model = [MODEL] if engine == "vllm" else ["--model-path", MODEL]
    command: list[str | Path] = [
        tree / "bin" / engine,
        "serve",
        *model,
        "--port",
        str(port),
        *words,
    ]
    return start(command, log_path=log_path, port=port, environment=QUICK | knobs)


@pytest.fixture(scope="module")
def vllm(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """One vLLM with two names, a key and room for two requests at once."""
    log = tmp_path_factory.mktemp("vllm") / "log"
    words = ("--served-model-name", "llama", "attempt-7", "--api-key", "k", "--max-num-seqs", "2")
    with launch(tree, log, "vllm", *words, "--max-model-len", "2k") as engine:
        engine.wait_ready()
        yield engine


@pytest.fixture(scope="module")
def sglang(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """One SGLang with a name, an attempt, a key, metrics and room for two requests at once."""
    log = tmp_path_factory.mktemp("sglang") / "log"
    words = ["--served-model-name", "llama", "--weight-version", "attempt-7", "--api-key", "k"]
    words += ["--enable-metrics", "--max-running-requests", "2", "--context-length", "2048"]
    with launch(tree, log, "sglang", *words) as engine:
        engine.wait_ready(path="/ready")
        yield engine


@pytest.fixture(params=["vllm", "sglang"])
def engine(request: pytest.FixtureRequest) -> EngineProcess:
    """Both engines, one after the other."""
    started = request.getfixturevalue(request.param)
    assert isinstance(started, EngineProcess)
    return started


def client(engine: EngineProcess) -> httpx.Client:
    """Open a client that has the key."""
    return httpx.Client(
        base_url=engine.url, headers={"authorization": "Bearer k"}, timeout=30, trust_env=False
    )


def chat(model: str = "llama", **fields: object) -> dict[str, object]:
    """Build the body of a chat completion."""
    return {"model": model, "messages": [{"role": "user", "content": "Where are you?"}]} | fields


def events(response: httpx.Response) -> list[dict[str, object]]:
    """Read the events of a stream that must end in [DONE]."""
    lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def eventually(condition: Callable[[], bool], *, timeout: float = 10.0) -> None:
    """Wait until something is so."""
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, "it never became so"
        time.sleep(0.02)


def metric(page: str, name: str) -> float:
    """Return the value of the only sample of a metric."""
    (line,) = [line for line in page.splitlines() if line.startswith(name + "{")]
    return float(line.rsplit(" ", 1)[1])


def test_vllm_refuses_connections_until_ready(tree: Path, tmp_path: Path) -> None:
    slow = {"SIMULATOR_LOAD_SECONDS": "1"}
    began = time.monotonic()
    with launch(tree, tmp_path / "log", "vllm", **slow) as engine:
        port = int(engine.url.rsplit(":", 1)[1])
        refused = 0
        while True:
            assert engine.process.poll() is None
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
                break
            except ConnectionRefusedError:
                refused += 1
        accepted = time.monotonic()
        assert refused > 1
        assert engine.status() == 200
        answered = time.monotonic()
        assert answered - accepted < (accepted - began) / 2, "not accepted first, answered later"
        eventually(lambda: "Application startup complete." in engine.log)
        assert f"Starting vLLM server on http://0.0.0.0:{port}" in engine.log


def test_sglang_refuses_then_says_503_then_200(tree: Path, tmp_path: Path) -> None:
    slow = {"SIMULATOR_LOAD_SECONDS": "1"}
    with launch(tree, tmp_path / "log", "sglang", **slow) as engine:
        seen = [engine.status("/ready")]
        health_before = None
        while seen[-1] != 200:
            assert engine.process.poll() is None
            seen.append(engine.status("/ready"))
            if seen[-1] == 503:
                health_before = health_before or engine.status("/health")
        assert list(dict.fromkeys(seen)) == [None, 503, 200]
        assert health_before == 503
        eventually(lambda: "The server is fired up and ready to roll!" in engine.log)


def quickest(engine: EngineProcess, path: str) -> float:
    """Seconds of the fastest of some answers; what a busy machine adds is in the others."""
    took = []
    for _ in range(8):
        begin = time.monotonic()
        assert engine.status(path) == 200
        took.append(time.monotonic() - begin)
    return min(took)


def test_vllm_health_is_instant_and_has_no_ready_route(vllm: EngineProcess) -> None:
    assert quickest(vllm, "/health") < HEALTH_STEP_SECONDS / 2
    assert vllm.status("/ping") == 200
    assert vllm.status("/ready") == 404
    assert vllm.status("/model_info") == 404


def test_sglang_health_takes_a_second_and_ready_is_instant(sglang: EngineProcess) -> None:
    begin = time.monotonic()
    assert sglang.status("/health") == 200
    assert time.monotonic() - begin >= HEALTH_STEP_SECONDS
    assert quickest(sglang, "/ready") < HEALTH_STEP_SECONDS / 2


def test_vllm_lists_every_served_name(vllm: EngineProcess) -> None:
    with client(vllm) as http:
        data = http.get("/v1/models").json()["data"]
    assert [model["id"] for model in data] == ["llama", "attempt-7"]
    assert {model["root"] for model in data} == {MODEL}
    assert {model["max_model_len"] for model in data} == {2000}


def test_sglang_tells_its_model_and_attempt(sglang: EngineProcess) -> None:
    with client(sglang) as http:
        assert [model["id"] for model in http.get("/v1/models").json()["data"]] == ["llama"]
        info = http.get("/model_info").json()
        server = http.get("/server_info").json()
        assert http.get("/get_load").status_code == 404
        assert http.get("/v1/models/other").status_code == 404
    assert (info["model_path"], info["weight_version"]) == (MODEL, "attempt-7")
    assert (server["served_model_name"], server["version"]) == ("llama", "0.5.23")


def test_weight_version_has_a_default_and_metrics_are_off(tree: Path, tmp_path: Path) -> None:
    with launch(tree, tmp_path / "log", "sglang") as engine:
        engine.wait_ready(path="/ready")
        assert httpx.get(f"{engine.url}/model_info").json()["weight_version"] == "default"
        assert engine.status("/metrics") == 404


def test_unknown_model_is_404_on_vllm_only(vllm: EngineProcess, sglang: EngineProcess) -> None:
    with client(vllm) as http:
        answer = http.post("/v1/chat/completions", json=chat("other"))
        assert answer.status_code == 404
        assert answer.json()["error"]["type"] == "NotFoundError"
        assert http.post("/v1/chat/completions", json=chat("attempt-7")).status_code == 200
    with client(sglang) as http:
        assert http.post("/v1/chat/completions", json=chat("other")).status_code == 200


def test_keys_guard_what_the_real_engines_guard(vllm: EngineProcess, sglang: EngineProcess) -> None:
    assert vllm.status("/v1/models") == 401
    for path in ("/health", "/metrics", "/load", "/version"):
        assert vllm.status(path) == 200, path
    for path in ("/v1/models", "/model_info", "/server_info", "/ping"):
        assert sglang.status(path) == 401, path
    for path in ("/health", "/ready", "/metrics"):
        assert sglang.status(path) == 200, path


def test_an_answer_says_where_it_comes_from(engine: EngineProcess) -> None:
    name = "vLLM" if "vllm" in str(engine.process.args) else "SGLang"
    with client(engine) as http:
        body = http.post("/v1/chat/completions", json=chat()).json()
    text = body["choices"][0]["message"]["content"]
    assert text.startswith(f"Hello from {name} on {socket.gethostname()} ")
    assert f"process {engine.pid})" in text
    assert body["system_fingerprint"].startswith(f"{name.lower()}-")
    assert body["choices"][0]["finish_reason"] == "stop"


def test_max_tokens_is_honoured(engine: EngineProcess) -> None:
    with client(engine) as http:
        short = http.post("/v1/chat/completions", json=chat(max_tokens=5)).json()
        exact = http.post("/v1/chat/completions", json=chat(max_tokens=90, ignore_eos=True)).json()
        long = http.post("/v1/chat/completions", json=chat(max_tokens=5000))
        text = http.post(
            "/v1/completions", json={"model": "llama", "prompt": "a b", "max_tokens": 3}
        )
    assert short["usage"]["completion_tokens"] == 5
    assert len(short["choices"][0]["message"]["content"].split()) == 5
    assert short["choices"][0]["finish_reason"] == "length"
    assert exact["usage"]["completion_tokens"] == 90
    assert long.status_code == 400
    assert "maximum context length" in long.text
    assert text.json()["choices"][0]["text"].startswith("Hello from")
    assert text.json()["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}


def test_a_stream_has_chunks_usage_and_an_end(engine: EngineProcess) -> None:
    body = chat(stream=True, max_tokens=7, stream_options={"include_usage": True})
    with client(engine) as http, http.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        chunks = events(answer)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"  # type: ignore[index]
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]  # type: ignore[index]
    assert len("".join(c["delta"]["content"] for c in choices).split()) == 7
    assert [c["finish_reason"] for c in choices][-2:] == [None, "length"]
    assert chunks[-1]["usage"]["completion_tokens"] == 7  # type: ignore[index]


def test_bad_bodies_are_400(engine: EngineProcess) -> None:
    with client(engine) as http:
        for body in (
            b"{",
            b"[]",
            b'{"model":"llama"}',
            b'{"messages":[{"role":"user"}],"max_tokens":-1}',
            b'{"messages":[{"role":"user"}],"temperature":-0.1}',
        ):
            answer = http.post(
                "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
            )
            assert answer.status_code == 400, body
        assert http.post("/v1/chat/completions", content=b"{}").status_code == 400


def test_small_differences(vllm: EngineProcess, sglang: EngineProcess) -> None:
    nothing = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 0}
    with client(vllm) as http:
        assert http.post("/v1/chat/completions", json=nothing).status_code == 400
        answer = http.post("/v1/chat/completions", json=nothing | {"max_tokens": 1}).json()
        assert answer["model"] == "llama"
        assert answer["id"].startswith("chatcmpl-")
    with client(sglang) as http:
        answer = http.post("/v1/chat/completions", json=nothing).json()
        assert answer["model"] == "default"
        assert answer["usage"]["completion_tokens"] == 0
        assert not answer["id"].startswith("chatcmpl-")


def test_concurrency_is_bounded_and_the_rest_waits(engine: EngineProcess) -> None:
    prefix = "vllm:num_requests_" if "vllm" in str(engine.process.args) else "sglang:num_"
    running, waiting = (
        (f"{prefix}running", f"{prefix}waiting")
        if prefix.startswith("vllm")
        else (f"{prefix}running_reqs", f"{prefix}queue_reqs")
    )
    body = chat(max_tokens=300, ignore_eos=True)

    def counts() -> tuple[float, float]:
        page = httpx.get(f"{engine.url}/metrics").text
        return metric(page, running), metric(page, waiting)

    with client(engine) as http, ThreadPoolExecutor(5) as threads:
        answers = [threads.submit(http.post, "/v1/chat/completions", json=body) for _ in range(5)]
        eventually(lambda: counts() == (2, 3))
        assert {answer.result().status_code for answer in answers} == {200}
    eventually(lambda: counts() == (0, 0))


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place(engine: EngineProcess, stream: bool) -> None:
    vllm = "vllm" in str(engine.process.args)
    name = "vllm:num_requests_running" if vllm else "sglang:num_running_reqs"

    def running() -> float:
        return metric(httpx.get(f"{engine.url}/metrics").text, name)

    body = json.dumps(chat(stream=stream, max_tokens=1900, ignore_eos=True))
    port = int(engine.url.rsplit(":", 1)[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"content-type": "application/json", "authorization": "Bearer k"}
    connection.request("POST", "/v1/chat/completions", body=body, headers=headers)
    eventually(lambda: running() == 1)
    connection.close()
    eventually(lambda: running() == 0, timeout=2)


def test_metrics_have_the_real_names_and_labels(vllm: EngineProcess, sglang: EngineProcess) -> None:
    for engine in (vllm, sglang):
        with client(engine) as http:
            http.post("/v1/chat/completions", json=chat())
    page = httpx.get(f"{vllm.url}/metrics").text
    labels = 'engine="0",model_name="llama"'
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert f"\nvllm:{name}{{{labels}}} " in "\n" + page, name
    assert metric(page, "vllm:generation_tokens_total") > 0
    for name in (
        "time_to_first_token",
        "inter_token_latency",
        "request_queue_time",
        "e2e_request_latency",
    ):
        assert f"vllm:{name}_seconds_bucket{{{labels},le=" in page, name
    page = httpx.get(f"{sglang.url}/metrics").text
    labels = 'engine_type="unified",model_name="llama",moe_ep_rank="0",pp_rank="0",tp_rank="0"'
    for name in (
        "num_running_reqs",
        "num_queue_reqs",
        "token_usage",
        "utilization",
        "gen_throughput",
    ):
        assert f"\nsglang:{name}{{{labels}}} " in page, name
    assert metric(page, "sglang:generation_tokens_total") > 0
    for name in ("time_to_first_token", "inter_token_latency", "queue_time", "e2e_request_latency"):
        assert f"sglang:{name}_seconds_bucket{{{labels},le=" in page, name


def test_keep_alive_serves_on_and_closes_after_five_idle_seconds(
    vllm: EngineProcess, sglang: EngineProcess
) -> None:
    connections = [
        http.client.HTTPConnection("127.0.0.1", int(e.url.rsplit(":", 1)[1]), timeout=60)
        for e in (vllm, sglang)
    ]
    begin = time.monotonic()
    for connection in connections:
        for _ in range(2):
            connection.request("GET", "/metrics")
            assert connection.getresponse().read()
    for connection in connections:
        assert connection.sock is not None
        assert connection.sock.recv(1) == b"", "the server closes"
        assert time.monotonic() - begin >= 5.0
        connection.close()


def raw(engine: EngineProcess, data: bytes) -> bytes:
    """Send bytes and return what comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", int(engine.url.rsplit(":", 1)[1])), 10) as wire:
        wire.sendall(data)
        answer = b""
        while piece := wire.recv(65536):
            answer += piece
        return answer


def test_malformed_and_unsupported_requests(vllm: EngineProcess) -> None:
    end = b"Host: x\r\nConnection: close\r\n\r\n"
    assert raw(vllm, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(vllm, b"GET / HTTP/1.1\r\nbroken\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(vllm, b"GET /health HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(vllm, b"GET /nothing HTTP/1.1\r\n" + end).startswith(b"HTTP/1.1 404 ")
    assert raw(vllm, b"DELETE /health HTTP/1.1\r\n" + end).startswith(b"HTTP/1.1 405 ")
    head = raw(vllm, b"HEAD /version HTTP/1.1\r\n" + end)
    assert head.startswith(b"HTTP/1.1 405 ")
    assert head.endswith(b"\r\n\r\n")
    huge = b"POST /version HTTP/1.1\r\nContent-Length: 99999999999\r\n" + end
    assert raw(vllm, huge).startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_is_read(vllm: EngineProcess) -> None:
    body = json.dumps(chat(max_tokens=2)).encode()
    with client(vllm) as http:
        pieces = iter((body[:10], body[10:]))
        answer = http.post(
            "/v1/chat/completions", content=pieces, headers={"content-type": "application/json"}
        )
    assert answer.json()["usage"]["completion_tokens"] == 2


def test_injected_errors_are_seeded(tree: Path, tmp_path: Path) -> None:
    def outcomes(log: str) -> list[int]:
        knobs = {"SIMULATOR_ERROR_RATE": "0.5", "SIMULATOR_SEED": "3"}
        with launch(tree, tmp_path / log, "vllm", **knobs) as engine:
            engine.wait_ready()
            bodies = [chat(MODEL, max_tokens=1)] * 12
            with client(engine) as http:
                return [http.post("/v1/chat/completions", json=b).status_code for b in bodies]

    first = outcomes("first")
    assert set(first) == {200, 500}
    assert outcomes("second") == first


def test_an_error_in_a_stream_comes_under_200(tree: Path, tmp_path: Path) -> None:
    for name in ("vllm", "sglang"):
        with launch(tree, tmp_path / name, name, SIMULATOR_STREAM_ERROR_RATE="1") as engine:
            engine.wait_ready()
            body = chat(MODEL, stream=True)
            with (
                client(engine) as http,
                http.stream("POST", "/v1/chat/completions", json=body) as r,
            ):
                assert r.status_code == 200
                assert "error" in events(r)[-1]


def test_launch_server_module_works_and_warns(tree: Path, tmp_path: Path) -> None:
    port = free_port()
    command = ["/usr/bin/python3", "-m", "sglang.launch_server", "--model-path", MODEL]
    environment = QUICK | {"PYTHONPATH": str(tree / "lib")}
    with start(
        [*command, "--port", str(port)],
        log_path=tmp_path / "log",
        port=port,
        environment=environment,
    ) as engine:
        engine.wait_ready(path="/ready")
        assert "'sglang serve' is the recommended entrypoint" in engine.log


def test_the_installed_tree_is_world_readable(tree: Path) -> None:
    for path in tree.rglob("*"):
        wanted = 0o755 if path.is_dir() or path.parent.name == "bin" else 0o644
        if path.parent.name != "__pycache__" and path.name != "__pycache__":
            assert os.stat(path).st_mode & 0o777 == wanted, path
