"""The objects that depend on where the playground lies: its SlurmCluster and its Secret."""

import base64
from collections.abc import Mapping
from pathlib import Path

from playground.operator_process import NAMESPACE
from playground.slurm import Slurm

SLURM_CLUSTER = "hpc"
API_VERSION = "isthmus.dev/v1alpha1"
SSH_SECRET = "hpc-ssh"
WORKER_PORTS = (30000, 30999)


def slurm_cluster(
    state: Path,
    *,
    bin_folder: Path = Path("/usr/bin"),
    name: str = SLURM_CLUSTER,
    login: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """The SlurmCluster of the playground in a state folder.

    The operator runs on the same machine as the job user, so its login may be `local`; `ssh_login`
    makes the other one. Jobs find the engine simulators through `setup`.
    """
    first, last = WORKER_PORTS
    return {
        "apiVersion": API_VERSION,
        "kind": "SlurmCluster",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "login": {"local": {}} if login is None else login,
            "commands": {"binDir": str(bin_folder), "pollInterval": "15s"},
            "files": {"workDirectory": str(state / "jobs")},
            "network": {"ports": {"from": first, "to": last}},
            "defaults": {"partition": "gpu", "timeLimit": "1h"},
            "site": {
                "gpuTypes": {"h100": "h100"},
                "setup": f'export PATH={state}/engines/bin:"$PATH"',
            },
            "access": {"allowedNamespaces": {"names": ["default"]}},
        },
    }


def ssh_login(slurm: Slurm, *, secret: str = SSH_SECRET) -> dict[str, object]:
    """The `login` that reaches the playground's login node, with the keys of `ssh_secret`."""
    ssh = {
        "hosts": [slurm.login.address],
        "port": slurm.login.port,
        "user": slurm.config.user,
        "keySecretRef": {"name": secret},
        "knownHostsRef": {"name": secret},
    }
    return {"ssh": ssh}


def ssh_secret(
    slurm: Slurm, *, name: str = SSH_SECRET, key: bytes = b"", known_hosts: bytes = b""
) -> dict[str, object]:
    """The Secret with the client's key and the host keys of all nodes, or with others."""
    values = {
        "ssh-privatekey": key or slurm.login.key.read_bytes(),
        "known_hosts": known_hosts or slurm.login.known_hosts.read_bytes(),
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "data": {k: base64.b64encode(value).decode() for k, value in values.items()},
    }
