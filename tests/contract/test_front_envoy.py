"""A real Envoy with the configuration of the front, before simulated engines, under load."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from isthmus.front import envoy
from isthmus.front.drain import drain, requests_of
from isthmus.front.files import write
from isthmus.routing.members import Worker
from playground.engines.launch import EngineProcess
from tests.fronts.loopback import (
    Front,
    answered,
    engine,
    engine_tree,
    front,
    get,
    sglang,
    until,
    worker_of,
)
from tests.ports import free_port
from tests.traffic.client import REPOSITORY, Traffic


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return engine_tree(tmp_path_factory.mktemp("engines"))


@contextlib.contextmanager
def engines(tree: Path, folder: Path, count: int) -> Iterator[list[EngineProcess]]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(engine(tree, folder)) for _ in range(count)]
        for one in found:
            one.wait_ready()
        yield found


def test_workers_come_and_go_and_no_request_fails(tree: Path, tmp_path: Path) -> None:
    with engines(tree, tmp_path, 3) as (one, two, three), front(tmp_path, one, two) as made:
        with Traffic(made.url) as traffic:
            traffic.wait_answered(60)
            made.wait_for(one, two, three)
            traffic.wait_answered(60)
            made.wait_for(two, three)
            assert answered(one) > 0
            one.terminate()  # after it has left the membership, while its last requests run
            traffic.wait_answered(60)
            assert one.wait() == 0
        traffic.assert_no_failure(at_least=180)
        assert answered(two) > 0
        assert answered(three) > 0


def test_each_worker_gets_its_share_of_kept_connections(tree: Path, tmp_path: Path) -> None:
    with engines(tree, tmp_path, 4) as served, front(tmp_path, *served) as made:
        with Traffic(made.url) as traffic:
            traffic.wait_answered(400)
        traffic.assert_no_failure()
        counts = list(map(answered, served))
        assert min(counts) > 0.5 * sum(counts) / 4, counts


def test_a_killed_worker_costs_only_what_had_begun(tree: Path, tmp_path: Path) -> None:
    with engines(tree, tmp_path, 3) as served, front(tmp_path, *served) as made:
        with Traffic(made.url) as traffic:
            traffic.wait_answered(60)
            served[0].process.kill()  # and nobody tells the front
            traffic.wait_answered(200)
        failures = traffic.report["failures"]
        assert all(failure["begun"] for failure in failures), failures
        assert traffic.report["failed"] <= 16


def test_a_worker_that_starts_anew_at_its_address_gets_requests_again(
    tree: Path, tmp_path: Path
) -> None:
    with engines(tree, tmp_path, 2) as (one, two), front(tmp_path, one, two) as made:
        with Traffic(made.url, stream="no") as traffic:
            traffic.wait_answered(30)
            one.process.kill()
            one.process.wait()
            traffic.wait_answered(60)
            port = int(one.url.rpartition(":")[2])
            with engine(tree, tmp_path, port=port) as again:
                again.wait_ready()
                until(lambda: answered(again), "the new engine answers requests", timeout=40)
        traffic.assert_no_failure()


def test_without_a_worker_it_says_so_at_once(tree: Path, tmp_path: Path) -> None:
    with engines(tree, tmp_path, 1) as (one,), front(tmp_path) as made:
        said = httpx.get(f"{made.url}/v1/models", timeout=5, trust_env=False)
        assert said.status_code == 503
        assert get(f"{made.health}/ready").status_code == 200  # type: ignore[union-attr]
        made.wait_for(one)
        assert httpx.get(f"{made.url}/v1/models", trust_env=False).status_code == 200


def test_an_error_of_an_engine_takes_no_engine_away(tree: Path, tmp_path: Path) -> None:
    """A request that every engine answers with 500 harms nobody else's."""
    with (
        engine(tree, tmp_path, SIMULATOR_ERROR_RATE="1") as broken,
        engine(tree, tmp_path) as good,
    ):
        broken.wait_ready()
        good.wait_ready()
        with front(tmp_path, broken, good) as made, Traffic(made.url, stream="no") as traffic:
            traffic.wait_answered(60)
        said = {failure["problem"][:10] for failure in traffic.report["failures"]}
        assert said == {"status 500"}


