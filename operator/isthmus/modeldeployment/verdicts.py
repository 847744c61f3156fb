"""What the conditions of a ModelDeployment say: Ready, Available, Progressing.

Apart from the status, which aggregates; here is the judgement, in the order in which causes count.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from isthmus.api import front_version as front_contract
from isthmus.api import names
from isthmus.api.conditions import PendingClass, Reason
from isthmus.api.desired import Desired
from isthmus.api.modeldeployment_status import PoolStatus
from isthmus.backends.base import Pending, Worker
from isthmus.modeldeployment.policy.displacement.base import Displacement
from isthmus.modeldeployment.policy.rollout import Blocked, Hold

Verdict: TypeAlias = tuple[bool, Reason, str]
"""Status, reason and message of a condition."""

SEVERITY: tuple[PendingClass, ...] = (
    PendingClass.UNREACHABLE,
    PendingClass.NEVER,
    PendingClass.IMAGE,
    PendingClass.FAILING,
    PendingClass.HELD,
    PendingClass.QUOTA,
    PendingClass.UNSCHEDULABLE,
    PendingClass.RESOURCES,
    PendingClass.SUBMISSION,
    PendingClass.STARTUP,
)
"""The cause that is shown when workers of a pool wait for different ones, the worst first."""

STUCK = frozenset(SEVERITY[:5])
"""Waiting alone does not help."""

_READY_REASONS: Mapping[PendingClass, Reason] = {
    PendingClass.NEVER: Reason.PENDING_NEVER,
    PendingClass.IMAGE: Reason.IMAGE_PULL_ERROR,
    PendingClass.HELD: Reason.PENDING_HELD,
    PendingClass.QUOTA: Reason.PENDING_QUOTA,
    PendingClass.UNSCHEDULABLE: Reason.UNSCHEDULABLE,
    PendingClass.RESOURCES: Reason.PENDING_RESOURCES,
    PendingClass.FAILING: Reason.WORKERS_FAILING,
}

_WORDS = frozenset(map(str, Reason))

_REFUSED = frozenset({Reason.SUBMIT_REFUSED, Reason.POD_SECURITY_REFUSED})
"""Refusals that have a reason of their own, which says who must change something."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Workers of a deployment; ending and failed ones are not counted."""

    desired: int
    placed: int
    live: int
    available: int
    updated: int
    updated_available: int
    outdated: int


def _worst(pools: tuple[PoolStatus, ...]) -> PoolStatus | None:
    waiting = [pool for pool in pools if pool.pending and pool.pending.pending_class]
    return min(
        waiting,
        key=lambda pool: (
            SEVERITY.index(pool.pending.pending_class)
            if pool.pending and pool.pending.pending_class
            else len(SEVERITY)
        ),
        default=None,
    )


def _cause(pool: PoolStatus) -> tuple[Reason, str]:
    """Reason and message of a pool that waits; the words of its scheduler stand in the message."""
    pending = pool.pending
    if pending is None or pending.pending_class is None:
        return Reason.WORKERS_NOT_READY, ""
    reason = _READY_REASONS.get(pending.pending_class, Reason.WORKERS_NOT_READY)
    if pending.pending_class in {PendingClass.UNREACHABLE, PendingClass.FAILING}:
        reason = _ours(pending.reason) or reason
    if pending.pending_class is PendingClass.NEVER and pending.reason in _REFUSED:
        reason = Reason(pending.reason)
    return reason, f"pool {pool.name}: {pending.reason}: {pending.message}"


def _ours(word: str | None) -> Reason | None:
    """The word as one of ours, None for one of a scheduler."""
    return Reason(word) if word in _WORDS else None


def tunnels(workers: Iterable[Worker]) -> Verdict | None:
    """Whether every worker that is reached through a forward can be; None without any."""
    forwarded = [worker for worker in workers if worker.tunnel is not None]
    if not forwarded:
        return None
    down = [worker for worker in forwarded if worker.tunnel == "Down"]
    if not down:
        return True, Reason.TUNNEL_ESTABLISHED, f"forwards that work: {len(forwarded)}"
    first = down[0]
    why = f": {first.pending.message}" if first.pending is not None else ""
    told = f"{len(down)} of {len(forwarded)} forwards do not work; {first.name}{why}"
    return False, Reason.TUNNEL_DOWN, told


def router(problem: str | None) -> Verdict | None:
    """Whether a router that is not ours is in step; None without one, or before the first look."""
    if problem is None:
        return None
    if problem:
        return False, Reason.ROUTER_UNREACHABLE, problem
    return True, Reason.ROUTER_IN_STEP, "the router holds the workers of the membership"


def keys(desired: Desired, workers: Iterable[Worker]) -> Verdict | None:
    """Whether each job on SLURM has a key of its own; None without keys or without such jobs."""
    if desired.api_key is None or all(pool.slurm is None for pool in desired.pools):
        return None
    if not desired.endpoint.key_per_attempt:
        return (
            False,
            Reason.KEY_SHARED,
            "clients send the API key to the workers themselves, so all jobs on SLURM have the "
            "same: who learns it on one node can use all workers; with endpoint.type Managed, or "
            "External with an sglang-router or smg, each job has its own",
        )
    shared = sum(worker.shares_key for worker in workers)
    if shared:
        return (
            False,
            Reason.KEY_SHARED,
            f"{shared} jobs on SLURM were started with the deployment's API key and have it until "
            "they are replaced; new ones get keys of their own",
        )
    return True, Reason.KEY_PER_ATTEMPT, "each job on SLURM has an API key of its own"


