"""Whether the status of a worker outside the cluster lets it get requests.

One rule for both ways into the rotation: the membership of a worker that is reached directly, and
the forward of one that is not. What takes a worker out is decided before, in its phase and reason.
"""

from isthmus.api.conditions import Phase, Reason
from isthmus.slurmjob.record import AttemptStatus


def gets_requests(status: AttemptStatus) -> bool:
    """Whether a worker of this status belongs in the rotation."""
    return status.phase == Phase.READY or status.reason == Reason.LAST_IN_ROTATION


def forwards_requests(status: AttemptStatus) -> bool:
    """Whether its tunnel supervisors have been told to publish it."""
    return status.forward is not None and bool(status.forward.in_traffic)