class TestDrain:
    def test_it_waits_for_streams_and_sends_clients_elsewhere(
        self, tree: Path, tmp_path: Path
    ) -> None:
        slow = {"SIMULATOR_TOKENS_PER_SECOND": "20"}
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        with engine(tree, tmp_path, **slow) as served:
            served.wait_ready()
            with front(tmp_path / "a", served) as made:
                with Traffic(made.url, stream="yes", tokens=40, concurrency=8) as traffic:
                    until(lambda: requests_of(made.admin)[0] == 8, "eight streams run")
                    ended: list[bool] = []

                    def end() -> None:
                        ended.append(drain(admin=made.admin, budget=60, floor=0.5))

                    thread = threading.Thread(target=end)
                    thread.start()
                    until(lambda: self.status(made) == 503, "it is not ready any more")
                    assert get(f"{made.health}/live").status_code == 200  # type: ignore[union-attr]
                    assert requests_of(made.admin)[0] > 0
                    said = httpx.get(f"{made.url}/v1/models", trust_env=False)
                    assert said.status_code == 200  # still serves who has not heard of it
                    assert said.headers["connection"] == "close"
                thread.join(30)
                assert ended == [True]
                assert requests_of(made.admin)[0] == 0
                traffic.assert_no_failure(at_least=8)

    def test_it_waits_for_nodes_that_go_on_to_send(self, tree: Path, tmp_path: Path) -> None:
        """A stream was cut on a busy machine: kube-proxy heard of the end later than the floor."""
        with engine(tree, tmp_path) as served:
            served.wait_ready()
            with front(tmp_path, served) as made:
                ended: list[bool] = []

                def end() -> None:
                    ended.append(drain(admin=made.admin, budget=60, floor=0, quiet=3))

                with Traffic(made.url, concurrency=1, connections="new") as traffic:
                    traffic.wait_answered(5)
                    thread = threading.Thread(target=end)
                    thread.start()
                    traffic.wait_answered(30)
                    assert not ended, "requests came all the time"
                thread.join(30)
                assert ended == [True]
                traffic.assert_no_failure()

    def test_it_gives_up_after_its_budget(self, tree: Path, tmp_path: Path) -> None:
        with engine(tree, tmp_path, SIMULATOR_TOKENS_PER_SECOND="5") as served:
            served.wait_ready()
            with (
                front(tmp_path, served) as made,
                httpx.stream(
                    "POST",
                    f"{made.url}/v1/chat/completions",
                    json={
                        "model": "llama",
                        "stream": True,
                        "max_tokens": 200,
                        "ignore_eos": True,
                        "messages": [{"role": "user", "content": "count"}],
                    },
                    trust_env=False,
                ),
            ):
                assert not drain(admin=made.admin, budget=1, floor=0)

    def test_it_needs_only_the_standard_library(self, tmp_path: Path) -> None:
        """Also where Envoy is gone already: a preStop must not fail."""
        done = subprocess.run(
            [sys.executable, "-m", "isthmus.front.drain", "5", "--admin", "http://127.0.0.1:9"],
            env={"PYTHONPATH": str(REPOSITORY / "operator")},
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def status(self, made: Front) -> int:
        said = get(f"{made.health}/ready")
        return 0 if said is None else said.status_code


def test_each_worker_gets_its_own_key_also_on_a_retry(tree: Path, tmp_path: Path) -> None:
    """What clients send is replaced; a worker that refuses connections costs no request."""
    with (
        engine(tree, tmp_path, "--api-key", "key-of-the-one") as one,
        engine(tree, tmp_path, "--api-key", "key-of-the-two") as two,
        front(tmp_path) as made,
    ):
        for served in (one, two):
            served.wait_ready()
        keys = {worker_of(one): "key-of-the-one", worker_of(two): "key-of-the-two"}
        dead = Worker("127.0.0.1", free_port())
        document = envoy.endpoints((*keys, dead), keys={**keys, dead: "key-of-the-dead"})
        write(made.folder / envoy.EDS_FILE, envoy.text(document))
        until(lambda: (said := get(f"{made.url}/v1/models")) and said.status_code == 200, "served")
        with Traffic(made.url, key="what-a-client-sends") as traffic:
            traffic.wait_answered(100)
        traffic.assert_no_failure(at_least=100)
        assert answered(one) > 0
        assert answered(two) > 0


def test_f2_nobody_reads_the_workers_key_through_the_front(tree: Path, tmp_path: Path) -> None:
    """SGLang shows its settings, the key among them, to who has the key; a front gives it."""
    with sglang(tree, tmp_path, key="key-of-the-worker") as served, front(tmp_path) as made:
        served.wait_ready(path="/ready")
        bearer = {"authorization": "Bearer key-of-the-worker"}
        direct = httpx.get(f"{served.url}/server_info", headers=bearer, trust_env=False)
        assert direct.json()["api_key"] == "key-of-the-worker"
        made.wait_for_workers({worker_of(served): "key-of-the-worker"})
        for path in ("/server_info", "/get_server_info", "/v1/../server_info", "//server_info"):
            said = httpx.get(f"{made.url}{path}", trust_env=False)
            assert (said.status_code, "key-of-the-worker" in said.text) == (403, False)
        assert httpx.post(f"{made.url}/flush_cache", trust_env=False).status_code == 403
        assert httpx.get(f"{made.url}/v1/models", trust_env=False).status_code == 200


def test_a_worker_without_a_key_gets_what_the_client_sent(tree: Path, tmp_path: Path) -> None:
    with engine(tree, tmp_path, "--api-key", "of-the-client") as one, front(tmp_path, one) as made:
        one.wait_ready()
        with Traffic(made.url, key="of-the-client") as traffic:
            traffic.wait_answered(20)
        traffic.assert_no_failure(at_least=20)
