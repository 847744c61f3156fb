"""An event where a pod's drain ended with requests that had not finished."""

from isthmus.api.conditions import Reason
from isthmus.apiserver.objects import Object
from isthmus.modeldeployment.actions import ReleasePod
from isthmus.rules.drain import Proceed, told
from isthmus.telemetry.events import EventSink


def tell_of_cut_pod(events: EventSink, raw: Object, action: ReleasePod) -> None:
    """An event of a ModelDeployment, when one of its pods is let go with requests under way."""
    if action.cut:
        said = told(Proceed(cut=action.cut, over=True), budget=action.budget)
        message = f"pod {action.name}: {said}"
        events.emit(raw, type="Warning", reason=Reason.DRAIN_TIMEOUT, message=message)