def client_keys(problem: str | None, *, rolled_out: bool) -> Verdict | None:
    """Whether the front asks its clients for keys; None where they need none."""
    if problem is None:
        return None
    if not rolled_out:
        told = "not every pod of the front asks for keys yet: some still answer everybody"
        return False, Reason.FRONT_ROLLING_OUT, f"{told}; {problem}" if problem else told
    if problem:
        return False, Reason.CLIENT_KEYS_UNUSABLE, problem
    return True, Reason.CLIENT_KEYS_IN_FORCE, "the front answers who has a key of its Secret"


def front_version(understands: int | None) -> Verdict | None:
    """Whether the front understands what it is told; None where its pods have not said yet."""
    if understands is None:
        return None
    if understands >= front_contract.VERSION:
        return True, Reason.FRONT_UP_TO_DATE, "the front understands every setting of this operator"
    seen = "does not report which version of the contract it understands"
    if understands > front_contract.OLDEST:
        seen = f"understands version {understands} of the contract"
    return (
        False,
        Reason.FRONT_OUTDATED,
        f"a pod of the front {seen}, and this operator writes version {front_contract.VERSION}: "
        "requests are served, but what the front does not know it ignores, such as the table of "
        "paths that refuses administration; set the operator's setting front-image to the image "
        "of this release",
    )


def ready(*, totals: Totals, pools: tuple[PoolStatus, ...]) -> Verdict:
    """Whether all desired workers are ready and of the current revision."""
    told = f"{totals.available} of {totals.desired} workers are ready"
    if totals.updated_available >= totals.desired and totals.outdated == 0:
        return True, Reason.ALL_WORKERS_READY, told
    worst = _worst(pools)
    if totals.placed < totals.desired and totals.updated_available >= totals.placed:
        return (
            False,
            Reason.INSUFFICIENT_CAPACITY,
            f"{told}; the pools take {totals.placed}: raise a maxReplicas, or lower replicas",
        )
    if (
        worst is not None
        and worst.pending
        and worst.pending.pending_class is not PendingClass.STARTUP
    ):
        reason, message = _cause(worst)
        return False, reason, f"{told}; {message}"
    if totals.outdated:
        return (
            False,
            Reason.ROLLOUT_IN_PROGRESS,
            f"{told}, {totals.outdated} of them of an older revision",
        )
    return False, Reason.WORKERS_NOT_READY, told


def behind_front(verdict: Verdict, *, deployment: str, why: Pending | None = None) -> Verdict:
    """A good verdict about workers that nobody can reach, because their front has no ready pod.

    Args:
        verdict: what is to be said of the workers alone.
        deployment: name of the ModelDeployment.
        why: what the front's pods say themselves, None where nothing is known of them.
    """
    good, reason, told = verdict
    if not good or reason == Reason.SCALED_TO_ZERO:
        return verdict
    selector = f"{names.LABEL_COMPONENT}={names.COMPONENT_FRONT},{names.LABEL_DEPLOYMENT}"
    cause = "" if why is None else f"{why.reason}: {why.message}; "
    return (
        False,
        Reason.FRONT_NOT_READY,
        f"{told}, but no pod of the front before them is ready, so requests fail: {cause}look at "
        f"`kubectl describe pods -l {selector}={deployment}`",
    )


def available(totals: Totals) -> Verdict:
    """Whether anybody serves."""
    if totals.desired == 0:
        return True, Reason.SCALED_TO_ZERO, "no workers are wanted"
    if totals.available:
        return True, Reason.WORKERS_AVAILABLE, f"{totals.available} workers serve"
    return False, Reason.NO_WORKERS_READY, "no worker serves: requests fail"


_HOLDS: Mapping[Hold, str] = {
    Hold.UNSEEN: "its cluster cannot be seen, so nothing is started or removed there",
    Hold.NOT_STARTABLE: "no other worker is started yet: the latest ones failed, or its cluster "
    "takes no new ones",
    Hold.ROOM: "as many workers as may exist at once do: the next one is started when one of them "
    "serves",
    Hold.AVAILABILITY: "the workers that are to go are kept until another one serves",
}


def blocked_told(blocked: Blocked | None) -> str:
    """Why a rollout takes no step now, for people; "" where it takes one or is complete."""
    return "" if blocked is None else f"pool {blocked.pool}: {_HOLDS[blocked.hold]}"


def progressing(
    *,
    totals: Totals,
    pools: tuple[PoolStatus, ...],
    blocked: Blocked | None = None,
    displaced: Sequence[Displacement] = (),
) -> Verdict:
    """Whether the wanted state is reached or being approached; False where waiting cannot help."""
    worst = _worst(pools)
    if worst is not None and worst.pending and worst.pending.pending_class in STUCK:
        return False, *_cause(worst)
    told = f"{totals.updated_available} of {totals.placed} workers are ready and up to date"
    if totals.outdated:
        why = ("" if worst is None else _cause(worst)[1], blocked_told(blocked))
        return True, Reason.ROLLOUT_IN_PROGRESS, "; ".join(filter(None, (told, *why)))
    if displaced:
        first = displaced[0]
        count = "one worker is" if len(displaced) == 1 else f"{len(displaced)} workers are"
        why = (f"{count} being replaced; {first.worker}: {first.message}", blocked_told(blocked))
        return True, first.reason, "; ".join(filter(None, (told, *why)))
    if totals.live > totals.placed:
        return True, Reason.SCALING_DOWN, told
    if totals.updated_available < totals.placed:
        extra = "" if worst is None else f"; {_cause(worst)[1]}"
        return True, Reason.SCALING_UP, told + extra
    return True, Reason.ROLLOUT_COMPLETE, told
