"""Events of workers that are to be replaced while they run, from the status before and after."""

from isthmus.api.modeldeployment_status import ModelDeploymentStatus
from isthmus.api.reasons import Reason
from isthmus.apiserver.objects import Object
from isthmus.observe.events import EventSink


def tell_of_displaced(
    events: EventSink, raw: Object, *, before: ModelDeploymentStatus, after: ModelDeploymentStatus
) -> None:
    """An event of the ModelDeployment for each worker that is displaced since the last status."""
    known = {worker.name for worker in before.workers if worker.displaced is not None}
    for worker in after.workers:
        if worker.displaced is None or worker.name in known or not worker.displaced.reason:
            continue
        events.emit(
            raw,
            type="Normal",
            reason=Reason(worker.displaced.reason),
            message=f"{worker.name} is being replaced: {worker.displaced.message}",
        )
