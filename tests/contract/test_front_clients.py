"""What a real Envoy with the front's configuration takes of clients, and keeps from them."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from isthmus.engines import ENGINES
from isthmus.engines.paths import EnginePath, PathClass, union
from isthmus.front import envoy, filters
from isthmus.front.drain import drain, requests_of
from isthmus.front.files import write
from isthmus.front.policy import Policy
from playground.config import default_cache
from playground.progress import Progress
from playground.routers import envoy_binary
from tests.fronts.loopback import Front, front, until
from tests.fronts.recorder import Recorder

KEY = "key-of-the-worker"
BEARER = f"Bearer {KEY}"
ALL = union(profile.paths for profile in ENGINES.values())
CLOSED = [entry for entry in ALL if entry.kind is PathClass.ADMINISTRATION]
WEBSOCKET = (
    b"GET %s HTTP/1.1\r\nhost: front\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Front, Recorder]]:
    """A front with the defaults, and a worker that has a key."""
    folder = tmp_path_factory.mktemp("front")
    with Recorder() as worker, front(folder) as made:
        made.wait_for_workers({worker.worker: KEY})
        yield made, worker


@pytest.fixture
def made(pair: tuple[Front, Recorder]) -> Front:
    return pair[0]


@pytest.fixture
def worker(pair: tuple[Front, Recorder]) -> Recorder:
    pair[1].asked.clear()
    return pair[1]


@contextlib.contextmanager
def other_front(folder: Path, **behaviour: object) -> Iterator[tuple[Front, Recorder]]:
    wanted = envoy.Behaviour(**behaviour)  # type: ignore[arg-type]
    with Recorder() as worker, front(folder, behaviour=wanted) as made:
        made.wait_for_workers({worker.worker: KEY})
        yield made, worker


@contextlib.contextmanager
def connected(made: Front) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", made.ports.requests), timeout=20) as connection:
        yield connection


def said(made: Front, request: bytes) -> bytes:
    """The answer to a request as it stands, until its head and what came with it are there."""
    with connected(made) as connection:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer and (piece := connection.recv(65536)):
            answer += piece
        return answer


def status(made: Front, method: str, target: str) -> int:
    """The number of the answer to a request whose target no client library has touched."""
    request = f"{method} {target} HTTP/1.1\r\nhost: front\r\ncontent-length: 0\r\n\r\n"
    return int(said(made, request.encode("latin-1")).split(b" ", 2)[1])


def filled(entry: EnginePath) -> str:
    """A path with its placeholders filled."""
    return (
        entry.path.replace("{model:path}", "org/llama")
        .replace("{id}", "a-1")
        .replace("{method}", "x")
    )


class TestF1OrdinaryClients:
    """What nginx, kube-proxy and uvicorn let through, and Envoy by itself does not."""

    def test_http_1_0(self, made: Front, worker: Recorder) -> None:
        answer = said(made, b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert answer.split(b" ")[1] == b"200", answer
        assert worker.asked[0].authorization == BEARER

    @pytest.mark.parametrize("offered", ["TLS/1.2", "tls/1.0", "h2c"])
    def test_an_offer_to_upgrade_is_ignored(self, made: Front, offered: str) -> None:
        """Also that of Java's client, `h2c`."""
        head = f"GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: {offered}"
        assert said(made, head.encode() + b"\r\n\r\n").split(b" ")[1] == b"200"

    def test_a_websocket(self, made: Front, worker: Recorder) -> None:
        with connected(made) as connection:
            connection.sendall(WEBSOCKET % b"/v1/realtime")
            assert connection.recv(4096).startswith(b"HTTP/1.1 101")
            connection.sendall(b"frames")
            assert connection.recv(4096) == b"frames"
        assert worker.asked[0].authorization == BEARER

    def test_a_websocket_elsewhere_is_refused_with_a_sentence(self, made: Front) -> None:
        assert b"403" in said(made, WEBSOCKET % b"/v1/models").split(b"\r\n")[0]
        assert b"websockets only" in said(made, WEBSOCKET % b"/v1/models")

    def test_a_draining_front_waits_for_websockets_as_for_streams(self, tmp_path: Path) -> None:
        with other_front(tmp_path) as (made, _), connected(made) as connection:
            connection.sendall(WEBSOCKET % b"/v1/realtime")
            assert connection.recv(4096).startswith(b"HTTP/1.1 101")
            assert requests_of(made.admin)[0] == 1
            assert not drain(admin=made.admin, budget=0.5, floor=0)
            connection.sendall(b"still here")
            assert connection.recv(4096) == b"still here"
            connection.close()
            assert drain(admin=made.admin, budget=20, floor=0)

    @pytest.mark.parametrize(
        ("request_", "number", "reason"),
        [
            (b"GET /flush_cache?key=in-the-query HTTP/1.1\r\nhost: a", 403, "route=administration"),
            (b"GET /unheard-of HTTP/1.1\r\nhost: a", 404, "route=unknown"),
            (b"GET /v1/completions HTTP/1.1\r\nhost: a", 405, "route=method"),
            ((WEBSOCKET % b"/v1/models").strip(), 403, "upgrade_failed"),
            (b"GET /health HTTP/1.1", 400, "missing_host"),
            (b"NONSENSE", 400, "http1.codec_error"),
            (b"CONNECT a:1 HTTP/1.1\r\nhost: a:1", 404, "route_not_found"),
        ],
    )
    def test_every_refusal_is_json_with_a_sentence_and_leaves_a_line(
        self, made: Front, request_: bytes, number: int, reason: str
    ) -> None:
        before = len(made.log)
        head, _, body = said(made, request_ + b"\r\n\r\n").partition(b"\r\n\r\n")
        assert head.split(b" ")[1] == str(number).encode()
        error = json.loads(body)["error"]
        assert error["code"] == number
        assert len(error["message"]) > 20
        line = until(lambda: made.log[before:], "a line in the log")
        assert f" {number} " in line
        assert reason in line
        words = request_.split(b" ")
        if number != 400:
            assert f"{words[0].decode()} " in line
        if words[0] == b"GET" and number != 400:
            assert words[1].decode().partition("?")[0] in line
        assert "in-the-query" not in line

    def test_without_a_worker(self, tmp_path: Path) -> None:
        with front(tmp_path) as made:
            answer = httpx.post(f"{made.url}/v1/completions", json={}, trust_env=False)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, 503)
            until(lambda: "POST /v1/completions 503 UH" in made.log, "a line in the log")


