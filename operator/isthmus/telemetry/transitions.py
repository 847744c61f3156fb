"""What has changed between two statuses of one object that is worth telling. Pure.

Apart from those who read it (events, counters), so that all of them tell the same: a status says
what is, a transition only what became so. The kind follows from the status; equal ones have none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from isthmus.api.base import ConditionModel
from isthmus.api.conditions import ConditionType, Phase
from isthmus.api.modeldeployment_status import ModelDeploymentStatus
from isthmus.api.reasons import Reason
from isthmus.api.slurmcluster import SlurmClusterStatus
from isthmus.api.slurmjob import SlurmJobStatus

Status: TypeAlias = ModelDeploymentStatus | SlurmClusterStatus | SlurmJobStatus

_EXPECTED: Final = frozenset({Phase.EXPIRED, Phase.PREEMPTED})
"""Ends of a job that are no fault of anybody."""

_PATHS: Final = frozenset({Reason.TUNNEL_DOWN, Reason.TUNNEL_AWAITED})
"""Told by the condition TunnelUp already."""

_UNREAD: Final = frozenset({Reason.RECORDS_UNREADABLE, Reason.UNKNOWN_FORMAT})

_WORDS: Final = frozenset(map(str, Reason))


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
    if after.job_id is not None and after.job_id != before.job_id:
        yield Transition(Reason.SUBMITTED, f"the attempt is job {after.job_id} in SLURM")
    if after.phase != before.phase:
        yield from _phase(before, after)
    if after.cut and before.terminated_at is None and after.terminated_at is not None:
        # In words of its own: the status may say something else by then.
        requests = "1 request" if after.cut == 1 else f"{after.cut} requests"
        message = f"{requests} had not finished within drain.timeout: interrupted"
        yield Transition(Reason.DRAIN_TIMEOUT, message, warning=True)
    yield from _tunnel(before, after, ConditionType.TUNNEL_UP, worked=bool(before.ever_ready))
    failing = _find(after, ConditionType.ACTIONS_SUCCEED)
    if failing is not None and _find(before, ConditionType.ACTIONS_SUCCEED) is None:
        yield Transition(Reason.ACTION_FAILED, failing.message, warning=True)


def _phase(before: SlurmJobStatus, after: SlurmJobStatus) -> Iterator[Transition]:
    phase, message = after.phase, after.message or ""
    reason = _member(after.reason)
    if phase == Phase.READY:
        again = " again" if before.ever_ready else ""
        yield Transition(Reason.HEALTHY, f"healthy{again}: {after.url or 'it may get requests'}")
    elif reason is None:
        return
    elif phase == Phase.SUBMIT_UNKNOWN or (
        phase == Phase.DEGRADED and before.phase == Phase.READY and reason not in _PATHS
    ):
        yield Transition(reason, message, warning=True)
    elif phase is not None and Phase(phase).terminal:
        yield Transition(reason, message, warning=phase not in _EXPECTED)


# ---- a ModelDeployment


def _of_deployment(
    before: ModelDeploymentStatus, after: ModelDeploymentStatus
) -> Iterator[Transition]:
    ready, was_ready = _find(after, ConditionType.READY), _find(before, ConditionType.READY)
    if ready is not None and ready.reason == Reason.DELETING:
        if was_ready is None or was_ready.reason != Reason.DELETING:
            yield Transition(Reason.DELETING, ready.message)
        return
    yield from _scaled(before, after)
    yield from _changed(before, after, ConditionType.AVAILABLE)
    yield from _progress(before, after)
    yield from _changed(before, after, ConditionType.ROUTER_REACHABLE)
    yield from _tunnel(before, after, ConditionType.TUNNELS_UP, worked=True)


def _scaled(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Iterator[Transition]:
    was, wanted = (sum(pool.desired or 0 for pool in one.pools) for one in (before, after))
    if was != wanted:
        up = wanted > was
        yield Transition(
            Reason.SCALING_UP if up else Reason.SCALING_DOWN,
            f"scaled {'up' if up else 'down'} from {was} to {wanted} workers",
        )


def _progress(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Iterator[Transition]:
    now, was = _find(after, ConditionType.PROGRESSING), _find(before, ConditionType.PROGRESSING)
    if now is None or (reason := _member(now.reason)) is None:
        return
    if was is not None and was.reason == now.reason and was.status == now.status:
        return
    if now.status == "False":
        yield Transition(reason, now.message, warning=True)
    elif reason == Reason.ROLLOUT_IN_PROGRESS or (
        reason == Reason.ROLLOUT_COMPLETE and was is not None
    ):
        yield Transition(reason, now.message)


# ---- a SlurmCluster


def _of_cluster(before: SlurmClusterStatus, after: SlurmClusterStatus) -> Iterator[Transition]:
    kind = ConditionType.SLURM_REACHABLE
    now, was = _find(after, kind), _find(before, kind)
    if now is None or (reason := _member(now.reason)) in {None, Reason.NOT_OBSERVED_YET}:
        return
    told = was is not None and was.reason != Reason.NOT_OBSERVED_YET
    reached = was is not None and was.status == "False" and told and now.status == "True"
    lost = now.status == "False" and not (was is not None and was.status == "False" and told)
    unread = reason in _UNREAD and (was is None or was.reason != now.reason)
    if reason is not None and (lost or unread or reached):
        yield Transition(reason, now.message, warning=lost or unread)


# ---- conditions


def _changed(before: Status, after: Status, kind: ConditionType) -> Iterator[Transition]:
    """A condition that was known and changed between True and False."""
    now, was = _find(after, kind), _find(before, kind)
    if now is None or was is None or {now.status, was.status} != {"True", "False"}:
        return
    if (reason := _member(now.reason)) is not None:
        yield Transition(reason, now.message, warning=now.status == "False")


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


def _member(word: str | None) -> Reason | None:
    """A stored word as a reason of ours; None for one of another release."""
    return Reason(word) if word in _WORDS else None
