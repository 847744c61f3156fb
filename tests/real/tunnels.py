"""What the tests of tunnels share: a cluster that is reached over ssh, and supervisors."""

from playground import manifests
from playground.tunnels_process import TunnelHost
from tests.real.api import Json
from tests.real.world import World

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
    made: Json = dict(
        manifests.ssh_cluster(world.playground.slurm, world.playground.state, name=name, mode=mode)
    )
    return made


def reverse_cluster(world: World, host: TunnelHost, name: str = "calls") -> list[Json]:
    """A SlurmCluster whose jobs call a bastion of the supervisor, and the Secret of its key."""
    user = world.playground.config.user
    return calling_cluster(world, name, host=host.address, port=BASTION_PORT, user=user)


def calling_cluster(world: World, name: str, **where: object) -> list[Json]:
    """A SlurmCluster whose jobs call a bastion, and the Secret of the bastion's key."""
    bastion, secret = manifests.bastion(world.playground.state, **where)
    cluster = manifests.with_network(world.cluster(name), mode="Reverse", bastion=bastion)
    return [dict(secret), dict(cluster)]
