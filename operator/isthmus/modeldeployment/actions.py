"""What the plan of a deployment may ask for, as data: idempotent, or with a proof."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from isthmus.rules.actions import AddFinalizer, RemoveFinalizer


@dataclass(frozen=True, slots=True)
class EnsureService:
    """Make the deployment's Service, or put back what was changed of it."""


@dataclass(frozen=True, slots=True)
class EnsureFront:
    """Make the front before the workers and the Service that holds them, or update both."""


@dataclass(frozen=True, slots=True)
class DeleteFront:
    """Take the front away: the deployment's Service leads to the workers itself."""


@dataclass(frozen=True, slots=True)
class CreateRevision:
    """Freeze what the user wrote for a pool and what it renders to, in a ControllerRevision."""

    pool: str
    revision: str


@dataclass(frozen=True, slots=True)
class FreezeDeployment:
    """Freeze what the Deployment of a pool's current revision was made of, once it is there.

    After the Deployment, for which nothing else has to be there: each write before it is a delay.
    """

    pool: str
    revision: str


@dataclass(frozen=True, slots=True)
class DeleteRevision:
    """Forget a frozen revision that nothing runs any more."""

    pool: str
    revision: str


@dataclass(frozen=True, slots=True)
class CreateDeployment:
    """Make the Deployment of one (pool, revision), from its frozen template if there is one."""

    pool: str
    revision: str
    replicas: int


@dataclass(frozen=True, slots=True)
class ScaleDeployment:
    """Set `replicas` of the Deployment of one (pool, revision)."""

    pool: str
    revision: str
    replicas: int


@dataclass(frozen=True, slots=True)
class DrainPods:
    """Take the least loaded pods out of rotation and mark them.

    Attributes:
        count: how many.
        candidates: names of pods, the one to go first where their loads do not tell.
        since: what the mark says, epoch seconds.
    """

    pool: str
    revision: str
    count: int
    candidates: tuple[str, ...]
    since: float


@dataclass(frozen=True, slots=True)
class ReleasePod:
    """Mark a pod that drains as the next one to go.

    Attributes:
        at: epoch seconds.
        cut: requests that it still holds at the end of its budget, None for none or unknown.
        budget: seconds that they had.
    """

    name: str
    uid: str
    at: float
    cut: int | None
    budget: float


@dataclass(frozen=True, slots=True)
class ReturnPod:
    """Give a pod its place in the rotation back."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class ShortenPod:
    """Leave a pod that is being deleted only so many seconds."""

    name: str
    uid: str
    seconds: int


@dataclass(frozen=True, slots=True)
class DeleteDeployment:
    """Delete the Deployment of one (pool, revision)."""

    pool: str
    revision: str


@dataclass(frozen=True, slots=True)
class CreateSlurmJob:
    """Record the intent to run one attempt; the attempt's token is drawn at execution.

    Attributes:
        replaces: name of the SlurmJob whose successor it is, None for nobody in particular.
    """

    pool: str
    revision: str
    slot: int
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteSlurmJob:
    """Record the intent to stop one attempt."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class RestoreLabels:
    """Give a SlurmJob the labels back that somebody took.

    Attributes:
        labels: those that follow from its spec.
        key_of: full name of its job, whose key's digest is a label too; None to leave that.
    """

    name: str
    uid: str
    labels: Mapping[str, str]
    key_of: str | None = None


DeploymentAction: TypeAlias = (
    AddFinalizer
    | RemoveFinalizer
    | EnsureService
    | EnsureFront
    | DeleteFront
    | CreateRevision
    | FreezeDeployment
    | DeleteRevision
    | CreateDeployment
    | ScaleDeployment
    | DrainPods
    | ReleasePod
    | ReturnPod
    | ShortenPod
    | DeleteDeployment
    | CreateSlurmJob
    | DeleteSlurmJob
    | RestoreLabels
)


AsksForWorkers: TypeAlias = CreateDeployment | ScaleDeployment | CreateSlurmJob
"""After one of these the pass ends: workers of others come before our Service and status."""


MayWait: TypeAlias = (
    EnsureService | EnsureFront | DeleteFront | DeleteRevision | FreezeDeployment | RestoreLabels
)


def may_wait(action: DeploymentAction) -> bool:
    """Whether no worker waits for an action."""
    return isinstance(action, MayWait) or (isinstance(action, AddFinalizer) and action.later)
