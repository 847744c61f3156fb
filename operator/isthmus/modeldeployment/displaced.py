"""All that displaces workers of one ModelDeployment: the only place that knows the sources."""

from isthmus.modeldeployment.observation import ModelDeploymentObservation
from isthmus.modeldeployment.policy.displacement import node_drain, silence, walltime
from isthmus.modeldeployment.policy.displacement.base import Displacement


def displaced(observed: ModelDeploymentObservation, *, now: float) -> tuple[Displacement, ...]:
    """Each displaced worker once, for its most urgent cause; `now` in epoch seconds."""
    found: dict[str, Displacement] = {}
    sources = (walltime.displaced, node_drain.displaced, silence.displaced)
    for one in (each for source in sources for each in source(observed)):
        before = found.get(one.worker)
        if before is None or _urgency(one, now=now) < _urgency(before, now=now):
            found[one.worker] = one
    return tuple(found.values())


def _urgency(one: Displacement, *, now: float) -> tuple[bool, bool, bool]:
    return not one.due(now=now), not one.involuntary, one.on_trial
