"""Whether a namespace may use a SlurmCluster: its own always, others by `spec.access`."""

from isthmus.api.conditions import Reason
from isthmus.api.desired import ClusterReference
from isthmus.api.slurmcluster import SlurmCluster


def access(
    *, cluster: SlurmCluster | None, reference: ClusterReference, namespace: str
) -> tuple[str, str] | None:
    """Why a namespace may not use a cluster, as (reason, sentence); None if it may."""
    if cluster is None:
        return (
            Reason.CLUSTER_NOT_FOUND,
            f"there is no SlurmCluster {reference.namespace}/{reference.name}: create it, or "
            "correct slurm.clusterRef",
        )
    allowed = cluster.spec.access.allowed_namespaces.names
    if namespace != reference.namespace and namespace not in allowed:
        return (
            Reason.CLUSTER_NOT_ALLOWED,
            f"SlurmCluster {reference.namespace}/{reference.name} does not admit namespace "
            f"{namespace}: add it to spec.access.allowedNamespaces.names there",
        )
    return None