class TestF2Paths:
    """A worker's key opens its administration too, so it is given for what is for clients."""

    def test_what_is_for_clients_gets_the_key(self, made: Front, worker: Recorder) -> None:
        for entry in ALL:
            if entry.kind is not PathClass.ADMINISTRATION and not entry.websocket:
                assert status(made, entry.methods[0], filled(entry)) == 200, entry
        assert {asked.authorization for asked in worker.asked} == {BEARER}

    def test_administration_is_refused_and_says_how_to_allow_it(
        self, made: Front, worker: Recorder
    ) -> None:
        for entry in CLOSED:
            for method in (*entry.methods, "OPTIONS", "HEAD"):
                assert status(made, method, filled(entry)) == 403, entry
        assert worker.asked == []
        answer = httpx.get(f"{made.url}/server_info", trust_env=False).json()
        assert "endpoint.administration: true" in answer["error"]["message"]

    @pytest.mark.parametrize(
        "target",
        [
            "/v1/../flush_cache",
            "/v1/models/../../flush_cache",
            "//flush_cache",
            "/v1//../flush_cache",
            "/%2e%2e/flush_cache",
            "/v1/%2e%2e/flush_cache",
            "/v1%2f..%2fflush_cache",
            "/v1/models/..%2f..%2fserver_info",
            "/v1/models/%2E%2E/%2E%2E/server_info",
            "/v1/models/%252e%252e/%252e%252e/server_info",
            "/v1/models/..%5c..%5cserver_info",
            "/v1/models/..\\..\\server_info",
            "/v1/models/..;/..;/server_info",
            "/v1/models/%00/server_info",
            "/v1/%6coad_lora_adapter",
            "/%66lush_cache",
            "/flush_cache/",
            "/flush_cache//",
            "/./flush_cache",
            "/flush_cache/.",
            "/Flush_Cache",
            "/FLUSH_CACHE",
            "/flush_cache?",
            "/flush_cache?a=/v1/completions",
            "/flush_cache;a=b",
            "/flush_cache%3f",
            "/flush_cache%20",
            "/flush_cache#/v1/models",
            "http://front/flush_cache",
            "http://front//flush_cache",
            "/v1/load_lora_adapter",
            "/v1/unload_lora_adapter",
            "/v1/",
            "/v1",
            "/get_server_info",
            "/update_weights_from_disk",
            "/hicache/storage-backend/clear",
            "/dumper/anything",
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_no_spelling_of_administration_reaches_a_worker(
        self, made: Front, worker: Recorder, target: str, method: str
    ) -> None:
        number = status(made, method, target)
        if number == 200:  # then the worker was asked for something that is for clients
            assert [asked.path.partition("?")[0] for asked in worker.asked] == [
                "/v1/models/server_info"
            ]
        else:
            assert number in (400, 403, 404, 405)
            assert worker.asked == []

    def test_no_drawn_spelling_reaches_a_worker(self, made: Front, worker: Recorder) -> None:
        """What comes to a worker is exactly a path for clients, whatever was sent."""
        drawn = random.Random(11)
        pieces = ["/", "//", "..", ".", "%2e", "%2E%2e", "%2f", "%5c", "\\", ";", "%00", "%25", "?"]
        pieces += ["v1", "models", "flush_cache", "server_info", "load_lora_adapter", "responses"]
        for _ in range(300):
            parts = drawn.choices(pieces, k=drawn.randint(1, 7))
            status(made, drawn.choice(["GET", "POST"]), "/" + "".join(parts))
        for asked in worker.asked:
            path = asked.path.partition("?")[0]
            assert path == "/" or path.startswith(("/v1/models", "/v1/responses")), path
            assert not any(word in path for word in ("..", "%", "\\", "//", ";")), path

    def test_administration_by_a_setting(self, tmp_path: Path) -> None:
        with other_front(tmp_path, policy=Policy(administration=True)) as (made, worker):
            for entry in CLOSED:
                assert status(made, entry.methods[0], filled(entry)) == 200, entry
            assert status(made, "GET", "/v1/load_lora_adapter") == 405
            assert status(made, "GET", "/unheard-of") == 404
            assert {asked.authorization for asked in worker.asked} == {BEARER}

    def test_paths_of_the_users(self, tmp_path: Path) -> None:
        extra = ("/my/plugin", "/jobs/{id}/result", "/tools/*")
        with other_front(tmp_path, policy=Policy(extra_paths=extra)) as (made, _):
            for path in ("/my/plugin", "/jobs/7/result", "/tools/a/b"):
                assert status(made, "PUT", path) == 200, path
            for path in ("/my/plugin/x", "/jobs//result", "/jobs/a%2fb/result", "/tools"):
                assert status(made, "GET", path) == 404, path
            assert status(made, "GET", "/tools/../flush_cache") == 403

    def test_of_one_engine_alone(self, tmp_path: Path) -> None:
        with other_front(tmp_path, policy=Policy(engines=("vllm",))) as (made, _):
            assert status(made, "POST", "/generate") == 404
            assert status(made, "POST", "/pooling") == 200
            assert status(made, "GET", "/server_info") == 403


class TestModels:
    """The name by which a worker proves who it is belongs to nobody else."""

    def listed(self, made: Front, worker: Recorder, body: bytes) -> bytes:
        worker.answer = lambda asked: body
        return httpx.get(f"{made.url}/v1/models", trust_env=False).content

    @pytest.fixture(autouse=True)
    def _as_before(self, worker: Recorder) -> Iterator[None]:
        before = worker.answer
        yield
        worker.answer, worker.with_length = before, True

    def test_the_identity_name_is_left_out(self, made: Front, worker: Recorder) -> None:
        cards = [{"id": name, "permission": [{"id": "modelperm-}]"}], "root": '"[{\\'}
                 for name in ("llama", "isthmus-attempt-abc", "l2")]  # fmt: skip
        for order in ((0, 1, 2), (1, 0), (0, 1), (1,), (2, 0)):
            document = {"object": "list", "data": [cards[index] for index in order]}
            kept = [cards[index] for index in order if index != 1]
            for body in (json.dumps(document), json.dumps(document, separators=(",", ":"))):
                found = json.loads(self.listed(made, worker, body.encode()))
                assert found == {"object": "list", "data": kept}

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"[]",
            b'{"data": {"id": "isthmus-attempt-abc"}}',
            b'{"data": [{"id": "isthmus-attempt-abc"',
            b'{"data": [{"id": "isthmus-attempt-abc"} nonsense',
            b'{"data": [{"id": "isthmus-attempt-abc',
            b'{"data": [1, 2]}',
            b"\xff\xfe" * 40,
            b'{"data": [' + b"{" * 20000,
        ],
    )
    def test_what_cannot_be_read_passes_as_it_is(
        self, made: Front, worker: Recorder, body: bytes
    ) -> None:
        assert self.listed(made, worker, body) == body

    def test_what_is_too_long_passes_as_it_is(self, made: Front, worker: Recorder) -> None:
        body = b'{"data": [{"id": "isthmus-attempt-abc"}]}' + b" " * 300_000
        assert self.listed(made, worker, body) == body

    def test_an_answer_without_a_length_passes_as_it_is(
        self, made: Front, worker: Recorder
    ) -> None:
        worker.with_length = False
        body = b'{"data": [{"id": "isthmus-attempt-abc"}]}'
        assert self.listed(made, worker, body) == body


