"""Whether an attempt may be submitted, and how an unclear submission is resolved.

An sbatch without a clear answer may have made a job, and slurmctld may have forgotten a job that
it acknowledged. Such an attempt is `SubmitUnknown`: for `submit_unknown_wait` seconds it may still
turn up; after that, two complete snapshots begun later that do not show its name prove that there
is none. Only then is the same attempt submitted again, and its start gate still holds should a
late ghost come after all.

Each further submission of the attempt waits twice as long. Where the same words have come three
times, and each time it was proved that they made no job, they are an answer: the attempt is refused
with them, and what follows is as for any refusal. An attempt that could not even be sent is neither
unclear nor refused; it is tried again after a pause of its own.
"""

import re
from dataclasses import replace
from enum import Enum

from isthmus.api.conditions import UNCLEAR
from isthmus.slurmjob.observation import Limits, SlurmJobObservation
from isthmus.slurmjob.policy import absence
from isthmus.slurmjob.record import AttemptStatus

SAME_ANSWERS = 3
"""So many submissions in a row with the same unclear words and no job are a refusal."""


class Unknown(Enum):
    """What is known of a submission whose outcome is not clear."""

    WAIT = "wait"
    """It may still turn up."""
    ABSENT = "absent"
    """There is no such job."""


def held_back_by(observed: SlurmJobObservation) -> str:
    """What an attempt that was never submitted, or is proved absent, waits for; "" for nothing.

    It waits for a complete, recent snapshot that shows all jobs, and while too many submissions
    of the cluster, or of its namespace there, are unclear: a controller that answers nothing must
    not be sent everything, and what one namespace does must not hold up the others.
    """
    cluster = observed.cluster
    if not (cluster.usable and cluster.fresh):
        return cluster.message or "waits for a complete look at the cluster"
    if not cluster.shows_all or observed.unreadable:
        return (
            "waits for squeue to show all jobs readably: until then a job of this attempt "
            "may exist unseen; see RecordsUnreadable on the SlurmCluster"
        )
    if not observed.owner_is_there:
        return "waits for its ModelDeployment: without that no job is submitted for it"
    for what, unread in (("SlurmJob", observed.unread), ("SlurmCluster", cluster.unread)):
        if unread:
            return (
                f"not submitted, for its {what} cannot be read in full ({unread}): what is left "
                "out may be meant. If a newer release of the operator wrote it, run that one again"
            )
    if not observed.renderable:
        return (
            "waits for the ControllerRevision of its revision, which holds what to run: if it was "
            "deleted, delete this SlurmJob and its worker is created again"
        )
    most = observed.limits.max_unresolved
    if cluster.unresolved_here >= most:
        return (
            f"waits while {most} or more submissions of this namespace to the SlurmCluster have no "
            "clear outcome: see its SlurmJobs in state SubmitUnknown"
        )
    if cluster.unresolved >= most:
        return (
            f"waits while {most} or more submissions of this SlurmCluster, of several namespaces, "
            "have had no answer: its slurmctld seems to answer no submission"
        )
    return ""


def resolve(observed: SlurmJobObservation, *, now: float) -> Unknown:
    """Judge an unclear submission whose name the last snapshot does not show."""
    since = observed.status.submission.unknown_since
    if since is None:
        return Unknown.WAIT
    deadline = since + observed.limits.submit_unknown_wait
    unseen_since = max(deadline, observed.last_seen or 0.0)  # it may have been seen, unreadable
    enough = absence.enough_snapshots_since(observed.cluster, unseen_since)
    return Unknown.ABSENT if now >= deadline and enough else Unknown.WAIT


def looked_for(observed: SlurmJobObservation, *, now: float) -> float:
    """Seconds for which an unclear submission may still turn up; 0 or less after that."""
    since = observed.status.submission.unknown_since or now
    return since + observed.limits.submit_unknown_wait - now


def is_unclear(status: AttemptStatus) -> bool:
    """Whether sbatch may have run unheard, as a status found at the begin of a pass tells."""
    return status.phase in UNCLEAR or status.submission.unknown_since is not None


def answered(status: AttemptStatus, *, words: str) -> AttemptStatus:
    """The status with the words of an unclear answer, and how often they have come in a row."""
    before = status.submission
    again = _without_numbers(words) == _without_numbers(before.last_answer or "")
    count = (before.same_answers or 0) + 1 if again else 1
    said = replace(before, last_answer=words or None, same_answers=count if words else None)
    return replace(status, submission=said)


def is_refused(status: AttemptStatus) -> bool:
    """Whether an attempt that is proved absent has had the same answer often enough."""
    return (status.submission.same_answers or 0) >= SAME_ANSWERS


def unclear_pause(submissions: int | None, *, limits: Limits) -> float:
    """Seconds from an unclear answer to the next submission of its attempt, at least.

    Args:
        submissions: how often sbatch was called for it.
        limits: the times that apply.
    """
    least = limits.submit_unknown_wait
    return _doubled(least, times=(submissions or 1) - 1, cap=max(least, limits.unclear_pause_cap))


def unsent_pause(tries: int, *, limits: Limits) -> float:
    """Seconds from the last of some tries in which nothing was sent to the next one."""
    return _doubled(limits.unsent_pause, times=tries - 1, cap=limits.unsent_pause_cap)


def not_before(observed: SlurmJobObservation) -> float:
    """When the attempt may be tried again, epoch seconds; 0 where nothing has been tried."""
    tried, limits = observed.status.submission, observed.limits
    unclear, unsent = tried.unknown_since, tried.unsent_at
    ends = 0.0
    if unclear is not None:
        ends = unclear + unclear_pause(tried.count, limits=limits)
    if unsent is not None:
        ends = max(ends, unsent + unsent_pause(tried.unsent or 1, limits=limits))
    return ends


def _doubled(first: float, *, times: int, cap: float) -> float:
    return float(min(cap, first * 2.0 ** min(max(0, times), 30)))


def _without_numbers(words: str) -> str:
    """The same complaint names another process, time or job each time."""
    return re.sub(r"\d+", "0", words)
