"""No Secret shows, whatever stands in it: every place that reads one, with every shape of it."""

from __future__ import annotations

import ast
import base64
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import isthmus
from isthmus.api import names
from isthmus.api.conditions import Phase
from isthmus.api.health import HealthSpec
from isthmus.apiserver.key import Key
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS, SECRETS, SLURM_JOBS
from isthmus.apiserver.secrets import SecretRef, Secrets
from isthmus.backends.slurm.frozen import freeze
from isthmus.errors import SecretMissingError, SshError
from isthmus.front.clients import ClientKeysFollower
from isthmus.front.publish import Publisher
from isthmus.modeldeployment.failures import failure
from isthmus.probing.verdict import ProbeTarget
from isthmus.routing.members import Worker
from isthmus.routing.trust import trust
from isthmus.slurmjob.probes import ProbedAttempt, WorkerProbes
from isthmus.ssh.credentials import SecretCredentials
from tests.canaries import SHAPES, WORD, assert_unseen
from tests.unit.api.test_keys import USERS, Lab
from tests.unit.builders import status

READERS = {
    "modeldeployment/keys.py": "test_canaries: a deployment's key",
    "slurmjob/attempt_keys.py": "test_canaries: an attempt's key, the seed",
    "slurmjob/probes.py": "test_canaries: headers",
    "routing/keep_external.py": "test_hostile_routers: test_c2_",
    "front/publish.py": "test_canaries: keys of the front",
    "front/clients.py": "test_canaries: keys of clients",
    "ssh/credentials.py": "test_canaries: login; test_ssh_master: test_c2_",
    "routing/trust.py": "test_canaries: the CA of a router",
    "tunnels/bastion.py": "test_tunnel_bastion: test_c2_",
    "routing/worker_keys.py": "test_canaries: keys of the front",
}
"""Modules that read values of Secrets, and the tests that plant canaries there."""

_READS = {"value", "text", "token", "header", "read", "secret"}
every_shape = pytest.mark.parametrize("value", SHAPES.values(), ids=SHAPES)


def _reads_secrets(path: Path) -> bool:
    """Whether a module asks for what is in a Secret: through `Secrets`, or in the front."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Await) and isinstance(node.value, ast.Call):
            called = node.value.func
            if isinstance(called, ast.Attribute) and called.attr in _READS:
                owner = ast.unparse(called.value)
                if owner in {"secrets", "self._secrets", "self._values", "self._source"}:
                    return True
        if isinstance(node, ast.FunctionDef) and node.name == "held_keys":
            return True
    return False


def test_every_module_that_reads_a_secret_has_its_canaries() -> None:
    """A new one is to be added to the table, with its test."""
    root = Path(isthmus.__file__).parent
    found = {str(p.relative_to(root)) for p in root.rglob("*.py") if _reads_secrets(p)}
    assert found - {"apiserver/secrets.py"} == READERS.keys()


def put(lab: Lab, name: str, key: str, value: bytes, *, namespace: str = "team-a") -> None:
    """Write one value into a Secret, as somebody with the right may."""
    obj = {
        "metadata": {"namespace": namespace, "name": name},
        "data": {key: base64.b64encode(value).decode()},
    }
    if lab.api.server.get(SECRETS, namespace, name) is None:
        lab.api.server.create(SECRETS, obj, by="user")
    else:
        lab.api.server.patch(SECRETS, namespace, name, patch=obj, subresource="", by="user")


def objects(lab: Lab) -> list[Any]:
    """All that is stored, of Secrets what is not their values."""
    kinds = (SECRETS, SLURM_JOBS, MODEL_DEPLOYMENTS)
    return [
        {key: value for key, value in obj.items() if key != "data"}
        for kind in kinds
        for obj in lab.api.server.all(kind)
    ]


@every_shape
async def test_a_deployments_key(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """As the user's own Secret has it, before there was a good one and after."""
    caplog.set_level(logging.DEBUG)
    lab = Lab(USERS)
    put(lab, "mine", "token", value)
    with pytest.raises(SecretMissingError) as caught:
        await lab.settle()
    assert_unseen(failure(caught.value), caught.value, caplog.text, *objects(lab))
    put(lab, "mine", "token", WORD.encode())
    digest, _ = await lab.settle()
    put(lab, "mine", "token", value)
    again, wrong = await lab.settle()
    assert again == digest
    assert "team-a/mine" in wrong
    assert_unseen(wrong, caplog.text, lab.settled, *objects(lab))