class TestM4Retries:
    """A request that is repeated has the key of the worker that it goes to, and of no other."""

    @pytest.mark.parametrize("client", ["Bearer clients-own", None])
    def test_a_worker_without_a_key_is_told_none(self, tmp_path: Path, client: str | None) -> None:
        headers = {} if client is None else {"authorization": client}
        with Recorder() as keyed, Recorder() as keyless, front(tmp_path) as made:
            made.wait_for_workers({keyed.worker: KEY, keyless.worker: ""})
            keyed.resets = True
            url = f"{made.url}/v1/completions"
            with httpx.Client(trust_env=False, headers=headers, timeout=20) as http:
                for _ in range(200):
                    assert http.post(url, json={}).status_code == 200
                    if len(keyed.asked) >= 3:
                        break
                    made.wait_for_workers({keyless.worker: ""})  # forgets that it was ejected
                    made.wait_for_workers({keyed.worker: KEY, keyless.worker: ""})
            assert len(keyed.asked) >= 3
            assert {asked.authorization for asked in keyed.asked} == {BEARER}
            assert {asked.authorization for asked in keyless.asked} == {client}

    def test_each_of_two_keys_stays_with_its_worker(self, tmp_path: Path) -> None:
        with Recorder() as one, Recorder() as two, front(tmp_path) as made:
            keys = {one.worker: "key-of-the-one", two.worker: "key-of-the-two"}
            made.wait_for_workers(keys)
            one.resets = True
            with httpx.Client(trust_env=False, timeout=20) as http:
                while not one.asked:
                    assert http.post(f"{made.url}/v1/completions", json={}).status_code == 200
            assert {asked.authorization for asked in one.asked} == {"Bearer key-of-the-one"}
            assert {asked.authorization for asked in two.asked} == {"Bearer key-of-the-two"}


