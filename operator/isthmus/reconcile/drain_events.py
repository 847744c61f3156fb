"""Events where the drain of a pod ended with requests that had not finished.

No status says that of a pod, so this is none of the transitions.
"""

from isthmus.api.conditions import Reason
from isthmus.apiserver.objects import Object
from isthmus.observe.events import EventSink
from isthmus.plan.actions import ReleasePod
from isthmus.plan.policy.drain import Proceed, told


def tell_of_cut_pod(events: EventSink, raw: Object, action: ReleasePod) -> None:
    """An event of a ModelDeployment, when one of its pods is let go with requests under way."""
    if action.cut:
        said = told(Proceed(cut=action.cut, over=True), budget=action.budget)
        message = f"pod {action.name}: {said}"
        events.emit(raw, type="Warning", reason=Reason.DRAIN_TIMEOUT, message=message)
