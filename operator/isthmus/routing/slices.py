"""EndpointSlices, the only record of membership.

Pods enter through the Service's selector; a worker outside the cluster through a slice of its own,
because its port is its own. Both are read back here in the same way.
"""

from collections.abc import Iterable, Mapping

from isthmus.api import names
from isthmus.api.ip_family import IpFamily, family_of
from isthmus.apiserver.objects import Object, dig, labels, number, owner_uids

LABEL_SERVICE_NAME = "kubernetes.io/service-name"
LABEL_SLICE_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"


def worker_slice(
    *,
    namespace: str,
    deployment: str,
    service: str,
    owner: Mapping[str, str],
    address: str,
    port: int,
    port_name: str = "http",
    key: str | None = None,
) -> dict[str, object]:
    """The slice of one worker outside the cluster.

    Args:
        namespace: of the deployment.
        deployment: its name.
        service: name of the Service that the worker belongs to (`names.membership_service`).
        owner: `name` and `uid` of the SlurmJob; the slice carries its name.
        address: IPv4 or IPv6 address of the node, from SLURM, never from the job.
        port: the engine's port on that node.
        port_name: the Service's port.
        key: digest of the API key that the worker wants, None for none.
    """
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": owner["name"],
            "namespace": namespace,
            "labels": {
                LABEL_SERVICE_NAME: service,
                LABEL_SLICE_MANAGED_BY: names.GROUP,
                names.LABEL_MANAGED_BY: names.MANAGED_BY,
                names.LABEL_DEPLOYMENT: deployment,
                **({} if key is None else {names.LABEL_KEY: key}),
            },
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": "SlurmJob",
                    "name": owner["name"],
                    "uid": owner["uid"],
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "addressType": "IPv6" if family_of(address) is IpFamily.IPV6 else "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
    }


def slice_target(obj: Object) -> tuple[str, int] | None:
    """Address and port that a worker's slice publishes, None if it publishes none.

    Others may write slices with our labels, and the API takes a port without a number.
    """
    address = dig(obj, "endpoints", 0, "addresses", 0)
    port = number(dig(obj, "ports", 0, "port"))
    if not isinstance(address, str) or port is None:
        return None
    return address, port


def slice_service(obj: Object) -> str:
    """Name of the Service that a slice belongs to."""
    return labels(obj).get(LABEL_SERVICE_NAME, "")


def members(slices: Iterable[Object], *, service: str) -> frozenset[str]:
    """Names of the pods and uids of the SlurmJobs in the slices of the membership Service.

    A pod counts by the name in `targetRef` where its endpoint is ready, a slice of ours by the
    uid of its owner.
    """
    found: set[str] = set()
    for obj in slices:
        if slice_service(obj) != service:
            continue
        if dig(obj, "metadata", "labels", LABEL_SLICE_MANAGED_BY) == names.GROUP:
            if dig(obj, "endpoints", 0, "conditions", "ready") is True:
                found.update(owner_uids(obj))
            continue
        endpoints = dig(obj, "endpoints", default=[])
        for endpoint in endpoints if isinstance(endpoints, list) else []:
            if dig(endpoint, "conditions", "ready") is True:
                found.add(str(dig(endpoint, "targetRef", "name", default="")))
    return frozenset(found)
