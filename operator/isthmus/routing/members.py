"""From the EndpointSlices of one Service to the addresses that get requests. Pure.

Envoy refuses a file of endpoints as a whole for one address that it cannot read, and then nothing
that follows reaches it any more; so what is no address drops itself here.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from isthmus.api import names
from isthmus.api.ip_family import host_port
from isthmus.apiserver.objects import Object, dig, labels, number
from isthmus.routing.slices import LABEL_SLICE_MANAGED_BY

PORT_NAME = "http"
_LAST_PORT = 65535
_NO_WORKLOAD = "/"


@dataclass(frozen=True, slots=True, order=True)
class Worker:
    """Where one worker listens.

    Attributes:
        address: IPv4 or IPv6.
        key: digest of the API key that it wants, as its slice says; "" if that says none.
        workload: name of the Deployment that made the pod, "" for the worker of a SlurmJob. What
            is neither has a name that no Deployment can have.
    """

    address: str
    port: int
    key: str = ""
    workload: str = ""

    def __str__(self) -> str:
        """Return it as it stands in a URL."""
        return host_port(self.address, self.port)


def workers(slices: Iterable[Object]) -> tuple[Worker, ...]:
    """The workers that get requests, in order, each once.

    Those are the ready ones. If there is none, those that are ending and still serve: the last
    resort of kube-proxy too, for a worker that is about to go is better than an error.
    """
    ready: set[Worker] = set()
    ending: set[Worker] = set()
    for obj in slices:
        port = _port(obj)
        if port is None or dig(obj, "addressType") not in ("IPv4", "IPv6"):
            continue
        endpoints = dig(obj, "endpoints", default=[])
        ours = _of_slurm_job(obj)
        key = labels(obj).get(names.LABEL_KEY, "") if ours else ""
        for endpoint in endpoints if isinstance(endpoints, list) else []:
            found = {
                Worker(address, port, key=key, workload="" if ours else _workload(endpoint))
                for address in _addresses(endpoint)
            }
            # Absent means true, says the API.
            if dig(endpoint, "conditions", "ready", default=True) is True:
                ready |= found
            elif (
                dig(endpoint, "conditions", "terminating") is True
                and dig(endpoint, "conditions", "serving") is True
            ):
                ending |= found
    return tuple(sorted(ready or ending))


def _port(obj: Object) -> int | None:
    ports = dig(obj, "ports", default=[])
    for port in ports if isinstance(ports, list) else []:
        if dig(port, "name") == PORT_NAME:
            found = number(dig(port, "port"))
            return found if found is not None and 1 <= found <= _LAST_PORT else None
    return None


def _of_slurm_job(obj: Object) -> bool:
    """Whether it is a slice of ours, of a worker on SLURM."""
    owners = dig(obj, "metadata", "ownerReferences", default=[])
    owned = isinstance(owners, list) and any(dig(one, "kind") == "SlurmJob" for one in owners)
    return owned and labels(obj).get(LABEL_SLICE_MANAGED_BY) == names.GROUP


def _workload(endpoint: object) -> str:
    """A pod of a Deployment is named after it, its ReplicaSet and itself."""
    if dig(endpoint, "targetRef", "kind") != "Pod":
        return _NO_WORKLOAD
    pod = str(dig(endpoint, "targetRef", "name", default=""))
    return pod.rpartition("-")[0].rpartition("-")[0] or _NO_WORKLOAD


def _addresses(endpoint: object) -> list[str]:
    """The first address only: further ones are the same worker again. None if it is no address."""
    found = dig(endpoint, "addresses", default=[])
    if not isinstance(found, list) or not found:
        return []
    try:
        address = ipaddress.ip_address(str(found[0]))
    except ValueError:
        return []
    # A zone is a word of the node that wrote it: Envoy would look for an interface of that name.
    zone = isinstance(address, ipaddress.IPv6Address) and address.scope_id
    return [] if zone or address.is_unspecified or address.is_multicast else [str(address)]
