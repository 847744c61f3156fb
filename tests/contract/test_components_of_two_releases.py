"""New components beside old ones: each serves, drains and takes new workers of the other.

The old ones are the code of commits that were released before, taken from the repository's history.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from isthmus.api import names
from isthmus.api.contract import ITEMS
from isthmus.api.contract import KEYS as KEYS_KIND
from isthmus.api.front_version import OLDEST, VERSION
from isthmus.backends.kubernetes.front_version import understood
from tests.bareapi import bare_api
from tests.contract.test_front_sidecar import ApiServer, Sidecar
from tests.contract.two_releases import values
from tests.fronts.loopback import until
from tests.ports import free_port
from tests.real.api import KINDS, Api
from tests.sshd import Sshd
from tests.traffic.client import REPOSITORY
from tests.unit.tunnels.test_tunnel_rules import slurm_job

FIRST, KEYED = "4eab8ed", "e4707ba"
"""Before keys of attempts, tables of paths and marks of squeue; and with them."""
PROGRAM = Path(__file__).parent / "two_releases" / "release.py"
OLD_KEY, NEW_KEY = "a" * 10, "b" * 10
OURS = names.API_VERSION
NUMBERS = itertools.count(1)
KEYS = {OLD_KEY: "key-of-then-0123456789", NEW_KEY: "key-of-now-0123456789"}
POD = {
    "metadata": {"name": "llama-workers-x2x4z", "resourceVersion": "8"},
    "addressType": "IPv4",
    "endpoints": [
        {
            "addresses": ["10.244.0.7"],
            "conditions": {"ready": True},
            "targetRef": {"kind": "Pod", "name": "llama-k8s-abc-5d8f7b9c6d-2vq4x"},
        }
    ],
    "ports": [{"name": "http", "port": 8000}],
}


@pytest.fixture(scope="module", params=[FIRST, KEYED])
def older(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's source of a released commit."""
    commit = str(request.param)
    folder = tmp_path_factory.mktemp("released")
    packed = subprocess.run(
        ["git", "-C", str(REPOSITORY), "archive", commit, "operator"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    if packed.returncode:
        pytest.skip(f"commit {commit} is not in this clone: take one with its whole history")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True, timeout=60)
    return folder


def run(tree: Path, verb: str, argument: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_printed(tree, verb, argument))
    return found


@functools.cache
def _printed(tree: Path, verb: str, argument: str) -> str:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), verb],
        input=argument,
        env={"PYTHONPATH": str(tree / "operator")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(params=["old operator, new components", "new operator, old components"])
def trees(request: pytest.FixtureRequest, older: Path) -> tuple[Path, Path]:
    """Who writes and who reads."""
    return (older, REPOSITORY) if request.param.startswith("old") else (REPOSITORY, older)


@pytest.fixture
def api() -> Iterator[ApiServer]:
    made = ApiServer()
    yield made
    made.close()


def keys_sent(sidecar: Sidecar) -> dict[str, bool]:
    """By address of a worker, whether Envoy is told the key that it wants."""
    text = (sidecar.folder / "eds.json").read_text(encoding="utf-8")
    (found,) = json.loads(text)["resources"]
    endpoints = found["endpoints"][0]["lb_endpoints"]
    return {
        one["endpoint"]["address"]["socket_address"]["address"]: next(
            (digest for digest, key in KEYS.items() if key in json.dumps(one)), ""
        )
        == OLD_KEY
        for one in endpoints
    }


def test_a_front_serves_drains_and_takes_new_workers_of_another_release(
    tmp_path: Path, api: ApiServer, trees: tuple[Path, Path]
) -> None:
    writer, reader = trees
    said = run(writer, "write", OLD_KEY)
    api.slices = [POD, said["direct"]]
    note = {names.ANNOTATION_DEPLOYMENT_KEYS: said["deployments"]}
    api.secrets["llama-worker-keys"], api.annotations = dict(KEYS), note
    words = [
        word
        for word in said["command"][said["command"].index("isthmus.front") + 1 :]
        if not word.startswith(("--service", "--directory"))  # the test's own
    ]
    sidecar = Sidecar(tmp_path, api, *words, tree=reader, **said["environment"])
    try:
        sidecar.wait("10.10.0.1", "10.244.0.7")
        assert keys_sent(sidecar) == {"10.10.0.1": True, "10.244.0.7": True}
        api.events.put({"type": "ADDED", "object": said["forwarded"]})
        sidecar.wait("10.10.0.1", "10.244.0.7", "10.244.0.9")
        assert keys_sent(sidecar)["10.244.0.9"]
        api.events.put({"type": "DELETED", "object": said["direct"]})
        sidecar.wait("10.244.0.7", "10.244.0.9")
    finally:
        sidecar.process.kill()
        sidecar.process.wait()


def test_the_operator_knows_a_front_of_before_by_its_own_word(older: Path, tmp_path: Path) -> None:
    """F2: it ignores the table of paths. What its pod runs is what the pod's template says."""
    assert understood(deployment=run(older, "write", OLD_KEY)["front"], pods=[]) == OLDEST
    ours = run(REPOSITORY, "write", OLD_KEY)["front"]
    template = ours["spec"]["template"]
    (asks,) = [c for c in template["spec"]["initContainers"] if c["name"] == "contract"]
    for tree, version in ((older, OLDEST), (REPOSITORY, VERSION)):
        message = tmp_path / "message"
        command = [sys.executable, *asks["command"][1:-1], str(message)]
        subprocess.run(command, env={"PYTHONPATH": str(tree / "operator")}, check=True, timeout=60)
        ended = {"terminated": {"message": message.read_text(encoding="utf-8")}}
        status = {"initContainerStatuses": [{"name": "contract", "state": ended}]}
        pod = {"metadata": template["metadata"], "spec": template["spec"], "status": status}
        assert understood(deployment=ours, pods=[pod]) == version


def test_a_supervisor_holds_the_forwards_of_another_release(trees: tuple[Path, Path]) -> None:
    """And the operator reads its slices: the same program reads both."""
    writer, reader = trees
    said = run(writer, "write", OLD_KEY)
    job = slurm_job("llama-hpc-1-y7k2qp") | {"status": said["status"]}
    job["metadata"]["uid"] = "uid-forwarded"
    objects = {"forwarded": said["forwarded"], "job": job}
    assert run(reader, "read", json.dumps(objects)) == {
        "tunnel": ["host1", "10.244.0.9", 20001, True, True, ["10.10.0.1", 41000]],
        "wanted": [
            ["llama-hpc-1-y7k2qp", 20001, "10.10.0.1", 41000, True, "llama-workers"],
        ],
        "recalled": [[20001, "10.10.0.1", 41000]],
    }


def test_a_forward_of_a_worker_that_drains_gets_no_requests(trees: tuple[Path, Path]) -> None:
    writer, reader = trees
    status = run(writer, "write", OLD_KEY)["status"]
    status["forward"]["inTraffic"] = False
    job = slurm_job("llama-hpc-1-y7k2qp") | {"status": status}
    forwarded = run(writer, "write", OLD_KEY)["forwarded"]
    found = run(reader, "read", json.dumps({"forwarded": forwarded, "job": job}))
    assert found["wanted"] == [
        ["llama-hpc-1-y7k2qp", 20001, "10.10.0.1", 41000, False, "llama-workers"]
    ]


class Site:
    """A login node, an engine behind it, and one attempt in a namespace of its own."""

    JOB = "llama-hpc-1-y7k2qp"

    def __init__(self, folder: Path, status: dict[str, Any]) -> None:
        self.api = Api(bare_api().kubernetes.kubeconfig)
        self.address = urlsplit(bare_api().kubernetes.server).hostname or ""
        self.namespace = f"two-releases-{os.getpid()}-{next(NUMBERS)}"
        self.sshd = Sshd(folder / "sshd")
        self.engine = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
        threading.Thread(target=self.engine.serve_forever, daemon=True).start()
        self.port = free_port()
        self.status = copy.deepcopy(status) | {"host": "127.0.0.1", "port": self.engine.server_port}
        self.status["forward"]["port"] = self.port

    def close(self) -> None:
        self.engine.shutdown()
        self.engine.server_close()
        self.sshd.close()

    def path(self, kind: str, name: str = "", part: str = "") -> str:
        return KINDS[kind].path(self.namespace, name, part)

    def make(self) -> None:
        """The objects, as an administrator, a user and the operator make them."""
        self.sshd.start()
        self._apply("v1", "Namespace", self.namespace)
        secret = {
            "ssh-privatekey": self.sshd.client_key.read_text(),
            "known_hosts": self.sshd.known_hosts,
        }
        self._apply("v1", "Secret", "login", stringData=secret)
        reference = {"name": "login"}
        login = {"hosts": ["127.0.0.1"], "port": self.sshd.port, "user": self.sshd.user}
        network = {
            "mode": "Tunnel",
            "ports": {"from": 1024, "to": 65535},
            "nodeCIDRs": ["127.0.0.0/8"],
        }
        self._apply(
            OURS,
            "SlurmCluster",
            "hpc",
            spec={
                "login": {"ssh": {**login, "keySecretRef": reference, "knownHostsRef": reference}},
                "files": {"workDirectory": "/scratch/isthmus"},
                "network": network,
                "access": {"allowedNamespaces": {"names": [self.namespace]}},
            },
        )
        cluster = {"name": "hpc", "namespace": self.namespace}
        model = {"source": "hf://org/llama", "servedNames": ["llama"]}
        pool = {"name": "hpc", "slurm": {"clusterRef": cluster}}
        owner = self._apply(
            OURS, "ModelDeployment", "llama", spec={"model": model, "replicas": 1, "pools": [pool]}
        )
        self._job(cluster, owner["metadata"]["uid"])

    def _job(self, cluster: dict[str, str], uid: str) -> None:
        whose = {"deployment": "llama", "slot": 1, "attempt": "y7k2qp"}
        job_name = names.slurm_job_name(
            installation_id="isthmus0", namespace=self.namespace, uid=uid, **whose
        )
        spec = {"clusterRef": cluster, "pool": "hpc", "revision": "0123456789", **whose}
        owner = {"apiVersion": OURS, "kind": "ModelDeployment", "name": "llama", "uid": uid}
        labels = {
            names.LABEL_MANAGED_BY: names.MANAGED_BY,
            names.LABEL_DEPLOYMENT: "llama",
            names.LABEL_KEY: OLD_KEY,
        }
        metadata = {"labels": labels, "ownerReferences": [{**owner, "controller": True}]}
        self._apply(OURS, "SlurmJob", self.JOB, metadata, spec={**spec, "jobName": job_name})
        self.write(self.status)

    def write(self, status: dict[str, Any]) -> None:
        self.api.patch(self.path("SlurmJob", self.JOB, "status"), {"status": status})

    def _apply(
        self, version: str, kind: str, name: str, metadata: Any = None, **fields: Any
    ) -> Any:
        meta = {"name": name, **(metadata or {})}
        obj = {"apiVersion": version, "kind": kind, "metadata": meta, **fields}
        return self.api.apply(self.path(kind, name), obj)

    def slice(self) -> dict[str, Any]:
        return self.api.get(self.path("EndpointSlice", f"{self.JOB}-host1"))

    def ready(self) -> bool | None:
        """Whether the worker gets requests; None without a slice."""
        found = self.slice()
        return found["endpoints"][0]["conditions"]["ready"] if found else None

    def supervisor(self, tree: Path, log: Path) -> subprocess.Popen[bytes]:
        settings = {
            "namespace": self.namespace,
            "watch-namespaces": self.namespace,
            "host-id": "host1",
            "status-port": "0",
            "check-interval": "300ms",
        }
        known = (tree / "operator/isthmus/tunnels/settings.py").read_text(encoding="utf-8")
        if "port_last" in known:  # the first release holds any port
            settings |= {"port-first": str(self.port), "port-last": str(self.port)}
        words = [word for name, text in settings.items() for word in ("--set", f"{name}={text}")]
        config = ["--kubeconfig", str(bare_api().kubernetes.kubeconfig), "--address", self.address]
        with log.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "isthmus", "tunnels", *config, *words],
                env=os.environ | {"PYTHONPATH": str(tree / "operator")},
                cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip


