"""Why a pod is not ready, or is not made at all, in the words of Kubernetes and with what to do.

Apart from observe.py: workers and fronts are told by one rule, and a front is no worker. Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from isthmus.api import names
from isthmus.api.conditions import PendingClass, Reason
from isthmus.api.texts import one_line
from isthmus.api.times import epoch
from isthmus.apiserver.objects import Object, deletion_timestamp, dig, labels, name
from isthmus.backends.base import Pending
from isthmus.backends.kubernetes.firstprocess import MISSING_PROGRAM, UNUSABLE_PROGRAM

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What the pods of a kind are called, and where their fields are.

    Attributes:
        subject: what runs in them.
        image: what names their image.
        program: what to correct where the image does not have the program.
        arguments: why it may have ended with exit code 2, "" where no user gives arguments.
        loading: what they do while nothing is wrong.
        unscheduled: what to do where no node takes them, "" where the user knows.
        containers: names of those that are ours; empty for all but initContainers.
    """

    subject: str
    image: str
    program: str
    arguments: str
    loading: str
    unscheduled: str = ""
    containers: frozenset[str] = frozenset()


WORKER = Role(
    subject="the engine",
    image="engine.image",
    program="engine.image or engine.type",
    arguments="wrong engine.args?",
    loading="the engine is loading",
)

FRONT = Role(
    subject="the front",
    image="the operator's setting front-image",
    program="the operator's setting front-image",
    arguments="",
    loading="the front is starting",
    unscheduled="the operator's setting front-pods takes tolerations and a nodeSelector: ",
    containers=frozenset({"membership", "envoy"}),
)


def front_problem(*, deployment: Object | None, pods: Iterable[Object]) -> Pending | None:
    """Why no pod of a front is ready: what is wrong before what only takes its time.

    Args:
        deployment: the front's Deployment, None if there is none yet.
        pods: those of its ModelDeployment; workers are left out here.

    Returns:
        None where nothing is known.
    """
    refused = None if deployment is None else not_created(deployment)
    waiting = [
        pending_of(pod, role=FRONT)
        for pod in sorted(pods, key=name)
        if labels(pod).get(names.LABEL_COMPONENT) == names.COMPONENT_FRONT
        and deletion_timestamp(pod) is None
        and not _ready(pod)
    ]
    wrong = [one for one in waiting if one.pending_class is not PendingClass.STARTUP]
    return next(iter([*wrong, *([refused] if refused else []), *waiting]), None)


def not_created(obj: Object) -> Pending | None:
    """Why a Deployment makes no pods: quota or admission, told by `ReplicaFailure`."""
    for condition in conditions(obj):
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            said = str(condition.get("message", "pods cannot be created"))
            kind, advice = creation_refused(said)
            pod_security = kind is PendingClass.NEVER and "PodSecurity" in said
            reason = str(condition.get("reason", "FailedCreate"))
            return Pending(
                pending_class=kind,
                reason=Reason.POD_SECURITY_REFUSED if pod_security else reason,
                message=one_line(f"{advice}{said}", limit=512),
            )
    return None


def creation_refused(said: str) -> tuple[PendingClass, str]:
    """The class of what the API server says to an object that it does not take, and advice.

    Only of a used up quota it helps to wait. The advice comes before the words, which may be cut.
    """
    if "exceeded quota" in said:
        return PendingClass.QUOTA, ""
    if "PodSecurity" in said:
        return PendingClass.NEVER, (
            "the namespace's Pod Security level refuses these pods: write "
            "kubernetes.securityContext (runAsNonRoot, and a runAsUser that the image works with), "
            "or have the label pod-security.kubernetes.io/enforce changed: "
        )
    if "failed calling webhook" in said or "timed out" in said:
        return PendingClass.FAILING, "an admission webhook does not answer: "
    return PendingClass.NEVER, "the API server refuses these pods: "


