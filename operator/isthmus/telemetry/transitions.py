"""What has changed between two statuses of one object that is worth telling. Pure.

Apart from those who read it (events, counters), so that all of them tell the same: a status says
what is, a transition only what became so. The kind follows from the status; equal ones have none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from isthmus.api.base import ConditionModel
from isthmus.api.conditions import ConditionType
from isthmus.api.modeldeployment_status import ModelDeploymentStatus
from isthmus.api.reasons import Reason
from isthmus.api.slurmcluster import SlurmClusterStatus
from isthmus.api.slurmjob import SlurmJobStatus

Status: TypeAlias = ModelDeploymentStatus | SlurmClusterStatus | SlurmJobStatus

_UNREAD: Final = frozenset({Reason.RECORDS_UNREADABLE, Reason.UNKNOWN_FORMAT})


@dataclass(frozen=True, slots=True)
class Transition:
    """One change.

    Attributes:
        reason: in a word, which is a bounded value.
        message: in a sentence.
        warning: whether somebody should look.
    """

    reason: Reason
    message: str
    warning: bool = False


def transitions(before: Status | None, after: Status) -> tuple[Transition, ...]:
    """What became different, in the order in which it is told.

    Args:
        before: as the pass found it; None for an object that had none.
        after: as the pass wrote it, of the same kind.
    """
    if before == after:
        return ()
    if isinstance(after, SlurmJobStatus):
        job = before if isinstance(before, SlurmJobStatus) else SlurmJobStatus()
        return tuple(_of_job(job, after))
    if isinstance(after, ModelDeploymentStatus):
        deployment = (
            before if isinstance(before, ModelDeploymentStatus) else ModelDeploymentStatus()
        )
        return tuple(_of_deployment(deployment, after))
    cluster = before if isinstance(before, SlurmClusterStatus) else SlurmClusterStatus()
    return tuple(_of_cluster(cluster, after))


# ---- a SlurmJob


def _of_job(before: SlurmJobStatus, after: SlurmJobStatus) -> Iterator[Transition]:
    if after.excluded_nodes and after.excluded_nodes != before.excluded_nodes:
        nodes = ", ".join(after.excluded_nodes)
        message = f"submitted without {nodes}, where this revision failed again and again"
        yield Transition(Reason.NODES_EXCLUDED, message, warning=True)
    yield from _tunnel(before, after, ConditionType.TUNNEL_UP, worked=bool(before.ever_ready))
    if after.cut and before.terminated_at is None and after.terminated_at is not None:
        # In words of its own: the status may say something else by then.
        requests = "1 request" if after.cut == 1 else f"{after.cut} requests"
        message = f"{requests} interrupted after drain.timeout"
        yield Transition(Reason.DRAIN_TIMEOUT, message, warning=True)
    failing = _find(after, ConditionType.ACTIONS_SUCCEED)
    if failing is not None and _find(before, ConditionType.ACTIONS_SUCCEED) is None:
        yield Transition(Reason.ACTION_FAILED, failing.message, warning=True)


# ---- a ModelDeployment


def _of_deployment(
    before: ModelDeploymentStatus, after: ModelDeploymentStatus
) -> Iterator[Transition]:
    yield from _tunnel(before, after, ConditionType.TUNNELS_UP, worked=True)
    yield from _front(before, after)
    known = {worker.name for worker in before.workers if worker.displaced is not None}
    for worker in after.workers:
        found = worker.displaced
        if found is not None and found.reason and worker.name not in known:
            message = f"{worker.name} is being replaced: {found.message}"
            yield Transition(Reason(found.reason), message)


def _front(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Iterator[Transition]:
    now, was = (_find(status, ConditionType.FRONT_UP_TO_DATE) for status in (after, before))
    if now is not None and now.status == "False" and (was is None or was.status != "False"):
        yield Transition(Reason(now.reason), now.message, warning=True)


# ---- a SlurmCluster


def _of_cluster(before: SlurmClusterStatus, after: SlurmClusterStatus) -> Iterator[Transition]:
    kind = ConditionType.SLURM_REACHABLE
    now, was = _find(after, kind), _find(before, kind)
    if now is None or (was is not None and was.reason == now.reason):
        return
    if now.reason in _UNREAD:
        yield Transition(Reason(now.reason), now.message, warning=True)


# ---- conditions


def _tunnel(
    before: Status, after: Status, kind: ConditionType, *, worked: bool
) -> Iterator[Transition]:
    """A break of the path to workers and its end; nothing of a normal start."""
    now, was = _find(after, kind), _find(before, kind)
    if now is None or was is None:
        return
    if now.status == "False" and was.status != "False":
        yield Transition(Reason.TUNNEL_DOWN, now.message, warning=True)
    elif now.status == "True" and was.status == "False":
        reason = Reason.TUNNEL_RESTORED if worked else Reason.TUNNEL_ESTABLISHED
        word = "restored" if worked else "established"
        yield Transition(reason, f"tunnel {word}: {now.message}")


def _find(status: Status, kind: ConditionType) -> ConditionModel | None:
    return next((one for one in status.conditions if one.type == kind), None)
