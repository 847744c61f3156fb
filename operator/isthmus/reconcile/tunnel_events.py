"""Events where a way to workers broke or works again, from the conditions before and after."""

from isthmus.api.base import ConditionModel
from isthmus.api.conditions import ConditionType, Reason
from isthmus.api.modeldeployment_status import ModelDeploymentStatus
from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.apiserver.objects import Object
from isthmus.observe.events import EventSink


def tell_of_tunnel(
    events: EventSink, raw: Object, *, before: SlurmJobStatus, after: SlurmJobStatus
) -> None:
    """An event of one worker, where its condition TunnelUp becomes False, or True after that."""
    _tell(
        events,
        raw,
        worked=bool(before.ever_ready),
        before=_find(before.conditions, ConditionType.TUNNEL_UP),
        after=_find(after.conditions, ConditionType.TUNNEL_UP),
    )


def tell_of_tunnels(
    events: EventSink, raw: Object, *, before: ModelDeploymentStatus, after: ModelDeploymentStatus
) -> None:
    """An event of a ModelDeployment, at a change of its condition TunnelsUp only."""
    _tell(
        events,
        raw,
        worked=True,
        before=_find(before.conditions, ConditionType.TUNNELS_UP),
        after=_find(after.conditions, ConditionType.TUNNELS_UP),
    )


def _tell(
    events: EventSink,
    raw: Object,
    *,
    worked: bool,
    before: ConditionModel | None,
    after: ConditionModel | None,
) -> None:
    if before is None or after is None:
        return
    if after.status == "False" and before.status != "False":
        events.emit(raw, type="Warning", reason=Reason.TUNNEL_DOWN, message=after.message)
    elif after.status == "True" and before.status == "False":
        reason = Reason.TUNNEL_RESTORED if worked else Reason.TUNNEL_ESTABLISHED
        word = "restored" if worked else "established"
        events.emit(raw, type="Normal", reason=reason, message=f"tunnel {word}: {after.message}")


def _find(conditions: tuple[ConditionModel, ...], kind: ConditionType) -> ConditionModel | None:
    return next((condition for condition in conditions if condition.type == kind), None)
