"""Events where a drain ended with requests that had not finished."""

from isthmus.api.conditions import Reason
from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.apiserver.objects import Object
from isthmus.telemetry.events import EventSink
from isthmus.plan.actions import ReleasePod
from isthmus.plan.policy.drain import Proceed, told


def tell_of_cut_job(
    events: EventSink,
    raw: Object,
    *,
    before: SlurmJobStatus,
    after: SlurmJobStatus,
    budget: float,
) -> None:
    """An event of a SlurmJob, when its engine is told to end with requests under way.

    In words of its own: the status may say something else by then, such as that SLURM's record of
    the job cannot be read.
    """
    if after.cut and before.terminated_at is None and after.terminated_at is not None:
        said = told(Proceed(cut=after.cut, over=True), budget=budget)
        events.emit(raw, type="Warning", reason=Reason.DRAIN_TIMEOUT, message=said)


def tell_of_cut_pod(events: EventSink, raw: Object, action: ReleasePod) -> None:
    """An event of a ModelDeployment, when one of its pods is let go with requests under way."""
    if action.cut:
        said = told(Proceed(cut=action.cut, over=True), budget=action.budget)
        message = f"pod {action.name}: {said}"
        events.emit(raw, type="Warning", reason=Reason.DRAIN_TIMEOUT, message=message)
