"""What of a plan was refused, so that one object that cannot be made stops only its own pool.

A refusal is an answer that stays until somebody changes something: an invalid object, a right or
a quota that is missing, a name that is taken. Everything else (a conflict, no answer, a lost
lease) still ends the pass. Pure, apart from the reconciler, because here is the rule which actions
may go on after which failure:

* **What is made** (a frozen revision, a Deployment, an intent to submit) belongs to its pool: what
  would follow there is left out, the other pools go on. Less than planned is made, which is safe.
* **What is taken away or changed** stops all that comes after it, as far as workers are concerned:
  what is planned to be made counts on it, or there would be more than the surge; and a pod that
  could not be marked must not be followed by the scaling that removes it.
* **What no worker waits for** (Service, front, freezing) stops nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from isthmus.api.base import ConditionModel
from isthmus.api.conditions import PendingClass, Reason
from isthmus.api.modeldeployment_status import ModelDeploymentStatus, PendingStatus, PoolStatus
from isthmus.api.texts import one_line
from isthmus.api.times import rfc3339
from isthmus.errors import (
    ApiForbiddenError,
    ApiInvalidError,
    IsthmusError,
    NameTakenError,
    SecretMissingError,
)
from isthmus.modeldeployment.actions import (
    CreateDeployment,
    CreateRevision,
    CreateSlurmJob,
    DeleteDeployment,
    DeleteRevision,
    DeploymentAction,
    DrainPods,
    FreezeDeployment,
    ScaleDeployment,
    may_wait,
)

REFUSALS = (NameTakenError, ApiInvalidError, ApiForbiddenError)
"""Errors that are collected; all others end the pass."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One refusal.

    Attributes:
        reason: word of the conditions.
        kind: whether waiting helps.
        message: what was refused, by whom, and what to do.
        pool: whose, None for what all share.
    """

    reason: Reason
    kind: PendingClass
    message: str
    pool: str | None = None

    @property
    def told(self) -> str:
        """The message with its pool."""
        return self.message if self.pool is None else f"pool {self.pool}: {self.message}"


class Failures:
    """The refusals of one pass, in order."""

    def __init__(self) -> None:
        self.found: list[Failure] = []
        self._pools: set[str] = set()
        self._stopped = False

    def hinder(self, action: DeploymentAction) -> bool:
        """Whether an action is left out because of what was refused before it."""
        if may_wait(action):
            return False
        return self._stopped or _pool(action) in self._pools

    def add(self, action: DeploymentAction, error: IsthmusError) -> None:
        """Take in the refusal of an action."""
        pool = _pool(action)
        self.note(failure(error, pool=pool))
        if may_wait(action):
            return
        if pool is not None and isinstance(
            action, CreateRevision | CreateDeployment | CreateSlurmJob
        ):
            self._pools.add(pool)
        else:
            self._stopped = True

    def note(self, failed: Failure) -> None:
        """Take in what belongs to no action of the plan; the same is told once."""
        if failed not in self.found:
            self.found.append(failed)


def _pool(action: DeploymentAction) -> str | None:
    if isinstance(
        action,
        CreateRevision
        | FreezeDeployment
        | DeleteRevision
        | CreateDeployment
        | ScaleDeployment
        | DrainPods
        | DeleteDeployment
        | CreateSlurmJob,
    ):
        return action.pool
    return None


def failure(error: IsthmusError, *, pool: str | None = None) -> Failure:
    """Return a refusal as words for people."""
    if isinstance(error, NameTakenError):
        return Failure(Reason.NAME_CONFLICT, PendingClass.NEVER, str(error), pool)
    if isinstance(error, SecretMissingError):
        return Failure(Reason.API_KEY_UNUSABLE, PendingClass.NEVER, str(error), pool)
    words = one_line(str(error), limit=500)
    if isinstance(error, ApiForbiddenError) and "exceeded quota" in words:
        sentence = (
            "a ResourceQuota of the namespace is used up: delete what is not needed, or have the "
            f"quota raised ({words})"
        )
        return Failure(Reason.PENDING_QUOTA, PendingClass.QUOTA, sentence, pool)
    return Failure(Reason.RECONCILE_FAILED, PendingClass.NEVER, _sentence(error, words), pool)


def _sentence(error: IsthmusError, words: str) -> str:
    if not isinstance(error, ApiForbiddenError):
        return (
            "the API server refuses the object as invalid: correct the field of the pool from "
            f"which the named one comes ({words})"
        )
    if "being terminated" in words:
        return f"the namespace is being deleted: nothing new can be made in it ({words})"
    if 'is forbidden: User "' in words or error.status == 401:
        return (
            "the operator has no right to do this: have the roles of its chart installed for this "
            f"namespace ({words})"
        )
    return (
        "an admission policy of the cluster refuses the object: change what its words name, or "
        f"ask those who run the policy ({words})"
    )


def with_failures(
    status: ModelDeploymentStatus,
    failures: Sequence[Failure],
    *,
    before: ModelDeploymentStatus,
    now: float,
) -> ModelDeploymentStatus:
    """The status with the failures in the pools and in Ready and Progressing, else as planned.

    Args:
        status: what was planned.
        failures: at least one; the first gives the reason of the conditions.
        before: what is written now; a failure that stays keeps its time.
        now: epoch seconds.
    """
    reason = failures[0].reason
    message = "; ".join(one.told for one in failures)
    kept = {condition.type: condition for condition in status.conditions}
    written = {condition.type: condition for condition in before.conditions}
    for kind in ("Ready", "Progressing"):
        old, planned = written.get(kind), kept.get(kind)
        since = old.last_transition_time if old is not None and old.status == "False" else None
        kept[kind] = ConditionModel(
            type=kind,
            status="False",
            reason=reason,
            message=one_line(message, limit=1000),
            last_transition_time=since or rfc3339(int(now)),
            observed_generation=None if planned is None else planned.observed_generation,
        )
    pools = tuple(_told_of_pool(pool, failures, before=before, now=now) for pool in status.pools)
    return status.model_copy(
        update={"conditions": tuple(kept.values()), "pools": pools, "summary": str(reason)}
    )


def _told_of_pool(
    pool: PoolStatus, failures: Sequence[Failure], *, before: ModelDeploymentStatus, now: float
) -> PoolStatus:
    own = next((one for one in failures if one.pool == pool.name), None)
    if own is None:
        return pool
    old = next((one.pending for one in before.pools if one.name == pool.name), None)
    same = old is not None and (old.pending_class, old.reason) == (own.kind, own.reason)
    pending = PendingStatus(
        pending_class=own.kind,
        reason=str(own.reason),
        message=one_line(own.message, limit=1000),
        since=old.since if old is not None and same else rfc3339(int(now)),
    )
    return pool.model_copy(update={"pending": pending})