@every_shape
@pytest.mark.parametrize("which", ["own", "source", "seed"])
async def test_an_attempts_key(value: bytes, which: str, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody writes into the operator's own Secrets."""
    caplog.set_level(logging.DEBUG)
    lab = Lab()
    source, _ = await lab.settle()
    job = await lab.attempt("one")
    own = job.metadata.labels[names.LABEL_KEY]
    if which == "seed":
        put(lab, names.KEY_SEED_SECRET, "seed", value, namespace="isthmus-system")
    else:
        put(lab, "llama-worker-keys", own if which == "own" else source, value)
    told: list[object] = []
    for ask in (lab.key(job), lab.attempt("two"), lab.settle()):
        try:
            told.append(await ask)
        except SecretMissingError as error:
            told += [error, failure(error)]
    assert_unseen(*told, caplog.text, *objects(lab))


class Prober:
    """Takes what would be probed."""

    def __init__(self) -> None:
        self.targets: list[object] = []

    def watch(self, key: Key, target: object, **_: object) -> None:
        self.targets.append(target)


@every_shape
@pytest.mark.parametrize("phase", [Phase.READY, Phase.DRAINING])
async def test_headers_of_probes(
    value: bytes, phase: Phase, caplog: pytest.LogCaptureFixture
) -> None:
    """What no header can have is not sent, and told without it; a drain goes on."""
    caplog.set_level(logging.DEBUG)
    lab = Lab()
    digest, _ = await lab.settle()
    put(lab, "probe", "token", value)
    api: Any = lab.api
    source = {"secretKeyRef": {"name": "probe", "key": "token"}}
    health = HealthSpec.model_validate({"headers": [{"name": "X-Token", "valueFrom": source}]})
    prober: Any = Prober()
    probes = WorkerProbes(
        prober=prober, secrets=Secrets(api, clock=lambda: 0.0), keys=lab.keys()[1]
    )
    attempt = ProbedAttempt(
        job=lab.job_with(digest, name="one", source=None),
        frozen=freeze(desired=lab.settled, pool=lab.settled.pools[0]),
        health=health,
        status=replace(status(Phase.READY), phase=phase),
    )
    await probes.watch(Key("SlurmJob", "team-a", "one"), attempt)
    assert len(prober.targets) == (phase is Phase.DRAINING)
    assert "Secret team-a/probe, key token" in caplog.text
    assert_unseen(*prober.targets, caplog.text)


def test_what_a_probe_sends_is_not_shown() -> None:
    target = ProbeTarget(
        url_base="http://127.0.0.1:1",
        model="llama",
        attempt="x7k2qp",
        engine="sglang",
        interval=5,
        timeout=5,
        success_threshold=1,
        failure_threshold=1,
        secret_headers=(("X-Token", WORD),),
        api_key=WORD,
    )
    assert_unseen(target)


@every_shape
async def test_keys_of_the_front(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """What no header can have is no key: one odd entry spoils no other worker's."""
    caplog.set_level(logging.DEBUG)

    class Source:
        async def secret(self, name: str) -> Any:
            data = {"aaa": value, "bbb": b"isthmus-0123456789"}
            return {"data": {key: base64.b64encode(text).decode() for key, text in data.items()}}

    published: list[Any] = []
    now = iter((0.0, 100.0, 200.0))
    publisher = Publisher(
        source=Source(), secret="keys", publish=published.append, clock=lambda: next(now)
    )
    good = Worker("10.0.0.2", 41000, key="bbb")
    publisher.changed((Worker("10.0.0.1", 41000, key="aaa"), good))
    await publisher.publish_once()
    await publisher.publish_once()
    assert published[-1] == {good: "isthmus-0123456789"}
    assert "10.0.0.1:41000" in caplog.text
    assert_unseen(*published, caplog.text)


@every_shape
async def test_keys_of_clients(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """One entry that is no key is left out, told by its name, and no other."""
    caplog.set_level(logging.DEBUG)
    good = b"isthmus-0123456789"

    class Source:
        async def secret(self, name: str) -> Any:
            data = {"odd": value, "good": good}
            return {"data": {key: base64.b64encode(text).decode() for key, text in data.items()}}

    published: list[Any] = []
    follower = ClientKeysFollower(source=Source(), secret="clients", publish=published.append)
    await follower.look()
    assert published == [{"good": good.decode()}]
    assert "entry odd" in caplog.text
    assert_unseen(published, caplog.text)


@every_shape
async def test_login(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Key and host keys are whatever they are; of what is missing the name is told."""
    caplog.set_level(logging.DEBUG)
    lab = Lab()
    put(lab, "ssh", "id", value)
    api: Any = lab.api
    secrets = Secrets(api, clock=lambda: 0.0)
    credentials = SecretCredentials(
        secrets,
        key=SecretRef("team-a", "ssh", "id"),
        known_hosts=SecretRef("team-a", "ssh", "known_hosts"),
    )
    with pytest.raises(SshError) as caught:
        await credentials.read()
    assert "key known_hosts" in str(caught.value)
    put(lab, "ssh", "known_hosts", value)
    secrets.forget()
    assert_unseen(caught.value, await credentials.read(), caplog.text)


@every_shape
async def test_the_ca_of_a_router(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A Secret that holds no certificates, such as one that is meant for something else."""
    caplog.set_level(logging.DEBUG)
    lab = Lab()
    put(lab, "ca", "ca.crt", value)
    api: Any = lab.api
    with pytest.raises(SecretMissingError) as caught:
        await trust(Secrets(api, clock=lambda: 0.0), SecretRef("team-a", "ca", "ca.crt"))
    assert_unseen(failure(caught.value), caught.value, caplog.text)
