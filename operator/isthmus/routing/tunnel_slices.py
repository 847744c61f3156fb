"""EndpointSlices of forwards: written by a tunnel supervisor, read by the operator and the others.

Apart from the slices of workers that are reached directly, which the operator writes. Each
supervisor has a slice of its own for each forward, so that two of them can hold the same forward
while one replaces the other.
"""

from dataclasses import dataclass

from isthmus.api import names
from isthmus.api.ip_family import IpFamily, family_of
from isthmus.apiserver.objects import Object, annotations, dig, labels, number
from isthmus.routing.slices import LABEL_SERVICE_NAME, LABEL_SLICE_MANAGED_BY, slice_target
from isthmus.routing.tunnel_slice import TunnelSlice

_MESSAGE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a supervisor says of one forward.

    Attributes:
        namespace: of the SlurmJob.
        slurm_job: its name.
        uid: its uid.
        deployment: its ModelDeployment.
        service: whose membership the worker belongs to.
        tunnel: the rest.
        key: digest of the API key that the worker wants, None for none.
    """

    namespace: str
    slurm_job: str
    uid: str
    deployment: str
    service: str
    tunnel: TunnelSlice
    key: str | None = None


def tunnel_slice(published: Published) -> Object:
    """The slice of one forward on one supervisor."""
    tunnel = published.tunnel
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": names.tunnel_slice_name(slurm_job=published.slurm_job, host=tunnel.host),
            "namespace": published.namespace,
            "labels": {
                LABEL_SERVICE_NAME: published.service,
                LABEL_SLICE_MANAGED_BY: names.GROUP,
                names.LABEL_MANAGED_BY: names.MANAGED_BY,
                names.LABEL_DEPLOYMENT: published.deployment,
                names.LABEL_TUNNEL_HOST: tunnel.host,
                **({} if published.key is None else {names.LABEL_KEY: published.key}),
            },
            "annotations": {
                names.ANNOTATION_TUNNEL: names.TUNNEL_UP if tunnel.up else names.TUNNEL_DOWN,
                names.ANNOTATION_TUNNEL_MESSAGE: tunnel.message[:_MESSAGE],
                **({} if tunnel.target is None else _target_note(tunnel.target)),
            },
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": "SlurmJob",
                    "name": published.slurm_job,
                    "uid": published.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "addressType": "IPv6" if family_of(tunnel.address) is IpFamily.IPV6 else "IPv4",
        "endpoints": [{"addresses": [tunnel.address], "conditions": {"ready": tunnel.ready}}],
        "ports": [{"name": "http", "port": tunnel.port, "protocol": "TCP"}],
    }


def tunnel_host(obj: Object) -> str:
    """Id of the supervisor that wrote a slice, "" for a slice that none can have written.

    The EndpointSlice controller copies a Service's labels to slices of its own, and makes those
    anew that are deleted; which controller manages a slice is the one label that it sets itself.
    """
    if labels(obj).get(LABEL_SLICE_MANAGED_BY) != names.GROUP:
        return ""
    owners = dig(obj, "metadata", "ownerReferences")
    found = owners if isinstance(owners, list | tuple) else ()
    if not any(dig(one, "kind") == "SlurmJob" for one in found):
        return ""
    return labels(obj).get(names.LABEL_TUNNEL_HOST, "")


def tunnel_of(obj: Object) -> TunnelSlice | None:
    """What a slice says of a forward; None for a slice of another kind."""
    host = tunnel_host(obj)
    target = slice_target(obj)
    if not host or target is None:
        return None
    notes = annotations(obj)
    return TunnelSlice(
        host=host,
        address=target[0],
        port=target[1],
        ready=dig(obj, "endpoints", 0, "conditions", "ready") is True,
        up=notes.get(names.ANNOTATION_TUNNEL) == names.TUNNEL_UP,
        message=notes.get(names.ANNOTATION_TUNNEL_MESSAGE, ""),
        target=_target(notes.get(names.ANNOTATION_TUNNEL_TARGET, "")),
    )


def _target_note(target: tuple[str, int]) -> dict[str, str]:
    return {names.ANNOTATION_TUNNEL_TARGET: f"{target[0]}:{target[1]}"}


def _target(note: str) -> tuple[str, int] | None:
    host, _, port = note.rpartition(":")
    found = number(port)
    return (host, found) if host and found is not None and 0 < found < 65536 else None