class TestClientKeys:
    """Who has no key of the deployment's Secret gets nothing, and workers see no client's key."""

    def publish(self, made: Front, **keys: str) -> None:
        write(made.folder / filters.CLIENT_KEYS_FILE, envoy.text(filters.client_keys(keys)))

    def asked(self, made: Front, path: str = "/v1/completions", **headers: str) -> httpx.Response:
        return httpx.post(f"{made.url}{path}", json={}, headers=headers, trust_env=False)

    def test_keys_come_and_go_while_envoy_runs(self, tmp_path: Path) -> None:
        alice, bob = "alices-key-0123456789", "bobs-key-0123456789"
        (tmp_path / filters.CLIENT_KEYS_FILE).write_text(
            envoy.text(filters.client_keys({})), encoding="utf-8"
        )
        with other_front(tmp_path, client_keys=True) as (made, worker):
            refused = self.asked(made, authorization=f"Bearer {alice}")
            assert refused.status_code == 401
            assert "Bearer KEY" in refused.json()["error"]["message"]
            self.publish(made, alice=alice, bob=bob)
            for headers in ({"authorization": f"Bearer {alice}"}, {"x-api-key": bob}):
                until(lambda sent=headers: self.asked(made, **sent).status_code == 200, "it counts")
            assert self.asked(made, authorization="Bearer wrong").status_code == 401
            assert self.asked(made, "/flush_cache").status_code == 401
            self.publish(made, bob=bob)
            until(
                lambda: self.asked(made, authorization=f"Bearer {alice}").status_code == 401,
                "the key is gone",
            )
            assert self.asked(made, authorization=f"Bearer {bob}").status_code == 200
            made.wait_for_workers({worker.worker: ""})
            worker.asked.clear()
            assert self.asked(made, authorization=f"Bearer {bob}").status_code == 200
            assert worker.asked[-1].authorization is None
            until(lambda: "unknown_api_key" in made.log, "refusals are in the log")
            seen = [value for asked in worker.asked for value in asked.headers.values()]
            assert not any(key in text for text in (made.log, *seen) for key in (alice, bob))

    def test_without_the_file_nobody_gets_in(self, tmp_path: Path) -> None:
        made = Front(tmp_path)
        document = envoy.bootstrap(
            directory=str(tmp_path),
            ports=made.ports,
            behaviour=envoy.Behaviour(client_keys=True),
        )
        filters_ = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]  # type: ignore[index]
        first = filters_[0]["typed_config"]["http_filters"][0]
        assert "default_config" not in first["config_discovery"]


