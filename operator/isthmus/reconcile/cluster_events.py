"""Events where a cluster's answers begin or cease to be readable, from the conditions."""

from isthmus.api.conditions import ConditionType, Reason
from isthmus.api.slurmcluster import SlurmClusterStatus
from isthmus.apiserver.objects import Object
from isthmus.telemetry.events import EventSink

_TOLD = frozenset({Reason.RECORDS_UNREADABLE, Reason.UNKNOWN_FORMAT})


def tell_of_records(
    events: EventSink, raw: Object, *, before: SlurmClusterStatus, after: SlurmClusterStatus
) -> None:
    """A warning, once, when records of SLURM that cannot be read turn up."""
    was, now = _reachable(before), _reachable(after)
    if now[0] in _TOLD and now[0] != was[0]:
        events.emit(raw, type="Warning", reason=Reason(now[0]), message=now[1])


def _reachable(status: SlurmClusterStatus) -> tuple[str, str]:
    """Reason and message of the condition SlurmReachable."""
    found = (c for c in status.conditions if c.type == ConditionType.SLURM_REACHABLE)
    return next(((c.reason, c.message) for c in found), ("", ""))