def pending_of(pod: Object, *, role: Role = WORKER) -> Pending:
    """Why a pod is not ready: not scheduled, image, crash, or still starting."""
    for condition in conditions(pod):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            said = str(condition.get("message", "no node fits"))
            return Pending(
                pending_class=PendingClass.UNSCHEDULABLE,
                reason=str(condition.get("reason", "Unschedulable")),
                message=_sentence(f"{role.unscheduled}{said}"),
                since=epoch(text(condition.get("lastTransitionTime"))),
            )
    since = epoch(text(dig(pod, "status", "startTime")))
    for status in _container_statuses(pod, role):
        reason = text(dig(status, "state", "waiting", "reason"))
        message = str(dig(status, "state", "waiting", "message", default="") or "")
        if reason in IMAGE_REASONS:
            image = dig(status, "image", default="")
            return Pending(
                pending_class=PendingClass.IMAGE,
                reason=reason,
                message=_sentence(
                    f"image {image} cannot be pulled; correct {role.image} or push it: {message}"
                ),
                since=since,
            )
        found = _start_error(status, reason, role) or _crash(status, reason, role)
        if found:
            return Pending(
                pending_class=PendingClass.FAILING,
                reason=found[0],
                message=_sentence(found[1]),
                since=since,
            )
    return Pending(
        pending_class=PendingClass.STARTUP, reason="Starting", message=role.loading, since=since
    )


def conditions(obj: Object) -> list[Mapping[str, object]]:
    """The conditions of an object's status that can be read."""
    found = dig(obj, "status", "conditions", default=[])
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def text(value: object) -> str | None:
    """A text that says something, else None."""
    return value if isinstance(value, str) and value else None


def _ready(pod: Object) -> bool:
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions(pod))


def _container_statuses(pod: Object, role: Role) -> list[Mapping[str, object]]:
    """Of all containers, or of ours alone: what was injected ends and starts by its own rules."""
    kinds = (
        ("initContainerStatuses", "containerStatuses")
        if role.containers
        else ("containerStatuses",)
    )
    found = []
    for kind in kinds:
        listed = dig(pod, "status", kind, default=[])
        found += (
            [item for item in listed if isinstance(item, Mapping)]
            if isinstance(listed, list)
            else []
        )
    return [one for one in found if not role.containers or one.get("name") in role.containers]


def _ended(status: Mapping[str, object]) -> Mapping[str, object] | None:
    last = dig(status, "lastState", "terminated") or dig(status, "state", "terminated")
    return last if isinstance(last, Mapping) else None


def _start_error(
    status: Mapping[str, object], reason: str | None, role: Role
) -> tuple[str, str] | None:
    """Reason and sentence of a container whose program has never run, None of another.

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
        remedy = f"the image does not have the program: correct {role.program}; "
        return (
            Reason.CONTAINER_START_ERROR,
            f"the container cannot be started: {remedy if missing else ''}{said}".rstrip(": "),
        )
    if last.get("exitCode") in {MISSING_PROGRAM, UNUSABLE_PROGRAM} and said:
        return Reason.CONTAINER_START_ERROR, f"{role.subject} cannot be started: {said}"
    return None


def _crash(status: Mapping[str, object], reason: str | None, role: Role) -> tuple[str, str] | None:
    """Reason and sentence of a program that ended by itself, None if it did not."""
    last = _ended(status)
    if last is None:
        return None
    code = last.get("exitCode")
    hint = {
        2: role.arguments,
        MISSING_PROGRAM: f"a program that {role.image} does not have?",
    }.get(code if isinstance(code, int) else 0, "")
    return reason or "Crashed", (
        f"{role.subject} ended with exit code {code}{f' ({hint})' if hint else ''}, "
        f"{status.get('restartCount', 0)} restarts; see kubectl logs --previous"
    )


def _sentence(said: str) -> str:
    """Bound a foreign text, which may be long, for a status."""
    return one_line(said, limit=512)
