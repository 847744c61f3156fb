"""What the tests of tunnels share: a cluster that is reached over ssh, and supervisors."""

import base64

from playground import manifests
from playground.commands import run
from playground.operator_process import NAMESPACE
from playground.tunnels_process import TunnelHost
from tests.real.world import Json, World

BASTION_PORT = 22222
FAST = {
    "check-interval": "500ms",
    "check-timeout": "1s",
    "connect-timeout": "3s",
    "reconnect-pause": "3s",
    "lease-duration": "3s",
    "successor-wait": "30s",
    "leave-floor": "1s",
    "drain-budget": "60s",
}


def tunnel_host(world: World, name: str = "tunnels", *, address: str = "") -> TunnelHost:
    """A supervisor whose times are those of a test."""
    arguments = [word for key, value in FAST.items() for word in ("--set", f"{key}={value}")]
    return TunnelHost(world.playground, name=name, address=address, arguments=arguments)


def ssh_cluster(world: World, name: str = "far", *, mode: str = "Auto") -> Json:
    """A SlurmCluster whose login node is reached over ssh."""
    slurm = world.playground.slurm
    cluster = world.cluster(name)
    cluster["spec"]["login"] = manifests.ssh_login(slurm)
    cluster["spec"]["network"] |= {"mode": mode, "nodeSSHPort": slurm.login_port}
    return cluster


def reverse_cluster(world: World, host: TunnelHost, name: str = "calls") -> list[Json]:
    """A SlurmCluster whose jobs call a bastion of the supervisor, and the Secret of its key."""
    user = world.playground.config.user
    return calling_cluster(world, {"host": host.address, "port": BASTION_PORT, "user": user}, name)


def calling_cluster(world: World, bastion: Json, name: str) -> list[Json]:
    """A SlurmCluster whose jobs call this bastion, and the Secret of the bastion's key."""
    folder = world.playground.state / "bastion"
    folder.mkdir(exist_ok=True)
    key = folder / "host_key"
    if not key.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key])
    public = " ".join(key.with_suffix(".pub").read_text(encoding="ascii").split()[:2])
    cluster = world.cluster(name)
    cluster["spec"]["network"] |= {
        "mode": "Reverse",
        "bastion": {**bastion, "hostKey": public, "hostKeySecretRef": {"name": "bastion"}},
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "bastion", "namespace": NAMESPACE},
        "data": {"ssh-privatekey": base64.b64encode(key.read_bytes()).decode()},
    }
    return [secret, cluster]
