"""What the tests of tunnels share: a cluster that is reached over ssh, and supervisors."""

import base64

from playground.operator_process import NAMESPACE
from playground.tunnels_process import TunnelHost
from tests.real.world import Json, World

SECRET = "hpc-ssh"
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


def ssh_secret(world: World) -> Json:
    """The Secret with the job user's key and the host keys of the login node."""
    slurm = world.playground.slurm
    content = {"ssh-privatekey": slurm.login_key, "known_hosts": slurm.known_hosts}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": NAMESPACE},
        "data": {
            key: base64.b64encode(path.read_bytes()).decode() for key, path in content.items()
        },
    }


def ssh_cluster(world: World, name: str = "far", *, mode: str = "Auto") -> Json:
    """A SlurmCluster whose login node is reached over ssh."""
    slurm = world.playground.slurm
    cluster = world.cluster(name)
    cluster["spec"]["login"] = {
        "ssh": {
            "hosts": [slurm.login_address],
            "port": slurm.login_port,
            "user": world.playground.config.user,
            "keySecretRef": {"name": SECRET},
            "knownHostsRef": {"name": SECRET},
        }
    }
    cluster["spec"]["network"]["mode"] = mode
    return cluster
