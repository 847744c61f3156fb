"""What has changed between two statuses of one object that is worth telling. Pure.

Apart from those who read it (events, counters), so that all of them tell the same: a status says
what is, a transition only what became so. The kind follows from the status; equal ones have none.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from isthmus.api.base import ConditionModel
from isthmus.api.conditions import ConditionType
from isthmus.api.durations import format_duration
from isthmus.api.modeldeployment_status import ModelDeploymentStatus
from isthmus.api.reasons import Reason
from isthmus.api.slurmcluster import SlurmClusterStatus
from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.api.times import epoch

Status: TypeAlias = ModelDeploymentStatus | SlurmClusterStatus | SlurmJobStatus

_UNREAD: Final = frozenset({Reason.RECORDS_UNREADABLE, Reason.UNKNOWN_FORMAT})

_OF_TUNNELS: Final = frozenset(
    {Reason.TUNNEL_DOWN, Reason.TUNNEL_RESTORED, Reason.TUNNEL_ESTABLISHED}
)
TOLD: Final[Mapping[str, frozenset[Reason]]] = {
    "ModelDeployment": _OF_TUNNELS
    | {
        Reason.SCALING_UP,
        Reason.SCALING_DOWN,
        Reason.ROLLOUT_STARTED,
        Reason.ROLLOUT_COMPLETE,
        Reason.NODE_DRAINING,
        Reason.TIME_LIMIT_NEAR,
        Reason.FRONT_OUTDATED,
        Reason.DRAIN_TIMEOUT,  # of a pod, by hand: no status shows it
    },
    "SlurmJob": _OF_TUNNELS
    | {
        Reason.JOB_SUBMITTED,
        Reason.NODES_EXCLUDED,
        Reason.DRAIN_TIMEOUT,
        Reason.ACTION_FAILED,
    },
    "SlurmCluster": _UNREAD,
}
"""All that is ever told, by kind: it is counted from the start, and stands in docs/metrics.md."""


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
    kind = type(after)
    return tuple(_OF[kind](before if isinstance(before, kind) else kind(), after))


# ---- a SlurmJob


def _of_job(before: SlurmJobStatus, after: SlurmJobStatus) -> Iterator[Transition]:
    if before.job_id is None and after.job_id is not None and after.submissions:
        # Without a submission on record it is a job that was found again, after a lost status.
        yield Transition(Reason.JOB_SUBMITTED, f"submitted to SLURM as job {after.job_id}")
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
    yield from _scaled(before, after)
    yield from _rollout(before, after)
    yield from _front(before, after)
    known = {worker.name for worker in before.workers if worker.displaced is not None}
    for worker in after.workers:
        found = worker.displaced
        if found is not None and found.reason and worker.name not in known:
            message = f"{worker.name} is being replaced: {found.message}"
            yield Transition(Reason(found.reason), message)


def _scaled(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Iterator[Transition]:
    """Another number of workers is placed on the pools: by a person, or by an autoscaler."""
    if not after.pools:  # it is being deleted
        return
    now, was = _placed(after), _placed(before)
    if not before.pools:
        # The first look, or a status that was lost: then the workers may be there already.
        if (after.available_replicas or 0) < now:
            yield Transition(Reason.SCALING_UP, f"scaling up to {_workers(now)}")
    elif now != was:
        reason = Reason.SCALING_UP if now > was else Reason.SCALING_DOWN
        way = "up" if now > was else "down"
        yield Transition(reason, f"scaling {way} from {was} to {_workers(now)}")


def _placed(status: ModelDeploymentStatus) -> int:
    return sum(pool.desired or 0 for pool in status.pools)


def _workers(number: int) -> str:
    return "1 worker" if number == 1 else f"{number} workers"


def _rollout(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Iterator[Transition]:
    now, was = after.rollout, before.rollout
    if now is None or now == was:
        return
    if now.under_way:
        yield Transition(Reason.ROLLOUT_STARTED, f"rollout started: {_revisions(before, after)}")
    elif was is not None and was.under_way:
        took = (epoch(now.finished_at) or 0.0) - (epoch(now.started_at) or 0.0)
        message = f"rollout complete after {format_duration(took)}: {_revisions(after, after)}"
        yield Transition(Reason.ROLLOUT_COMPLETE, message)


def _revisions(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> str:
    """What each pool is to run, and instead of what where that has changed."""
    old = {pool.name: pool.revision for pool in before.pools}
    told = []
    for pool in after.pools:
        was = old.get(pool.name)
        instead = f" instead of {was}" if was and was != pool.revision else ""
        told.append(f"pool {pool.name} runs revision {pool.revision}{instead}")
    return "; ".join(told)


def _front(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Iterator[Transition]:
    now, was = (_find(status, ConditionType.FRONT_UP_TO_DATE) for status in (after, before))
    if now is not None and now.status == "False" and (was is None or was.status != "False"):
        yield Transition(Reason.FRONT_OUTDATED, now.message, warning=True)


# ---- a SlurmCluster


def _of_cluster(before: SlurmClusterStatus, after: SlurmClusterStatus) -> Iterator[Transition]:
    kind = ConditionType.SLURM_REACHABLE
    now, was = _find(after, kind), _find(before, kind)
    if now is None or (was is not None and was.reason == now.reason):
        return
    if now.reason in _UNREAD:
        yield Transition(Reason(now.reason), now.message, warning=True)


_OF: Final[Mapping[type[Status], Callable[[Any, Any], Iterator[Transition]]]] = {
    SlurmJobStatus: _of_job,
    ModelDeploymentStatus: _of_deployment,
    SlurmClusterStatus: _of_cluster,
}

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
