"""The load client notices what is no complete answer, or the tests that use it prove nothing."""

from pathlib import Path

import pytest

from playground.engines.install import install
from playground.engines.launch import EngineProcess, start
from tests.ports import free_port
from tests.traffic.client import Traffic

QUICK = {
    "SIMULATOR_LOAD_SECONDS": "0.1",
    "SIMULATOR_FIRST_TOKEN_SECONDS": "0.005",
    "SIMULATOR_TOKENS_PER_SECOND": "500",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    destination = tmp_path_factory.mktemp("engines")
    install(destination)
    return destination


def engine(tree: Path, log: Path, *words: str, **knobs: str) -> EngineProcess:
    port = free_port()
    command = [tree / "bin" / "vllm", "serve", "org/model", "--port", str(port), *words]
    command += ["--served-model-name", "llama"]
    return start(command, log_path=log, port=port, environment=QUICK | knobs)


@pytest.mark.parametrize("connections", ["kept", "new"])
def test_complete_answers_are_counted_and_their_workers_named(
    tree: Path, tmp_path: Path, connections: str
) -> None:
    with engine(tree, tmp_path / "log", "--api-key", "k") as served:
        served.wait_ready()
        options = {"connections": connections, "key": "k", "concurrency": 4}
        with Traffic(served.url, **options) as traffic:
            traffic.wait_answered(40)
        traffic.assert_no_failure(at_least=40)
        assert len(traffic.report["workers"]) == 1


def test_an_error_event_under_status_200_is_a_failure(tree: Path, tmp_path: Path) -> None:
    with engine(tree, tmp_path / "log", SIMULATOR_STREAM_ERROR_RATE="0.5") as served:
        served.wait_ready()
        with Traffic(served.url, concurrency=4, stream="yes") as traffic:
            traffic.wait_answered(10)
        assert traffic.report["failed"] > 0
        assert "error in the answer" in traffic.report["failures"][0]["problem"]


def test_a_cut_connection_and_a_refused_one_are_failures(tree: Path, tmp_path: Path) -> None:
    with engine(tree, tmp_path / "log", SIMULATOR_TOKENS_PER_SECOND="20") as served:
        served.wait_ready()
        url = served.url
        with Traffic(url, concurrency=4, stream="yes", tokens=40) as traffic:
            served.process.kill()
            served.process.wait()
        begun = [failure["begun"] for failure in traffic.report["failures"]]
        assert True in begun
        problems = " ".join(failure["problem"] for failure in traffic.report["failures"])
        assert "RemoteProtocolError" in problems or "ReadError" in problems
        with pytest.raises(AssertionError):
            traffic.assert_no_failure()
