"""Who may use a SlurmCluster, and whether the operator may do what it says.

A namespace may use its own cluster always, others by `spec.access`. A login that is `local` runs
programs of a folder that the object names as the operator itself, so it needs a setting, and is the
administrators' alone.
"""

from isthmus.api.conditions import Reason
from isthmus.api.desired import ClusterReference
from isthmus.api.slurmcluster import SlurmCluster


def access(
    *,
    cluster: SlurmCluster | None,
    reference: ClusterReference,
    namespace: str,
    unread: str = "",
) -> tuple[Reason, str] | None:
    """Why a namespace may not use a cluster, as (reason, sentence); None if it may.

    Args:
        cluster: what could be read of it, None where there is none or nothing could.
        reference: its place.
        namespace: whose jobs are meant.
        unread: which of its fields cannot be read.
    """
    if cluster is None and unread:
        return (
            Reason.INVALID_SPEC,
            f"SlurmCluster {reference.namespace}/{reference.name} cannot be read ({unread}): if a "
            "newer release of the operator wrote it, run that one again",
        )
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


def login_refused(cluster: SlurmCluster, *, allowed: bool, own_namespace: str) -> str:
    """Why the operator does not run the commands of a cluster itself; "" if it may, or need not.

    Args:
        cluster: says where its commands run.
        allowed: the setting local-login.
        own_namespace: the operator's.
    """
    if cluster.spec.login.local is None:
        return ""
    if cluster.metadata.namespace != own_namespace:
        return (
            f"login.local is for SlurmClusters in namespace {own_namespace} alone: it runs "
            "programs as the operator itself. Write login.ssh, or declare the cluster there and "
            "admit this namespace in its spec.access.allowedNamespaces.names"
        )
    if not allowed:
        return (
            "login.local runs programs as the operator itself, and the setting local-login is "
            "off: write login.ssh, or where the operator runs beside SLURM's commands start it "
            "with local-login=true"
        )
    return ""