class Engine(BaseHTTPRequestHandler):
    """Answers every question."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def test_a_supervisor_process_serves_drains_and_lets_go_for_another_release(
    tmp_path: Path, trees: tuple[Path, Path]
) -> None:
    """`isthmus tunnels` of one release, with a real API server and sshd; the other's status."""
    writer, reader = trees
    site = Site(tmp_path, run(writer, "write", OLD_KEY)["status"])
    process = None
    try:
        site.make()
        process = site.supervisor(reader, tmp_path / "log")
        until(site.ready, "a forward that answers gets requests", timeout=60)
        job = site.api.get(site.path("SlurmJob", site.JOB))
        found = run(writer, "read", json.dumps({"forwarded": site.slice(), "job": job}))
        engine = ["127.0.0.1", site.engine.server_port]
        assert found["tunnel"] == ["host1", site.address, site.port, True, True, engine]
        site.status["forward"]["inTraffic"] = False
        site.write(site.status)
        until(lambda: site.ready() is False, "a worker that drains gets none", timeout=60)
        site.api.delete(site.path("SlurmJob", site.JOB))
        until(lambda: site.ready() is None, "its forward is let go", timeout=60)
    except AssertionError as error:
        error.add_note((tmp_path / "log").read_text(encoding="utf-8")[-3000:])
        raise
    finally:
        if process is not None:
            process.kill()
            process.wait()
        site.close()


