"""How the simulated engines end: drained, hung, crashed, and with other ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from playground.engines.install import install
from playground.engines.launch import EngineProcess, start
from playground.engines.sglang import RANK_LOSS_SECONDS
from tests.ports import free_port

QUICK = {
    "SIMULATOR_LOAD_SECONDS": "0.1",
    "SIMULATOR_FIRST_TOKEN_SECONDS": "0.01",
    "SIMULATOR_TOKENS_PER_SECOND": "100",
    "SIMULATOR_DRAIN_POLL_SECONDS": "0.3",
    "SIMULATOR_CRASH_SECONDS": "0.5",
    "SIMULATOR_TEARDOWN_SECONDS": "0",
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


def chat(**fields: object) -> dict[str, object]:
    """Build the body of a chat completion."""
    return {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]} | fields


def ask(engine: EngineProcess) -> httpx.Response:
    """Send one short chat on a connection of its own."""
    url = f"{engine.url}/v1/chat/completions"
    return httpx.post(url, json=chat(max_tokens=1), timeout=10, trust_env=False)


def eventually(condition: Callable[[], bool], *, timeout: float = 10.0) -> None:
    """Wait until something is so."""
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, "it never became so"
        time.sleep(0.02)


class Stream:
    """A chat stream that is read in a thread."""

    def __init__(self, engine: EngineProcess, *, tokens: int) -> None:
        self.lines: list[str] = []
        self.cut = False
        self.started = threading.Event()
        self._url = f"{engine.url}/v1/chat/completions"
        self._body = chat(stream=True, max_tokens=tokens, ignore_eos=True)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self.started.wait(10)

    def _read(self) -> None:
        try:
            with httpx.stream(
                "POST", self._url, json=self._body, timeout=60, trust_env=False
            ) as answer:
                for line in answer.iter_lines():
                    if line:
                        self.lines.append(line)
                    if len(self.lines) > 1:
                        self.started.set()
        except httpx.HTTPError:
            self.cut = True

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def finish(self) -> list[dict[str, object]]:
        """Wait for the end and return the events before [DONE], if it came."""
        self._thread.join(20)
        assert self.over
        return [json.loads(line[6:]) for line in self.lines if line != "data: [DONE]"]

    @property
    def done(self) -> bool:
        return self.lines[-1:] == ["data: [DONE]"]


def finish_reason(event: dict[str, object]) -> object:
    return event["choices"][0]["finish_reason"]  # type: ignore[index]


def test_vllm_drains_streams_while_new_chats_fail_and_health_is_good(
    tree: Path, tmp_path: Path
) -> None:
    with launch(tree, tmp_path / "log", "vllm", "--shutdown-timeout", "30") as engine:
        engine.wait_ready()
        streams = [Stream(engine, tokens=150) for _ in range(4)]
        engine.terminate()
        eventually(lambda: ask(engine).status_code == 500)
        assert "cannot schedule new futures after shutdown" in ask(engine).text
        assert engine.status("/health") == 200
        for stream in streams:
            assert finish_reason(stream.finish()[-1]) == "length"
            assert stream.done
            assert len(stream.lines) >= 150
        assert engine.wait() == 0


def test_vllm_aborts_what_is_longer_than_its_shutdown_timeout(tree: Path, tmp_path: Path) -> None:
    with launch(tree, tmp_path / "log", "vllm", "--shutdown-timeout", "1") as engine:
        engine.wait_ready()
        stream = Stream(engine, tokens=3000)
        engine.terminate()
        assert engine.wait(timeout=5) == 0
        assert finish_reason(stream.finish()[-1]) == "abort"


def test_vllm_without_a_shutdown_timeout_hangs_until_killed(tree: Path, tmp_path: Path) -> None:
    with launch(tree, tmp_path / "log", "vllm") as engine:
        engine.wait_ready()
        stream = Stream(engine, tokens=300)
        engine.terminate()
        eventually(lambda: "Waiting for connections to close" in engine.log)
        before = len(stream.lines)
        assert engine.status("/health") is None  # it no longer listens
        with pytest.raises(TimeoutError):
            eventually_over(engine, stream, seconds=2)
        assert len(stream.lines) <= before + 1
        engine.process.kill()
        stream.finish()
        assert stream.cut


def eventually_over(engine: EngineProcess, stream: Stream, *, seconds: float) -> None:
    """Wait for the end of the engine or the stream; TimeoutError if both go on."""
    until = time.monotonic() + seconds
    while engine.process.poll() is None and not stream.over:
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.02)


def test_idle_vllm_ends_at_once(tree: Path, tmp_path: Path) -> None:
    with launch(tree, tmp_path / "log", "vllm") as engine:
        engine.wait_ready()
        engine.terminate()
        assert engine.wait(timeout=5) == 0


@pytest.mark.parametrize("words", [(), ("--shutdown-timeout", "30")])
def test_vllm_group_signal_ends_streams_with_an_error_and_done(
    tree: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    with launch(tree, tmp_path / "log", "vllm", *words) as engine:
        engine.wait_ready()
        stream = Stream(engine, tokens=2000)
        engine.terminate(group=True)
        assert "error" in stream.finish()[-1]
        assert stream.done
        assert engine.wait() == 0


def test_sglang_drains_with_health_bad_and_new_chats_served(tree: Path, tmp_path: Path) -> None:
    with launch(tree, tmp_path / "log", "sglang") as engine:
        engine.wait_ready(path="/ready")
        stream = Stream(engine, tokens=200)
        engine.terminate()
        eventually(lambda: engine.status("/ready") == 503)
        assert engine.status("/health") == 503
        assert ask(engine).status_code == 200
        assert engine.process.poll() is None
        assert finish_reason(stream.finish()[-1]) == "length"
        assert stream.done
        assert engine.wait() == 0


def test_sglang_group_signal_is_a_crash_with_cut_streams(tree: Path, tmp_path: Path) -> None:
    with launch(tree, tmp_path / "log", "sglang") as engine:
        engine.wait_ready(path="/ready")
        stream = Stream(engine, tokens=2000)
        engine.terminate(group=True)
        assert engine.wait() == -signal.SIGKILL  # a shell shows 137
        stream.finish()
        assert stream.cut
        assert not stream.done
        assert "crashed with exit code -15" in engine.log
        assert "SIGQUIT" in engine.log


def test_vllm_without_its_engine_core_is_unhealthy_and_ends(tree: Path, tmp_path: Path) -> None:
    with launch(tree, tmp_path / "log", "vllm") as engine:
        engine.wait_ready()
        stream = Stream(engine, tokens=2000)
        os.kill(engine.children()["VLLM::EngineCor"], signal.SIGKILL)
        assert "error" in stream.finish()[-1]
        eventually(lambda: engine.status("/health") in (503, None))
        assert engine.wait() == 0
        assert "died unexpectedly" in engine.log


def test_sglang_without_its_scheduler_crashes(tree: Path, tmp_path: Path) -> None:
    with launch(tree, tmp_path / "log", "sglang") as engine:
        engine.wait_ready(path="/ready")
        os.kill(engine.children()["sglang::schedul"], signal.SIGKILL)
        assert engine.wait() == -signal.SIGKILL
        assert "crashed with exit code -9" in engine.log


def test_the_processes_of_a_killed_vllm_live_on(tree: Path, tmp_path: Path) -> None:
    with launch(tree, tmp_path / "log", "vllm") as engine:
        engine.wait_ready()
        children = engine.children()
        assert set(children) == {"VLLM::EngineCor", "VLLM::Worker_TP"}
        engine.process.kill()
        engine.wait()
        time.sleep(0.5)  # in which nothing happens
        assert all(running(pid) for pid in children.values())
        os.kill(children["VLLM::EngineCor"], signal.SIGTERM)
        eventually(lambda: not running(children["VLLM::EngineCor"]))


@pytest.mark.parametrize("words", [(), ("--shutdown-timeout", "5")])
def test_an_orderly_end_of_vllm_leaves_no_child_behind(
    tree: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    with launch(tree, tmp_path / "log", "vllm", *words) as engine:
        engine.wait_ready()
        children = engine.children().values()
        engine.terminate()
        assert engine.wait() == 0
        for pid in children:
            eventually(lambda pid=pid: not running(pid))  # type: ignore[misc]


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_the_end_takes_its_time_after_the_last_request(
    tree: Path, tmp_path: Path, name: str
) -> None:
    knobs = {"SIMULATOR_TEARDOWN_SECONDS": "1", "SIMULATOR_DRAIN_POLL_SECONDS": "60"}
    words = ["--shutdown-timeout", "30"] if name == "vllm" else []
    with launch(tree, tmp_path / "log", name, *words, **knobs) as engine:
        engine.wait_ready(path="/v1/models")
        eventually(lambda: "startup complete" in engine.log or "ready to roll" in engine.log)
        begun = time.monotonic()
        engine.terminate()
        assert engine.wait() == 0
        assert time.monotonic() - begun >= 1


@pytest.mark.parametrize("name", ["sglang"])
def test_a_killed_engine_leaves_no_child_behind(tree: Path, tmp_path: Path, name: str) -> None:
    with launch(tree, tmp_path / "log", name) as engine:
        engine.wait_ready()
        children = engine.children().values()
        assert children
        engine.process.kill()
        engine.wait()
        for pid in children:
            eventually(lambda pid=pid: not running(pid))  # type: ignore[misc]


def running(pid: int) -> bool:
    """Tell whether a process lives; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_sigterm_ends_a_vllm_that_begins_to_load(tree: Path, tmp_path: Path) -> None:
    with launch(tree, tmp_path / "log", "vllm", SIMULATOR_LOAD_SECONDS="600") as engine:
        eventually(lambda: bool(engine.children()))
        eventually(lambda: catches_sigterm(engine.pid))
        engine.terminate()
        assert engine.wait(timeout=5) == 143


