"""Whether a worker that fails our probes leaves the rotation.

It does, while another member of the deployment is known to be good. The last ones stay: where every
probe fails at once it is rather our view that fails than all engines, and a client is not better
off with no address than with one that may answer. An engine that has answered itself (not ready,
another model, another attempt) has not been lost from view: it always leaves.
"""

from dataclasses import replace

from isthmus.api.conditions import Phase, Reason
from isthmus.engines.questions import ANSWERED
from isthmus.slurmjob.observation import SlurmJobObservation
from isthmus.slurmjob.policy.rotation import forwards_requests
from isthmus.slurmjob.record import AttemptStatus


def withheld(observed: SlurmJobObservation, status: AttemptStatus) -> bool:
    """Whether a member that fails its probes is left in rotation."""
    return (
        status.phase == Phase.DEGRADED
        and status.reason in {Reason.PROBE_FAILED, Reason.LAST_IN_ROTATION}
        and observed.probe_healthy is False
        and observed.probe_reason not in ANSWERED
        and not observed.others_good
    )


def told(observed: SlurmJobObservation, status: AttemptStatus) -> AttemptStatus:
    """The status of a degraded worker, saying so where it is left in rotation."""
    was_member = observed.slice_target is not None or forwards_requests(observed.status)
    if not was_member or not withheld(observed, status):
        return status
    return replace(
        status,
        reason=Reason.LAST_IN_ROTATION,
        message=f"{status.message}; kept in rotation because no other worker is healthy: "
        "the operator's own path to it may be what fails",
    )
