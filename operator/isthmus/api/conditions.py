"""Condition types, pending classes and job phases, and how a condition is set.

Condition types are few and positive; all other names are reasons, which have a module of their own,
`reasons.py`. A word means the same wherever it is read: in a condition, in a column of `kubectl
get`, in an event and in a metric's label.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, Literal, NotRequired, TypedDict

from isthmus.api.reasons import Reason as Reason
from isthmus.api.texts import cut
from isthmus.api.times import rfc3339

ConditionStatus = Literal["True", "False", "Unknown"]


class ConditionType(StrEnum):
    """Condition types of all kinds; True is always the good state."""

    READY = "Ready"
    """All desired workers are ready and of the current revision; on a SlurmJob: it serves."""

    AVAILABLE = "Available"
    """At least one worker serves (or none is wanted)."""

    PROGRESSING = "Progressing"
    """The wanted state is reached or is being approached; False: stuck, a person is needed."""

    SLURM_REACHABLE = "SlurmReachable"
    """The last look at SLURM was complete and is recent; False: nothing is changed there."""

    NODES_VISIBLE = "NodesVisible"
    """On a SlurmCluster: SLURM shows its nodes; False: the site hides them, and the message says
    what cannot be told without them."""

    TUNNEL_UP = "TunnelUp"
    """On a SlurmJob: the way through its forward works; absent where none is needed yet."""

    TUNNELS_UP = "TunnelsUp"
    """On a ModelDeployment: the forwards of all its workers work; absent without any."""

    ROUTER_REACHABLE = "RouterReachable"
    """On a ModelDeployment with endpoint.type External: its router holds its workers."""

    KEYS_SEPARATE = "KeysSeparate"
    """On a ModelDeployment with an API key and a pool on SLURM: each job there has its own."""

    CLIENT_KEYS_IN_FORCE = "ClientKeysInForce"
    """On a ModelDeployment with endpoint.clientKeysSecretRef: its front asks clients for keys."""

    FRONT_UP_TO_DATE = "FrontUpToDate"
    """On a ModelDeployment with a front: its pods understand all that this operator tells them."""

    READABLE = "Readable"
    """There only while it is False: some of the object's fields cannot be read, and nothing new is
    made from it; what runs is followed and can be ended."""

    ACTIONS_SUCCEED = "ActionsSucceed"
    """On a SlurmJob, there only while it is False: something that is to be done about its job
    fails, and is tried again. The message says what, how often, and whose words they are."""


class PendingClass(StrEnum):
    """Why a pool has fewer workers than wanted, as a class: it decides what to do."""

    RESOURCES = "Resources"
    """SLURM has no free nodes, or others go first: wait."""
    QUOTA = "Quota"
    """A limit is used up: waiting alone does not help."""
    HELD = "Held"
    """A person must release the job."""
    NEVER = "Never"
    """The request cannot be satisfied as it is written."""
    IMAGE = "Image"
    """An image cannot be pulled."""
    UNSCHEDULABLE = "Unschedulable"
    """No Kubernetes node has room."""
    STARTUP = "Startup"
    """Workers run and their engines load."""
    FAILING = "Failing"
    """Workers start and end again."""
    SUBMISSION = "Submission"
    """Jobs are about to be submitted, or it is not clear yet whether they were."""
    UNREACHABLE = "Unreachable"
    """The scheduler cannot be seen; nothing is changed there."""


class Phase(StrEnum):
    """Where one attempt of a SLURM worker stands."""

    WAITING = "Waiting"
    """The intent is acknowledged by the API server; nothing was submitted."""
    SUBMITTING = "Submitting"
    """sbatch may be running: written before it runs."""
    SUBMIT_UNKNOWN = "SubmitUnknown"
    """sbatch ran and it is not known whether a job exists."""
    PENDING = "Pending"
    """In the queue."""
    STARTING = "Starting"
    """The job runs and the engine is not ready."""
    READY = "Ready"
    """Healthy, and model and attempt agree."""
    DEGRADED = "Degraded"
    """Was ready; now suspended or its probes fail."""
    DRAINING = "Draining"
    """Being stopped by us."""
    TERMINATING = "Terminating"
    """Ending in SLURM (COMPLETING); still holds nodes."""
    FINISHED = "Finished"
    """Ended as wanted, or cancelled by somebody, or the engine ended by itself."""
    FAILED = "Failed"
    """Refused, failed, out of memory."""
    EXPIRED = "Expired"
    """Ended by its time limit (TIMEOUT)."""
    PREEMPTED = "Preempted"
    """Gave way to a job of higher priority."""
    NODE_FAULT = "NodeFault"
    """Lost with its node."""

    @property
    def terminal(self) -> bool:
        """Whether the attempt is over for ever."""
        return self in TERMINAL


TERMINAL: Final = frozenset(
    {Phase.FINISHED, Phase.FAILED, Phase.EXPIRED, Phase.PREEMPTED, Phase.NODE_FAULT}
)
"""The attempt is over for ever."""
UNSUBMITTED: Final = frozenset({None, Phase.WAITING})
"""Nothing was submitted, or the status was lost."""
UNCLEAR: Final = frozenset({Phase.SUBMITTING, Phase.SUBMIT_UNKNOWN})
"""sbatch may be running, or may have made a job that nobody knows of."""
PROBED: Final = frozenset({Phase.STARTING, Phase.READY, Phase.DEGRADED})
"""The engine is asked how it is, whatever SLURM says."""


class Condition(TypedDict):
    """One entry of `status.conditions`, as Kubernetes writes it."""

    type: str
    status: ConditionStatus
    reason: str
    message: str
    lastTransitionTime: str
    observedGeneration: NotRequired[int]


MAX_MESSAGE: Final = 1024
"""Characters of a condition's message; longer ones are cut, the schema refuses them."""


def find_condition(
    conditions: Iterable[Condition], *, type: ConditionType | str
) -> Condition | None:
    """Return the condition of this type, None if there is none."""
    return next((one for one in conditions if one["type"] == type), None)


def set_condition(
    conditions: Iterable[Condition],
    *,
    type: ConditionType | str,
    status: bool | ConditionStatus | None,
    reason: Reason,
    message: str,
    now: float,
    observed_generation: int | None = None,
) -> tuple[Condition, ...]:
    """Return the conditions with one added or replaced in its place.

    `lastTransitionTime` moves only when `status` changes, so an unchanged condition comes out
    equal and causes no write.

    Args:
        conditions: the present ones, in their order.
        type: which one to set.
        status: True, False, None for "Unknown", or the word itself.
        reason: why, in one word.
        message: why, and what to do; cut at MAX_MESSAGE.
        now: seconds since the epoch; whole seconds are written.
        observed_generation: generation of the spec that was judged.
    """
    before = tuple(conditions)
    word: ConditionStatus
    if isinstance(status, str):
        word = status
    else:
        word = "Unknown" if status is None else "True" if status else "False"
    old = find_condition(before, type=type)
    changed = old is None or old["status"] != word
    new: Condition = {
        "type": str(type),
        "status": word,
        "reason": str(reason),
        "message": cut(message, limit=MAX_MESSAGE),
        "lastTransitionTime": rfc3339(int(now))
        if old is None or changed
        else old["lastTransitionTime"],
    }
    if observed_generation is not None:
        new["observedGeneration"] = observed_generation
    if old is None:
        return (*before, new)
    return tuple(new if one is old else one for one in before)