@pytest.mark.parametrize("hangs", [True, False])
def test_sigterm_hangs_a_vllm_whose_engine_core_starts(
    tree: Path, tmp_path: Path, hangs: bool
) -> None:
    knobs = {"SIMULATOR_HANG_AT_LOAD": "2", "SIMULATOR_HANG_AT_TERM": str(int(hangs))}
    with launch(tree, tmp_path / "log", "vllm", **knobs) as engine:
        eventually(lambda: "Initializing a V1 LLM engine" in engine.log)
        engine.terminate()
        if not hangs:
            assert engine.wait() == 143
            return
        eventually(lambda: "waiting for the engine core" in engine.log)
        with pytest.raises(subprocess.TimeoutExpired):
            engine.wait(timeout=2)
        assert engine.status("/health") is None  # it never comes to listen
        engine.terminate(group=True)
        assert engine.wait() == 1


def test_an_sglang_that_loads_has_no_handler_for_sigterm(tree: Path, tmp_path: Path) -> None:
    """As process 1 of a container it would not notice it at all."""
    with launch(tree, tmp_path / "log", "sglang", SIMULATOR_HANG_AT_LOAD="2") as engine:
        eventually(lambda: engine.status("/ready") == 503)
        assert not catches_sigterm(engine.pid)
        engine.terminate()
        assert engine.wait() == -signal.SIGTERM
    with launch(tree, tmp_path / "log", "sglang") as engine:
        engine.wait_ready(path="/ready")
        assert catches_sigterm(engine.pid)


