"""What pods and Deployments say, as the planner's records. Pure: objects in, records out."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from isthmus.api import names
from isthmus.api.conditions import PendingClass, Reason
from isthmus.api.texts import one_line
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
from isthmus.backends.kubernetes.firstprocess import MISSING_PROGRAM, UNUSABLE_PROGRAM
from isthmus.backends.kubernetes.render import CONTAINER_PORT

IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)


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
        pods: its pods.
        members: names of the pods that are ready endpoints of its Service.
        load: what the metrics of the pod of a name say, None where nobody asks.
    """
    workers: dict[tuple[str, str], list[Worker]] = {}
    for pod in pods:
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
            problem=_problem(obj),
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


def _problem(obj: Object) -> Pending | None:
    """Why the Deployment makes no pods: quota or admission, told by `ReplicaFailure`."""
    for condition in _conditions(obj):
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            text = str(condition.get("message", "pods cannot be created"))
            kind, advice = creation_refused(text)
            return Pending(
                pending_class=kind,
                reason=str(condition.get("reason", "FailedCreate")),
                message=one_line(f"{advice}{text}", limit=512),
            )
    return None


def creation_refused(text: str) -> tuple[PendingClass, str]:
    """The class of what the API server says to an object that it does not take, and advice.

    Only of a used up quota it helps to wait. The advice comes before the words, which may be cut.
    """
    if "exceeded quota" in text:
        return PendingClass.QUOTA, ""
    if "PodSecurity" in text:
        return PendingClass.NEVER, (
            "the namespace's Pod Security level refuses these pods: have its label "
            "pod-security.kubernetes.io/enforce changed, or use another namespace: "
        )
    if "failed calling webhook" in text or "timed out" in text:
        return PendingClass.FAILING, "an admission webhook does not answer: "
    return PendingClass.NEVER, "the API server refuses these pods: "


def _conditions(obj: Object) -> list[Mapping[str, object]]:
    found = dig(obj, "status", "conditions", default=[])
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def worker(pod: Object, *, members: frozenset[str], load: Load | None = None) -> Worker:
    """One pod as a worker; its identity is its address and the kubelet's readiness."""
    phase = str(dig(pod, "status", "phase", default="Pending"))
    failed = phase in {"Failed", "Succeeded"}
    draining = draining_of(pod)
    stopping = draining is not None
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in _conditions(pod))
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
        node=_text(dig(pod, "spec", "nodeName")),
        url=probe_url(pod),
        healthy=ready,
        started_at=_text(started),
        pending=pending,
        draining=draining,
        load=load,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


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
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{CONTAINER_PORT}"


def engine_of(pod: Object) -> str | None:
    """Name of the engine that a pod runs, by its label; None for what is no engine of ours.

    Of a pod whose template was frozen by a release without that label, the program it starts.
    """
    label = labels(pod).get(names.LABEL_ENGINE)
    if label is not None:
        return label
    containers = dig(pod, "spec", "containers", default=[])
    command = dig(containers[0], "command") if isinstance(containers, list) and containers else None
    return str(command[0]) if isinstance(command, list) and command else None


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


def pending_of(pod: Object) -> Pending:
    """Why a pod is not ready: not scheduled, image, crash, or still starting."""
    for condition in _conditions(pod):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Pending(
                pending_class=PendingClass.UNSCHEDULABLE,
                reason=str(condition.get("reason", "Unschedulable")),
                message=_sentence(str(condition.get("message", "no node fits"))),
                since=epoch(_text(condition.get("lastTransitionTime"))),
            )
    since = epoch(_text(dig(pod, "status", "startTime")))
    for status in _container_statuses(pod):
        reason = _text(dig(status, "state", "waiting", "reason"))
        message = str(dig(status, "state", "waiting", "message", default="") or "")
        if reason in IMAGE_REASONS:
            image = dig(status, "image", default="")
            return Pending(
                pending_class=PendingClass.IMAGE,
                reason=reason,
                message=_sentence(
                    f"image {image} cannot be pulled; correct engine.image or push it: {message}"
                ),
                since=since,
            )
        found = _start_error(status, reason) or _crash(status, reason)
        if found:
            return Pending(
                pending_class=PendingClass.FAILING,
                reason=found[0],
                message=_sentence(found[1]),
                since=since,
            )
    return Pending(
        pending_class=PendingClass.STARTUP,
        reason="Starting",
        message="the engine is loading",
        since=since,
    )


def _container_statuses(pod: Object) -> list[Mapping[str, object]]:
    found = dig(pod, "status", "containerStatuses", default=[])
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def _ended(status: Mapping[str, object]) -> Mapping[str, object] | None:
    last = dig(status, "lastState", "terminated") or dig(status, "state", "terminated")
    return last if isinstance(last, Mapping) else None


def _start_error(status: Mapping[str, object], reason: str | None) -> tuple[str, str] | None:
    """Reason and sentence of a container whose engine has never run, None of another.

    The container's program is missing, which the runtime says; or the engine's is, which our
    process 1 says (`firstprocess`), in the message that a container leaves behind.
    """
    waiting = str(dig(status, "state", "waiting", "message", default="") or "")
    if reason in {"CreateContainerConfigError", "CreateContainerError"}:
        return str(reason), waiting or str(reason)
    last = _ended(status) or {}
    said = str(last.get("message") or "") or (waiting if reason == "RunContainerError" else "")
    if reason == "RunContainerError" or last.get("reason") in {"StartError", "ContainerCannotRun"}:
        missing = "executable file not found" in said or "no such file or directory" in said
        remedy = "the image does not have the program: correct engine.image or engine.type; "
        return (
            Reason.CONTAINER_START_ERROR,
            f"the container cannot be started: {remedy if missing else ''}{said}".rstrip(": "),
        )
    if last.get("exitCode") in {MISSING_PROGRAM, UNUSABLE_PROGRAM} and said:
        return Reason.CONTAINER_START_ERROR, f"the engine cannot be started: {said}"
    return None


def _crash(status: Mapping[str, object], reason: str | None) -> tuple[str, str] | None:
    """Reason and sentence of an engine that ended by itself, None if it did not."""
    last = _ended(status)
    if last is None:
        return None
    code = last.get("exitCode")
    hint = {
        2: " (wrong engine.args?)",
        MISSING_PROGRAM: " (a program that engine.image does not have?)",
    }.get(code if isinstance(code, int) else 0, "")
    return reason or "Crashed", (
        f"the engine ended with exit code {code}{hint}, {status.get('restartCount', 0)} restarts; "
        "see kubectl logs --previous"
    )


def _sentence(text: str) -> str:
    """Bound a foreign text, which may be long, for a status."""
    return one_line(text, limit=512)
