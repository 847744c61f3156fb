"""New components beside old ones: each serves, drains and takes new workers of the other.

The old ones are the code of commits that were released before, taken from the repository's history.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.api import names
from isthmus.api.contract import ITEMS
from isthmus.api.contract import KEYS as KEYS_KIND
from isthmus.api.front_version import OLDEST, VERSION
from isthmus.backends.kubernetes.front_version import understood
from tests.contract.test_front_sidecar import ApiServer, Sidecar
from tests.contract.two_releases import values
from tests.traffic.client import REPOSITORY
from tests.unit.tunnels.test_tunnel_rules import slurm_job

FIRST, KEYED = "4eab8ed", "e4707ba"
"""Before keys of attempts, tables of paths and marks of squeue; and with them."""
PROGRAM = Path(__file__).parent / "two_releases" / "release.py"
OLD_KEY, NEW_KEY = "a" * 10, "b" * 10
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
    found: dict[str, Any] = json.loads(done.stdout)
    return found


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
