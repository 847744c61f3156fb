"""What pods and Deployments say, as the planner's records. Pure: objects in, records out."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from isthmus.api import names
from isthmus.api.conditions import PendingClass
from isthmus.api.ip_family import host_port
from isthmus.api.times import epoch
from isthmus.apiserver.objects import (
    Object,
    annotations,
    deletion_timestamp,
    dig,
    labels,
    metadata,
    name,
    number,
    uid,
)
from isthmus.backends.base import Draining, Load, Pending, Worker, WorkerGroup
from isthmus.backends.kubernetes.pending import conditions, not_created, pending_of, text
from isthmus.backends.kubernetes.render import CONTAINER_PORT
from isthmus.engines import engine_started_by


def groups(
    *,
    deployments: Iterable[Object],
    pods: Iterable[Object],
    members: frozenset[str],
    load: Callable[[str], Load | None] = lambda _: None,
) -> tuple[WorkerGroup, ...]:
    """All worker groups of one ModelDeployment on Kubernetes.

    Args:
        deployments: its Deployments, those being deleted left out by the caller or not.
        pods: its pods; those of its front are left out here.
        members: names of the pods that are ready endpoints of its Service.
        load: what the metrics of the pod of a name say, None where nobody asks.
    """
    workers: dict[tuple[str, str], list[Worker]] = {}
    for pod in pods:
        if names.LABEL_COMPONENT in labels(pod):
            continue
        found = worker(pod, members=members, load=load(name(pod)))
        workers.setdefault((found.pool, found.revision), []).append(found)
    result = []
    for obj in deployments:
        key = labels(obj).get(names.LABEL_POOL, ""), labels(obj).get(names.LABEL_REVISION, "")
        group = WorkerGroup(
            pool=key[0],
            backend="kubernetes",
            revision=key[1],
            wanted=_replicas(obj),
            workers=tuple(sorted(workers.pop(key, []), key=lambda item: item.name)),
            problem=not_created(obj),
        )
        result.append(replace(group, wanted=max(0, group.wanted - len(group.waiting))))
    # Pods whose Deployment is gone already are still shown until they are gone too.
    for (pool, revision), rest in sorted(workers.items()):
        result.append(
            WorkerGroup(
                pool=pool,
                backend="kubernetes",
                revision=revision,
                wanted=0,
                exists=False,
                workers=tuple(rest),
            )
        )
    return tuple(result)


def _replicas(obj: Object) -> int:
    replicas = dig(obj, "spec", "replicas", default=1)
    return replicas if isinstance(replicas, int) and deletion_timestamp(obj) is None else 0


def worker(pod: Object, *, members: frozenset[str], load: Load | None = None) -> Worker:
    """One pod as a worker; its identity is its address and the kubelet's readiness."""
    phase = str(dig(pod, "status", "phase", default="Pending"))
    failed = phase in {"Failed", "Succeeded"}
    draining = draining_of(pod)
    stopping = draining is not None
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions(pod))
    pending = None if ready or failed or stopping else pending_of(pod)
    started = dig(pod, "status", "startTime")
    return Worker(
        name=name(pod),
        uid=uid(pod),
        pool=labels(pod).get(names.LABEL_POOL, ""),
        backend="kubernetes",
        revision=labels(pod).get(names.LABEL_REVISION, ""),
        phase=_display_phase(phase, ready=ready, draining=draining, pending=pending),
        ready=ready and not stopping and not failed,
        in_rotation=name(pod) in members,
        serving=ready and not failed,
        stopping=stopping,
        failed=failed,
        node=text(dig(pod, "spec", "nodeName")),
        url=probe_url(pod),
        healthy=ready,
        started_at=text(started),
        pending=pending,
        draining=draining,
        load=load,
    )


def draining_of(pod: Object) -> Draining | None:
    """How far a pod is that is deleted or marked to be; None for one that stays."""
    notes = annotations(pod)
    marked = epoch(notes.get(names.ANNOTATION_DRAINING_SINCE))
    grace = number(metadata(pod).get("deletionGracePeriodSeconds"))
    deleted = epoch(deletion_timestamp(pod))
    if deleted is not None:
        # The time stamp is the end of the grace.
        deleted -= grace or 0
    since = marked if marked is not None else deleted
    if since is None:
        return None
    return Draining(
        since=since,
        released_at=epoch(notes.get(names.ANNOTATION_DRAINED_AT)),
        cut=number(notes.get(names.ANNOTATION_REQUESTS_CUT)),
        grace=None if deleted is None else float(grace or 0),
    )


def probe_url(pod: Object) -> str | None:
    """Where a pod's engine is asked, None while it has no address."""
    address = dig(pod, "status", "podIP")
    if not isinstance(address, str) or not address:
        return None
    return f"http://{host_port(address, CONTAINER_PORT)}"


def engine_of(pod: Object) -> str | None:
    """Name of the engine that a pod runs, by its label; None for what is no engine of ours.

    Of a pod whose template was frozen by a release without that label, the program it starts.
    """
    label = labels(pod).get(names.LABEL_ENGINE)
    if label is not None:
        return label
    containers = dig(pod, "spec", "containers", default=[])
    command = dig(containers[0], "command") if isinstance(containers, list) and containers else None
    return engine_started_by(command[0]) if isinstance(command, list) and command else None


def _display_phase(
    phase: str, *, ready: bool, draining: Draining | None, pending: Pending | None
) -> str:
    if draining is not None:
        return "Draining" if draining.grace is None else "Terminating"
    if ready:
        return "Ready"
    if phase == "Running" or (pending and pending.pending_class is PendingClass.STARTUP):
        return "Starting"
    return phase
