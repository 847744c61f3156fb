"""`isthmus render` prints what sbatch gets, byte for byte but for placeholders and masked values.

Of drawn specs. What is submitted is taken where it leaves the operator: from the command that the
client runs and its standard input, made by the operator's own way from the SlurmJob on.
"""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, NoReturn, cast

import pytest
import yaml
from typer.testing import CliRunner

from isthmus.api import names
from isthmus.api.defaults import effective
from isthmus.api.ip_family import IpFamily
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.api.revision import revision_hash
from isthmus.api.slurmcluster import SlurmCluster, network_mode
from isthmus.api.slurmjob import ForwardStatus, SlurmJob, SlurmJobStatus
from isthmus.backends.slurm import frozen as freezing
from isthmus.backends.slurm.commands import CommandClient
from isthmus.backends.slurm.records import Refused, SubmitOutcome, SubmitRequest
from isthmus.cli.main import app
from isthmus.errors import SlurmUnavailableError
from isthmus.modeldeployment.actions import CreateSlurmJob
from isthmus.modeldeployment.execute_jobs import slurm_job_object
from isthmus.slurmcluster.running import Clusters
from isthmus.slurmjob.submit import submit
from tests.drawn_specs import Json, enriched

RUNNER = CliRunner()
SEEDS = 16
ATTEMPT, SLOT, INSTALLATION, PORT, DIGEST = "q7k2zp", 7, "prod0001", 20417, "abcdefghij"
SECRETS = [f"*hidden {number}*" for number in range(3)]
"""Quoted by a shell as a mask is."""

MODES = ("Direct", "Tunnel", "NodeSSH", "Reverse")
BASTION: Json = {
    "host": "tunnels.example.org",
    "port": 2222,
    "hostKey": "ssh-ed25519 AAAA",
    "hostKeySecretRef": {"name": "bastion"},
}
LOGIN: Json = {
    "hosts": ["login1"],
    "user": "svc",
    "keySecretRef": {"name": "hpc-ssh"},
    "knownHostsRef": {"name": "hpc-ssh"},
}


def drawn_cluster(random: Random) -> Json:
    mode = random.choice(MODES)
    obj: Json = {
        "apiVersion": names.API_VERSION,
        "kind": "SlurmCluster",
        "metadata": {"namespace": "isthmus-system", "name": "hpc"},
        "spec": {
            "login": {"ssh": LOGIN},
            "files": {"workDirectory": "/scratch/isthmus"},
            "network": {
                "mode": mode,
                "ports": {"from": 41000, "to": 41999},
                **({"bastion": BASTION} if mode == "Reverse" else {}),
            },
            "models": {"hf://org/llama": "/models/llama"},
            "access": {"allowedNamespaces": {"names": ["team-a"]}},
        },
    }
    obj = enriched(obj, random, count=8, absent=frozenset({"mode", "bastion", "login", "access"}))
    if random.random() < 0.5:
        text = f"module load beta\nexport WANDB_API_KEY='{SECRETS[0]}'"
        obj["spec"].setdefault("site", {})["setup"] = text
    return obj


def drawn_deployment(random: Random) -> Json:
    pool: Json = {"name": "hpc", "slurm": {"clusterRef": {"name": "hpc"}}}
    engine = random.choice([None, "sglang", "vllm"])
    if engine is not None:
        pool["engine"] = {"type": engine}
    obj: Json = {
        "apiVersion": names.API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"namespace": "team-a", "name": "llama"},
        "spec": {"model": {"source": "hf://org/llama"}, "pools": [pool], "endpoint": {}},
    }
    fixed = frozenset({"clusterRef", "kubernetes", "pools", "type", "external"})
    obj = enriched(obj, random, count=12, absent=fixed - {"pools"})
    (pool,) = obj["spec"]["pools"]
    engine_spec = pool.setdefault("engine", {})
    if random.random() < 0.5:
        secret = {"name": "PRIVATE_KEY_PEM", "value": SECRETS[1]}
        engine_spec["env"] = [*engine_spec.get("env", []), secret]
    if random.random() < 0.5:
        some = [[f"--proxy-password={SECRETS[2]}"], ["--proxy-password", SECRETS[2]]]
        engine_spec["args"] = [*engine_spec.get("args", []), *random.choice(some)]
    return obj


@dataclass
class Executor:
    """Takes what is to run, and answers nothing."""

    warning: str = ""
    argv: tuple[str, ...] = ()
    stdin: str = ""

    async def run(self, argv: Sequence[str], *, stdin: str = "", timeout: float) -> NoReturn:
        self.argv, self.stdin = tuple(argv), stdin
        raise SlurmUnavailableError("nobody answers", reason="CommandFailed")

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class OneCluster:
    """As `Clusters`, of one cluster."""

    nodes: IpFamily
    executor: Executor = field(default_factory=Executor)

    def family(self, reference: object) -> IpFamily:
        return self.nodes

    def poke(self, reference: object) -> None:
        """Nobody polls."""

    async def submit(
        self, reference: object, request: SubmitRequest, *, check: Callable[[], str]
    ) -> SubmitOutcome:
        return await CommandClient(cast("Any", self.executor)).submit(request)


