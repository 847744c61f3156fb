"""How long a worker that was ready once may fail its probes before it is replaced.

It gets as long as a start may take. But probes that fail may be our view that fails, and then
replacing would end an engine that serves: so either the engine itself answered that it is not
well, or another worker of the same cluster answers us. And since what fails for long is probed ever
more rarely, the last word is that of a probe made for the decision.
"""

from dataclasses import replace

from isthmus.engines.questions import ANSWERED
from isthmus.slurmjob.observation import SlurmJobObservation
from isthmus.slurmjob.policy.forwarding import BROKEN, forwarded
from isthmus.slurmjob.record import AttemptStatus

FRESH = 10.0
"""Seconds for which a probe says how its worker is now."""
LOOK_EVERY = 2.0
"""Seconds between two looks while a fresh probe is awaited."""


def marked(observed: SlurmJobObservation, status: AttemptStatus, *, now: float) -> AttemptStatus:
    """The status of a degraded worker with the moment since when it is surely unwell itself.

    Its time counts only while our view is good: when a network heals, the first worker that answers
    again must not condemn the others for the time in which none could. Nor does it count while the
    way to this worker is broken, whatever the others' ways do.
    """
    if status.reason in BROKEN or not _is_sure(observed, status):
        return replace(status, degraded_since=None)
    if status.degraded_since is not None:
        return status
    return replace(status, degraded_since=now)


def time_left(observed: SlurmJobObservation, status: AttemptStatus, *, now: float) -> float | None:
    """Seconds until a degraded worker is given up, at most 0 when it is due.

    Returns:
        None while it may be our view that fails.
    """
    since = status.degraded_since
    return None if since is None else since + observed.endpoint.startup_timeout - now


def _is_sure(observed: SlurmJobObservation, status: AttemptStatus) -> bool:
    # Silence through a tunnel that is said to be up: its host is dead, or would say otherwise.
    silence_counts = observed.others_answer and not forwarded(observed, status)
    seen = observed.probe_reason in ANSWERED or silence_counts
    return observed.probe_healthy is False and seen
