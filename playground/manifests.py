"""The objects that depend on where the playground lies: its SlurmCluster and its Secret."""

import base64
from collections.abc import Mapping
from pathlib import Path

from playground.commands import run
from playground.operator_process import NAMESPACE
from playground.slurm import Slurm

SLURM_CLUSTER = "hpc"
API_VERSION = "isthmus.dev/v1alpha1"
SSH_SECRET = "hpc-ssh"
BASTION_SECRET = "bastion"
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


def ssh_cluster(slurm: Slurm, state: Path, *, name: str, mode: str = "Auto") -> dict[str, object]:
    """The SlurmCluster whose login node is reached over ssh, with a `network.mode`."""
    made = slurm_cluster(state, bin_folder=slurm.bin_folder, name=name, login=ssh_login(slurm))
    return with_network(made, mode=mode, nodeSSHPort=slurm.login_port)


def with_network(cluster: Mapping[str, object], **network: object) -> dict[str, object]:
    """A SlurmCluster with these fields of `network` too."""
    spec = cluster["spec"]
    assert isinstance(spec, dict)
    return {**cluster, "spec": {**spec, "network": {**spec["network"], **network}}}


def bastion(state: Path, **where: object) -> tuple[dict[str, object], dict[str, object]]:
    """The `network.bastion` of mode Reverse and the Secret of its host key, made once.

    Args:
        state: of the playground.
        **where: `host`, `port` and what else the bastion has.
    """
    key = state / "bastion" / "host_key"
    key.parent.mkdir(exist_ok=True)
    if not key.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key])
    public = " ".join(key.with_suffix(".pub").read_text(encoding="ascii").split()[:2])
    obj: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": BASTION_SECRET, "namespace": NAMESPACE},
        "data": {"ssh-privatekey": base64.b64encode(key.read_bytes()).decode()},
    }
    return {**where, "hostKey": public, "hostKeySecretRef": {"name": BASTION_SECRET}}, obj