class TestM3Memory:
    """Requests that never end cost what is bounded."""

    def resident(self, made: Front) -> int:
        """MiB."""
        assert made.process is not None
        text = Path(f"/proc/{made.process.pid}/status").read_text(encoding="utf-8")
        line = next(line for line in text.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) // 1024

    def upload(self, made: Front, *, size: int, end: threading.Event) -> None:
        """Almost all of a request, and then nothing."""
        head = f"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {size + 1}\r\n\r\n"
        with connected(made) as connection, contextlib.suppress(OSError):
            connection.sendall(head.encode())
            for _ in range(size // 2**20):
                connection.sendall(b"x" * 2**20)
            end.wait(60)

    @contextlib.contextmanager
    def uploads(self, made: Front, *, number: int, size: int) -> Iterator[None]:
        """So many requests that never end, until the block does."""
        end = threading.Event()
        threads = [
            threading.Thread(target=self.upload, args=(made,), kwargs={"size": size, "end": end})
            for _ in range(number)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            end.set()
            for thread in threads:
                thread.join(30)

    def asks(self, made: Front) -> int:
        """The number of an answer, 0 for none."""
        with contextlib.suppress(httpx.HTTPError):
            url = f"{made.url}/v1/completions"
            return httpx.post(url, json={}, trust_env=False, timeout=10).status_code
        return 0

    def test_what_is_kept_of_a_request_is_bounded(self, tmp_path: Path) -> None:
        with other_front(tmp_path) as (made, worker):
            before = self.resident(made)
            with self.uploads(made, number=8, size=24 * 2**20):
                until(lambda: len(worker.connected) >= 8, "all are on their way")
                until(lambda: self.taken(made) >= 8 * 24 * 2**20, "all was taken", timeout=60)
                assert self.resident(made) - before < 8 * 8
                assert self.asks(made) == 200

    def taken(self, made: Front) -> int:
        """Bytes that Envoy has read of its clients."""
        url = f"{made.admin}/stats?filter=^http.front.downstream_cx_rx_bytes_total$"
        return int(httpx.get(url, trust_env=False).text.split()[1])

    def test_beyond_its_memory_it_takes_no_more_and_recovers(self, tmp_path: Path) -> None:
        with other_front(tmp_path, memory=64 * 2**20) as (made, _):
            with self.uploads(made, number=24, size=6 * 2**20):
                until(lambda: self.asks(made) in (0, 503), "it refuses requests")
                # Who asks whether it lives is answered all the same.
                assert httpx.get(f"{made.health}/live", trust_env=False).status_code == 200
            until(lambda: self.asks(made) == 200, "it takes requests again", timeout=60)

    def test_large_bodies_pass(self, made: Front, worker: Recorder) -> None:
        """Without being kept, so they are not repeated."""
        size = 64 * 2**20
        answer = httpx.post(
            f"{made.url}/v1/completions", content=b"x" * size, trust_env=False, timeout=60
        )
        assert answer.status_code == 200
        assert [asked.body for asked in worker.asked] == [size]


@pytest.mark.parametrize(
    "behaviour",
    [
        envoy.Behaviour(),
        envoy.Behaviour(policy=Policy(administration=True, extra_paths=("/a/{b}/c", "/x/*", "/*"))),
        envoy.Behaviour(policy=Policy(engines=("sglang",)), memory=64 * 2**20),
        envoy.Behaviour(client_keys=True),
    ],
)
def test_envoy_takes_the_configuration(tmp_path: Path, behaviour: envoy.Behaviour) -> None:
    document = envoy.bootstrap(directory=str(tmp_path), ports=envoy.Ports(), behaviour=behaviour)
    path = tmp_path / envoy.BOOTSTRAP_FILE
    path.write_text(envoy.text(document), encoding="utf-8")
    (tmp_path / envoy.EDS_FILE).write_text(envoy.text(envoy.endpoints(())), encoding="utf-8")
    clients = filters.client_keys({"alice": "alices-key-0123456789"})
    (tmp_path / filters.CLIENT_KEYS_FILE).write_text(envoy.text(clients), encoding="utf-8")
    binary = envoy_binary(default_cache(), Progress(silent=True))
    done = subprocess.run(
        [binary, "--mode", "validate", "--config-path", str(path), "--use-dynamic-base-id"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_l8_one_bad_address_would_have_frozen_the_file(tmp_path: Path) -> None:
    """Envoy refuses it as a whole, so it must never be written: see `test_front_workers`."""
    with Recorder() as worker, front(tmp_path) as made:
        document = envoy.endpoints([worker.worker])
        text = envoy.text(document).replace('"127.0.0.1"', '"no-address"')
        (tmp_path / "fresh").write_text(text, encoding="utf-8")
        (tmp_path / "fresh").rename(tmp_path / envoy.EDS_FILE)
        until(lambda: "malformed IP address" in made.log, "Envoy refuses it")