def test_what_was_written_then_has_the_forms_of_today(older: Path) -> None:
    """The recorded forms are no invention of this release."""
    said = run(older, "write", OLD_KEY)
    (sidecar,) = said["front"]["spec"]["template"]["spec"]["initContainers"]
    forms = {(item.kind, item.word): item.form for item in ITEMS}
    for kind, word, value in (
        *values.of_slice(said["direct"]),
        *values.of_slice(said["forwarded"]),
        *values.of_status(said["status"]),
        *values.of_front(sidecar),
        (KEYS_KIND, names.ANNOTATION_DEPLOYMENT_KEYS, said["deployments"]),
    ):
        assert re.fullmatch(forms[kind, word], value), f"{word}: {value}"


def test_a_supervisor_of_before_sets_aside_what_it_does_not_know(older: Path) -> None:
    """Why nothing new may stand in SlurmJob.spec; a successor's bond stood there once."""
    said = run(REPOSITORY, "write", OLD_KEY)
    job = slurm_job("llama-hpc-1-y7k2qp") | {"status": said["status"]}
    objects = {"forwarded": said["forwarded"], "job": job}
    assert run(older, "read", json.dumps(objects))["wanted"]
    job["metadata"]["annotations"] = {names.ANNOTATION_REPLACES: "llama-hpc-1-x7k2qp"}
    assert run(older, "read", json.dumps(objects))["wanted"]
    job["spec"]["replaces"] = "llama-hpc-1-x7k2qp"
    assert not run(older, "read", json.dumps(objects))["wanted"]