def test_several_processes_of_vllm_need_room_in_shared_memory(tree: Path, tmp_path: Path) -> None:
    more = {"SIMULATOR_SHARED_MEMORY_MIB": "1000000000"}
    with launch(tree, tmp_path / "one", "vllm", **more) as engine:
        engine.wait_ready()
    two = ("--tensor-parallel-size=2",)
    with launch(tree, tmp_path / "two", "vllm", *two, **more) as engine:
        assert engine.wait() == 1
        assert (
            "RuntimeError: Insufficient space in /dev/shm for shared-memory allocation: "
            "1000000000 MiB required, "
        ) in engine.log
    with launch(tree, tmp_path / "fits", "vllm", *two, SIMULATOR_SHARED_MEMORY_MIB="0") as engine:
        engine.wait_ready()


def catches_sigterm(pid: int) -> bool:
    """Tell whether the process has a handler for SIGTERM by now."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def test_failing_while_loading_has_the_code_asked_for(tree: Path, tmp_path: Path) -> None:
    with launch(tree, tmp_path / "log", "vllm", SIMULATOR_EXIT_AT_LOAD="7") as engine:
        assert engine.wait() == 7


def test_injected_crash_after_some_requests(tree: Path, tmp_path: Path) -> None:
    with launch(tree, tmp_path / "log", "sglang", SIMULATOR_CRASH_AFTER_REQUESTS="2") as engine:
        engine.wait_ready(path="/ready")
        assert [ask(engine).status_code for _ in range(2)] == [200, 200]
        with pytest.raises(httpx.HTTPError):
            ask(engine)
        assert engine.wait() == -signal.SIGKILL


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_health_can_be_told_to_hang(tree: Path, tmp_path: Path, name: str) -> None:
    knobs = {"SIMULATOR_HANG_HEALTH_AFTER_SECONDS": "0", "SGLANG_HEALTH_CHECK_TIMEOUT": "1"}
    with launch(tree, tmp_path / "log", name, **knobs) as engine:
        engine.wait_ready(path="/v1/models")
        eventually(lambda: "ready to roll" in engine.log or "startup complete" in engine.log)
        if name == "vllm":
            assert engine.status("/health", timeout=1.0) is None
        else:
            assert engine.status("/health") == 503
            assert engine.status("/ready") == 503
        assert ask(engine).status_code == 200


def ranks(tree: Path, folder: Path, name: str, **knobs: str) -> tuple[EngineProcess, EngineProcess]:
    """Start both ranks of an engine over two nodes, rank 1 first."""
    port = str(free_port())
    if name == "vllm":
        words = ["--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", port]
        extra = ["--headless"]
    else:
        words = ["--nnodes", "2", "--dist-init-addr", f"127.0.0.1:{port}", "--tp-size", "2"]
        extra = []
    other = launch(tree, folder / "1", name, *words, "--node-rank", "1", *extra, **knobs)
    first = launch(tree, folder / "0", name, *words, "--node-rank", "0", **knobs)
    return first, other


def test_sglang_rank_1_is_a_dummy_that_ignores_sigterm(tree: Path, tmp_path: Path) -> None:
    first, other = ranks(tree, tmp_path, "sglang")
    with first, other:
        other.wait_ready(path="/health")  # whatever rank 0 does
        assert other.status("/ping") == 200
        for path in ("/ready", "/v1/models", "/model_info"):
            assert other.status(path) == 404
        first.wait_ready(path="/ready")
        other.terminate()
        assert ask(first).status_code == 200
        assert other.status("/health") == 200
        first.terminate()
        assert (first.wait(), other.wait()) == (0, 0)


def test_sglang_rank_0_dies_after_rank_1(tree: Path, tmp_path: Path) -> None:
    first, other = ranks(tree, tmp_path, "sglang")
    with first, other:
        first.wait_ready(path="/ready")
        begin = time.monotonic()
        other.process.kill()
        assert first.wait() == -signal.SIGKILL
        assert time.monotonic() - begin >= RANK_LOSS_SECONDS


def test_vllm_headless_rank_has_no_port_and_rank_0_dies_after_it(
    tree: Path, tmp_path: Path
) -> None:
    first, other = ranks(tree, tmp_path, "vllm")
    with first, other:
        first.wait_ready()
        assert other.status("/health") is None
        other.process.kill()
        eventually(lambda: ask(first).status_code == 500)
        assert first.status("/health") == 200
        assert first.wait() == 0


def test_rank_0_is_not_ready_alone(tree: Path, tmp_path: Path) -> None:
    words = ["--nnodes", "2", "--master-port", str(free_port())]
    knobs = {"SIMULATOR_RENDEZVOUS_SECONDS": "0.5"}
    with launch(tree, tmp_path / "log", "vllm", *words, **knobs) as engine:
        assert engine.wait() == 1
        assert "node rank 1" in engine.log


def test_vllm_rank_above_0_needs_headless(tree: Path, tmp_path: Path) -> None:
    with launch(tree, tmp_path / "log", "vllm", "--nnodes", "2", "--node-rank", "1") as engine:
        assert engine.wait() == 1
        assert "--headless" in engine.log
