"""Which worker outside the cluster stands in the membership: exactly those that are ready.

Apart from the planner of a SlurmJob, because every way through it ends here.
"""

from dataclasses import replace

from isthmus.api.conditions import UNSUBMITTED
from isthmus.slurmjob.actions import DeleteSlice, EnsureSlice, SlurmJobAction
from isthmus.slurmjob.observation import SlurmJobObservation, SlurmJobPlan
from isthmus.slurmjob.policy.forwarding import forwarded
from isthmus.slurmjob.policy.rotation import gets_requests


def with_membership(observed: SlurmJobObservation, plan: SlurmJobPlan) -> SlurmJobPlan:
    """Add what keeps the EndpointSlice true: a member exactly while Ready at a known address."""
    status = plan.status
    if status.phase in UNSUBMITTED and not observed.clear:
        return plan  # a member that waits has lost its status; nothing is deregistered unseen
    wanted = (
        (status.host, status.port)
        if gets_requests(status) and status.host and status.port and not forwarded(observed, status)
        else None
    )
    action: SlurmJobAction | None = None
    if wanted is not None and not (wanted == observed.slice_target and observed.slice_in_service):
        action = EnsureSlice(address=wanted[0], port=wanted[1])
    elif wanted is None and observed.slice_target is not None:
        action = DeleteSlice()
    return plan if action is None else replace(plan, actions=(action, *plan.actions))
