"""Workers on a node that is drained: their successors come first, they end afterwards.

SLURM starts nothing new on such a node and lets go on what runs there. Who drains it waits until it
is empty, mostly for maintenance, and without this would wait until the time limit. There is no
hurry, so it is voluntary: within the surge, and never below the wanted number.
"""

from isthmus.api.reasons import Reason
from isthmus.api.texts import one_line
from isthmus.modeldeployment.observation import ModelDeploymentObservation
from isthmus.modeldeployment.policy.displacement.base import Displacement


def displaced(observed: ModelDeploymentObservation) -> tuple[Displacement, ...]:
    """Live workers of current revisions on drained nodes of clusters that can be seen."""
    found = []
    for pool in observed.desired.pools:
        view = observed.clusters.get(pool.name)
        if pool.backend != "slurm" or view is None or not view.reachable:
            continue
        for worker in observed.group(pool=pool).live_workers:
            if worker.node is None or worker.node not in view.draining:
                continue
            why = one_line(view.draining[worker.node], limit=200)
            found.append(
                Displacement(
                    worker=worker.name,
                    reason=Reason.NODE_DRAINING,
                    message=f"node {worker.node} is drained in SLURM"
                    + (f" ({why})" if why else "")
                    + "; another worker takes over first",
                )
            )
    return tuple(found)