@dataclass(frozen=True)
class Sent:
    arguments: list[str]
    script: str


def submitted(
    deployment: Json, cluster: Json, *, nodes: IpFamily, excluded: tuple[str, ...]
) -> Sent | str:
    """What the operator sends for an attempt, or why it is refused."""
    read = SlurmCluster.model_validate(cluster)
    desired = effective(ModelDeployment.model_validate(deployment), generate_api_keys=True)
    assert desired.api_key is not None
    desired = replace(desired, uid="u-1", api_key=replace(desired.api_key, digest=DIGEST))
    (pool,) = desired.pools
    obj = slurm_job_object(
        desired=desired,
        pool=pool,
        action=CreateSlurmJob(
            pool=pool.name, revision=revision_hash(desired=desired, pool=pool), slot=SLOT
        ),
        attempt=ATTEMPT,
        job_name=job_name(),
        key=None,
        work_directory=None,
    )
    mode = network_mode(read.spec)
    there = OneCluster(nodes)
    outcome = asyncio.run(
        submit(
            SlurmJobStatus(
                forward=None if mode == "Direct" else ForwardStatus(mode=mode, port=PORT),
                excluded_nodes=excluded,
            ),
            job=SlurmJob.model_validate(obj),
            frozen=freezing.from_json(
                json.loads(
                    json.dumps(freezing.to_json(freezing.freeze(desired=desired, pool=pool)))
                )
            ),
            cluster=read,
            clusters=cast("Clusters", there),
            installation_id=INSTALLATION,
            check=lambda: "",
        )
    )
    if isinstance(outcome, Refused):
        return outcome.message
    words = shlex.split(there.executor.argv[-1])
    first = words.index("sbatch") + 1
    end = next(n for n, word in enumerate(words) if word.startswith("--comment=")) + 1
    # What ends the command in the frame stands behind its last word.
    arguments = [*words[first : end - 1], words[end - 1].removesuffix(";")]
    return Sent(arguments, there.executor.stdin)


def job_name() -> str:
    return names.slurm_job_name(
        deployment="llama",
        installation_id=INSTALLATION,
        namespace="team-a",
        uid="u-1",
        slot=SLOT,
        attempt=ATTEMPT,
    )


def shown(text: str) -> str:
    """What is sent, as it is shown."""
    own = names.deployment_hash(namespace="team-a", name="llama", uid="u-1")
    for real, placeholder in (
        (f"-{SLOT}-{ATTEMPT}", "-0-xxxxxx"),
        (f":{SLOT}:{ATTEMPT}", ":0:xxxxxx"),
        (ATTEMPT, "xxxxxx"),
        (INSTALLATION, "xxxxxxxx"),
        (own, "0000000000"),
        (f"isthmus_forward_port={PORT}\n", "isthmus_forward_port=0\n"),
        *((f"'\"'\"'{secret}'\"'\"'", "********") for secret in SECRETS),  # quoted in a text
        *((secret, "********") for secret in SECRETS),
    ):
        text = text.replace(real, placeholder)
    return text


def printed(folder: Path, *objects: Json, nodes: IpFamily, excluded: tuple[str, ...]) -> Sent | str:
    """What `isthmus render` prints, or its refusal."""
    path = folder / "manifests.yaml"
    path.write_text(yaml.safe_dump_all(objects))
    options = [f"--node-family={nodes}", *(f"--exclude-node={node}" for node in excluded)]
    result = RUNNER.invoke(app, ["render", *options, str(path)])
    if result.exit_code != 0:
        return result.output
    head, mark, script = result.output.partition("#!")
    command = [line.removeprefix("#").rstrip("\\") for line in head.splitlines()[2:]]
    return Sent(shlex.split("".join(command))[1:], mark + script)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_of_drawn_specs(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    deployment, cluster = drawn_deployment(random), drawn_cluster(random)
    nodes = random.choice(list(IpFamily))
    excluded = random.choice([(), ("node1",), ("node2", "node1")])
    sent = submitted(deployment, cluster, nodes=nodes, excluded=excluded)
    there = printed(tmp_path, deployment, cluster, nodes=nodes, excluded=excluded)
    if isinstance(sent, str):
        assert isinstance(there, str)
        assert " ".join(sent.split()) in " ".join(there.split())
        return
    assert isinstance(there, Sent), there
    assert there.arguments == [shown(argument) for argument in sent.arguments]
    assert there.script == shown(sent.script)
