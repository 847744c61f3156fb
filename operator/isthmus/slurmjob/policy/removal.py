"""Which worker of a group is the cheapest to lose: the one order that every removal follows."""

from collections.abc import Mapping

from isthmus.api.conditions import Phase
from isthmus.backends.base import Worker

_EARLINESS: Mapping[str, int] = {Phase.WAITING: 0, Phase.PENDING: 1, Phase.STARTING: 2}


def removal_order(worker: Worker) -> tuple[int, int, float, int, str]:
    """The cheapest worker first: not serving and earliest, then degraded, then the least loaded.

    Of degraded ones, one that has left the rotation before one that was left in it.
    """
    cost = 3 if worker.available else 0
    if worker.serving and not worker.available:
        cost = 2 if worker.in_rotation else 1
    known = worker.load is not None and worker.load.requests is not None
    load = float(worker.load.requests or 0) if worker.load is not None and known else float("inf")
    return cost, _EARLINESS.get(worker.phase, 3), load, -worker.slot, worker.name
