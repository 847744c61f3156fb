"""Which SlurmCluster a stored SlurmJob names."""

from isthmus.api.desired import ClusterReference
from isthmus.apiserver.objects import Object, dig


def cluster_of(obj: Object) -> ClusterReference:
    """The SlurmCluster that a SlurmJob names, as it is stored."""
    place = dig(obj, "spec", "clusterRef")
    return ClusterReference(
        namespace=str(dig(place, "namespace", default="")), name=str(dig(place, "name", default=""))
    )
