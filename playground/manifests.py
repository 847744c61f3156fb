"""The objects that depend on where the playground lies: its SlurmCluster. Pure."""

from pathlib import Path

from playground.operator_process import NAMESPACE

SLURM_CLUSTER = "hpc"
API_VERSION = "isthmus.dev/v1alpha1"
WORKER_PORTS = (30000, 30999)


def slurm_cluster(
    state: Path, *, bin_folder: Path = Path("/usr/bin"), name: str = SLURM_CLUSTER
) -> dict[str, object]:
    """The SlurmCluster of the playground in a state folder.

    The operator runs on the same machine as the job user, so its login is `local`; jobs find the
    engine simulators through `setup`.
    """
    first, last = WORKER_PORTS
    return {
        "apiVersion": API_VERSION,
        "kind": "SlurmCluster",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "login": {"local": {}},
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
