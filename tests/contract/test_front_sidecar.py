"""The sidecar as a process, before an API server that can be told to fail."""

from __future__ import annotations

import base64
import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from isthmus.front.policy import ENVIRONMENT, MEMORY_ENVIRONMENT, Policy, policy_text
from tests.fronts.loopback import until
from tests.traffic.client import REPOSITORY

SECRETS = "/api/v1/namespaces/team-a/secrets/"
PATH = "/apis/discovery.k8s.io/v1/namespaces/team-a/endpointslices"


def endpoint_slice(*addresses: str, name: str = "pods") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "resourceVersion": "8"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [a], "conditions": {"ready": True}} for a in addresses],
        "ports": [{"name": "http", "port": 8000}],
    }


class ApiServer:
    """Lists what it is told to, and sends the events that it is told to."""

    def __init__(self) -> None:
        self.slices: list[Any] = [endpoint_slice("10.0.0.1", "10.0.0.2")]
        self.status = 200
        self.lists = 0
        self.secrets: dict[str, dict[str, str]] = {}
        self.annotations: dict[str, str] = {}  # of every Secret
        self.events: queue.Queue[Any] = queue.Queue()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                if urlsplit(self.path).path.startswith(SECRETS):
                    outer.secret(self)
                    return
                assert urlsplit(self.path).path == PATH
                assert query["labelSelector"] == ["kubernetes.io/service-name=llama-workers"]
                assert self.headers["Authorization"] == "Bearer t0ken"
                if outer.status != 200:
                    self.send_error(outer.status)
                elif "watch" in query:
                    outer.watch(self)
                else:
                    outer.lists += 1
                    body = {"items": outer.slices, "metadata": {"resourceVersion": "7"}}
                    outer.send(self, body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def send(self, handler: BaseHTTPRequestHandler, body: object) -> None:
        content = json.dumps(body).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def secret(self, handler: BaseHTTPRequestHandler) -> None:
        found = self.secrets.get(handler.path.removeprefix(SECRETS))
        if self.status != 200 or found is None:
            handler.send_error(self.status if self.status != 200 else 404)
            return
        data = {k: base64.b64encode(v.encode()).decode() for k, v in found.items()}
        self.send(handler, {"metadata": {"annotations": self.annotations}, "data": data})

    def watch(self, handler: BaseHTTPRequestHandler) -> None:
        """Events until one is None, which breaks the connection."""
        handler.send_response(200)
        handler.end_headers()
        while (event := self.events.get()) is not None:
            handler.wfile.write(json.dumps(event).encode() + b"\n")
            handler.wfile.flush()

    def close(self) -> None:
        self.events.put(None)
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def api() -> Iterator[ApiServer]:
    made = ApiServer()
    yield made
    made.close()


class Sidecar:
    def __init__(
        self,
        folder: Path,
        api: ApiServer,
        *words: str,
        tree: Path = REPOSITORY,
        **variables: str,
    ) -> None:
        self.folder = folder / "run"
        kubeconfig = folder / "kubeconfig"
        server = f"http://127.0.0.1:{api.server.server_port}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"token": "t0ken"}}],
        }
        kubeconfig.write_text(yaml.safe_dump(config), encoding="utf-8")
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "isthmus.front", "--service", "team-a/llama-workers"),
                    *("--directory", str(self.folder), "--kubeconfig", str(kubeconfig)),
                    *words,
                ],
                env={"PYTHONPATH": str(tree / "operator"), **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def addresses(self) -> list[str]:
        """What Envoy would read."""
        file = self.folder / "eds.json"
        if not file.exists():
            return ["no file"]
        (found,) = json.loads(file.read_text(encoding="utf-8"))["resources"]
        endpoints = found["endpoints"][0]["lb_endpoints"]
        return [e["endpoint"]["address"]["socket_address"]["address"] for e in endpoints]

    def wait(self, *wanted: str) -> None:
        until(lambda: self.addresses() == list(wanted), f"endpoints {wanted}", timeout=40)


@pytest.fixture
def sidecar(tmp_path: Path, api: ApiServer) -> Iterator[Sidecar]:
    made = Sidecar(tmp_path, api)
    made.wait("10.0.0.1", "10.0.0.2")
    yield made
    made.process.kill()
    made.process.wait()


def test_it_follows_and_outlives_an_api_server_that_fails(api: ApiServer, sidecar: Sidecar) -> None:
    more = endpoint_slice("10.0.0.1", "10.0.0.2", "10.0.0.3")
    api.events.put({"type": "MODIFIED", "object": more})
    sidecar.wait("10.0.0.1", "10.0.0.2", "10.0.0.3")
    api.status = 503
    api.events.put(None)  # the watch breaks, and lists fail
    until(lambda: "what is known stays" in sidecar.log.read_text(), "it says so")
    assert sidecar.addresses() == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    api.slices = [endpoint_slice("10.0.0.3")]
    api.status = 200
    sidecar.wait("10.0.0.3")


def test_an_expired_watch_begins_with_a_list(api: ApiServer, sidecar: Sidecar) -> None:
    api.slices = [endpoint_slice("10.0.0.9")]
    gone = {"kind": "Status", "code": 410, "message": "too old resource version"}
    api.events.put({"type": "ERROR", "object": gone})
    sidecar.wait("10.0.0.9")


def test_nothing_is_left_only_if_two_lists_say_so(api: ApiServer, sidecar: Sidecar) -> None:
    before = api.lists
    api.slices = []
    api.events.put({"type": "DELETED", "object": endpoint_slice("10.0.0.1", "10.0.0.2")})
    sidecar.wait()
    assert api.lists >= before + 2


def test_its_end_leaves_the_files(sidecar: Sidecar) -> None:
    """A sidecar that is replaced takes no worker away from Envoy."""
    sidecar.process.send_signal(signal.SIGTERM)
    assert sidecar.process.wait(20) == 0
    assert sidecar.addresses() == ["10.0.0.1", "10.0.0.2"]
    assert (sidecar.folder / "bootstrap.json").exists()


def test_an_envoy_of_ones_own_gets_the_endpoints_alone(tmp_path: Path, api: ApiServer) -> None:
    made = Sidecar(tmp_path, api, "--eds-only", "--cluster", "llama")
    try:
        made.wait("10.0.0.1", "10.0.0.2")
        assert '"cluster_name": "llama"' in (made.folder / "eds.json").read_text()
        assert not (made.folder / "bootstrap.json").exists()
    finally:
        made.process.kill()
        made.process.wait()


def test_it_keeps_the_keys_of_clients_and_lets_nobody_in_before(
    tmp_path: Path, api: ApiServer
) -> None:
    """A changed Secret counts; while the API server is away the last keys stay, unlogged."""
    alice, bob = "alices-key-0123456789", "bobs-key-0123456789"
    policy = policy_text(Policy(engines=("vllm",), extra_paths=("/my/plugin",)))
    api.status = 503
    made = Sidecar(
        tmp_path,
        api,
        *("--client-keys-secret", "clients"),
        **{ENVIRONMENT: policy, MEMORY_ENVIRONMENT: str(2**28)},
    )

    def clients() -> dict[str, str] | None:
        file = made.folder / "client-keys.json"
        if not file.exists():
            return None
        (found,) = json.loads(file.read_text(encoding="utf-8"))["resources"]
        return {one["client"]: one["key"] for one in found["typed_config"]["credentials"]}

    try:
        until(lambda: clients() == {}, "nobody gets in")
        api.secrets["clients"] = {"alice": alice, "bob": "short"}
        api.status = 200
        until(lambda: clients() == {"alice": alice}, "alice gets in", timeout=40)
        made.wait("10.0.0.1", "10.0.0.2")
        bootstrap = (made.folder / "bootstrap.json").read_text(encoding="utf-8")
        assert '"path": "/my/plugin"' in bootstrap
        assert '"path": "/generate"' not in bootstrap
        assert f'"max_heap_size_bytes": {int(2**28 * 0.9)}' in bootstrap
        api.secrets["clients"] = {"bob": bob}
        until(lambda: clients() == {"bob": bob}, "bob gets in, alice does not", timeout=40)
        log = made.log.read_text(encoding="utf-8")
        assert "entry bob" in log
        assert alice not in log
        assert bob not in log
    finally:
        made.process.kill()
        made.process.wait()


def test_a_service_without_namespace_is_refused_with_a_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "isthmus", "front", "--service", "llama", "--directory", tmp_path],
        env={"PYTHONPATH": str(REPOSITORY / "operator")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "write NAMESPACE/NAME" in done.stderr
