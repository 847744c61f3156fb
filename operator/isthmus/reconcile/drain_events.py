"""Events where a drain ended with requests that had not finished."""

from isthmus.api.conditions import Reason
from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.apiserver.objects import Object
from isthmus.observe.events import EventSink
from isthmus.plan.actions import ReleasePod
from isthmus.plan.policy.drain import Proceed, told


def tell_of_cut_job(
    events: EventSink, raw: Object, *, before: SlurmJobStatus, after: SlurmJobStatus
) -> None:
    """An event of a SlurmJob, when its engine is told to end with requests under way."""
    if after.cut and before.terminated_at is None and after.terminated_at is not None:
        events.emit(raw, type="Warning", reason=Reason.DRAIN_TIMEOUT, message=after.message or "")


def tell_of_cut_pod(events: EventSink, raw: Object, action: ReleasePod) -> None:
    """An event of a ModelDeployment, when one of its pods is let go with requests under way."""
    if action.cut:
        said = told(Proceed(cut=action.cut, over=True), budget=action.budget)
        message = f"pod {action.name}: {said}"
        events.emit(raw, type="Warning", reason=Reason.DRAIN_TIMEOUT, message=message)
