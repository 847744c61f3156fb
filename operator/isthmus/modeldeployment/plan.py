"""One ModelDeployment: how many workers of which revision on which pool, as actions and a status.

The steps are: place replicas on pools (policy.placement), take one safe step from the workers that
exist towards the targets (policy.rollout), translate the numbers into actions of the two backends,
forget what is no longer needed, and say what is (plan.status).
"""

from collections.abc import Iterator, Sequence

from isthmus.backends.base import WorkerGroup
from isthmus.modeldeployment.actions import (
    CreateDeployment,
    CreateRevision,
    CreateSlurmJob,
    DeleteDeployment,
    DeleteFront,
    DeleteRevision,
    DeleteSlurmJob,
    DeploymentAction,
    EnsureFront,
    EnsureService,
    FreezeDeployment,
)
from isthmus.modeldeployment.displaced import displaced
from isthmus.modeldeployment.observation import (
    ModelDeploymentObservation,
    ModelDeploymentPlan,
)
from isthmus.modeldeployment.policy.backoff import retry_at
from isthmus.modeldeployment.policy.placement import by_priority, place
from isthmus.modeldeployment.policy.rollout import (
    Create,
    PoolState,
    Retire,
    Step,
    Strategy,
    key_of,
    next_step,
)
from isthmus.modeldeployment.policy.scaledown import Steps, steps
from isthmus.modeldeployment.policy.slots import free_slots
from isthmus.modeldeployment.status import deleting_status, deployment_status
from isthmus.rules.actions import AddFinalizer, RemoveFinalizer
from isthmus.rules.drain import DrainTimes
from isthmus.slurmjob.policy.removal import removal_order

ENDED_ATTEMPTS_KEPT = 6
ENDED_ATTEMPTS_SECONDS = 3600.0
OLD_REVISIONS_KEPT = 3
STRATEGY = Strategy()


def plan_model_deployment(
    observed: ModelDeploymentObservation, *, now: float
) -> ModelDeploymentPlan:
    """Plan one ModelDeployment.

    Args:
        observed: everything known of it.
        now: wall clock of the operator, epoch seconds.
    """
    if observed.desired.deleting:
        return _delete(observed, now=now)
    states = pool_states(observed, now=now)
    leaving = displaced(observed, now=now)
    step = next_step(states, strategy=STRATEGY, displaced=leaving, now=now)
    actions: list[DeploymentAction] = []
    if not observed.has_finalizer:
        actions.append(AddFinalizer(later=not _holds_attempts(observed)))
    # What goes, goes first: whatever fails in between, there is never more than the surge.
    waits: list[float | None] = [_next_retry(observed, states, now=now)]
    waits += [one.ready_by - now for one in leaving if one.ready_by and not one.due(now=now)]
    for shrinking in (True, False):
        for state in states:
            found = _pool_steps(observed, state=state, step=step, shrinking=shrinking, now=now)
            actions.extend(found.actions)
            waits.append(found.again)
    for state in states:
        actions.extend(_forget_attempts(state, now=now))
    actions.extend(each for each in _freeze_current(observed) if each not in actions)
    if not observed.service_ok:
        actions.append(EnsureService())
    actions.extend(observed.lost_labels)
    actions.extend(_forget_revisions(observed))
    actions.extend(_front(observed))
    return ModelDeploymentPlan(
        status=deployment_status(
            observed,
            placement=place(observed.desired),
            blocked=step.blocked,
            displaced=leaving,
            now=now,
        ),
        actions=tuple(actions),
        requeue_after=min((wait for wait in waits if wait is not None), default=None),
    )


def _front(observed: ModelDeploymentObservation) -> list[DeploymentAction]:
    """Last of all, so that a front that cannot be made keeps no worker from starting.

    One that is not wanted any more goes after the Service has left it.
    """
    if observed.desired.endpoint.managed:
        return [] if observed.front_ok else [EnsureFront()]
    return [DeleteFront()] if observed.service_ok and observed.front_exists else []


def pool_states(observed: ModelDeploymentObservation, *, now: float) -> tuple[PoolState, ...]:
    """All pools for the rollout, in the order in which they are filled, removed ones last."""
    desired = observed.desired
    targets = place(desired).counts
    states = []
    for pool in by_priority(desired.pools):
        current = observed.group(pool=pool)
        states.append(
            PoolState(
                name=pool.name,
                target=targets[pool.name],
                current=current,
                others=tuple(
                    group
                    for group in observed.groups_of(pool.name)
                    if group.revision != current.revision and group.backend == pool.backend
                ),
                frozen=pool.backend == "slurm" and not observed.reachable(pool.name),
                startable=observed.accepts(pool.name)
                and (_retry_time(observed, current) or 0.0) <= now,
            )
        )
    return (*states, *_left_over(observed))


def _left_over(observed: ModelDeploymentObservation) -> Iterator[PoolState]:
    """What no pool of the specification has any more: removed pools, or of the other scheduler.

    The latter is apart from the pool, so that one can leave a cluster that cannot be seen.
    """
    kept = {(pool.name, pool.backend) for pool in observed.desired.pools}
    found = {(group.pool, group.backend) for group in observed.groups} - kept
    for name, backend in sorted(found):
        yield PoolState(
            name=name,
            target=0,
            current=WorkerGroup(pool=name, backend=backend, revision="", wanted=0, exists=False),
            others=tuple(g for g in observed.groups_of(name) if g.backend == backend),
            frozen=backend == "slurm" and not observed.reachable(name),
        )


def _retry_time(observed: ModelDeploymentObservation, group: WorkerGroup) -> float | None:
    return retry_at(
        ended=[worker for worker in group.workers if worker.failed],
        base=observed.retry_base,
        cap=observed.retry_cap,
    )


def _next_retry(
    observed: ModelDeploymentObservation, states: Sequence[PoolState], *, now: float
) -> float | None:
    """Seconds until a back-off ends that keeps a pool below its target."""
    waits = [
        moment - now
        for state in states
        if not state.startable and state.current.wanted < state.target
        if observed.accepts(state.name)
        for moment in [_retry_time(observed, state.current)]
        if moment is not None
    ]
    return min(waits, default=None)


def _pool_steps(
    observed: ModelDeploymentObservation,
    *,
    state: PoolState,
    step: Step,
    shrinking: bool,
    now: float,
) -> Steps:
    if state.frozen:
        return Steps()
    actions: list[DeploymentAction] = []
    waits: list[float] = []
    for group in state.groups:
        created, retired = step.created(key_of(group)), step.retired(key_of(group))
        count = group.wanted + len(created) - len(retired)
        if (count < group.wanted) is not shrinking:
            continue
        if group.backend == "kubernetes":
            found = _deployment_steps(observed, group=group, count=count, now=now)
            actions.extend(found.actions)
            waits += [] if found.again is None else [found.again]
        else:
            actions.extend(_end_jobs(group, retired))
            actions.extend(_start_jobs(observed, state=state, group=group, created=created))
    return Steps(actions=tuple(actions), again=min(waits, default=None))


def _holds_attempts(observed: ModelDeploymentObservation) -> bool:
    """Whether something may be on SLURM, or come to be there; Deployments go with their owner."""
    pools, groups = observed.desired.pools, observed.groups
    return "slurm" in {pool.backend for pool in pools} | {group.backend for group in groups}


def _freeze_current(observed: ModelDeploymentObservation) -> Iterator[DeploymentAction]:
    """What runs and is not frozen: a new Deployment, or a revision that somebody took away.

    Of another revision than the current one nobody can say any more what was written for it.
    """
    for group in (observed.group(pool=pool) for pool in observed.desired.pools):
        if _is_frozen(observed, group):
            continue
        if group.backend == "kubernetes" and group.exists:
            yield FreezeDeployment(pool=group.pool, revision=group.revision)
        if group.backend == "slurm" and group.live_workers:
            yield CreateRevision(pool=group.pool, revision=group.revision)


def _is_frozen(observed: ModelDeploymentObservation, group: WorkerGroup) -> bool:
    return any(
        frozen.pool == group.pool and frozen.revision == group.revision
        for frozen in observed.revisions
    )


def _freeze(observed: ModelDeploymentObservation, group: WorkerGroup) -> list[DeploymentAction]:
    if _is_frozen(observed, group):
        return []
    return [CreateRevision(pool=group.pool, revision=group.revision)]


def _deployment_steps(
    observed: ModelDeploymentObservation, *, group: WorkerGroup, count: int, now: float
) -> Steps:
    key = {"pool": group.pool, "revision": group.revision}
    if not group.exists:
        if count == 0:
            return Steps()
        return Steps(actions=(CreateDeployment(**key, replicas=count),))
    is_current = observed.current.get(group.pool) == group.revision
    # A failed pod is over, and stays for as long as its ReplicaSet does.
    over = all(worker.failed for worker in group.workers)
    if count == 0 and group.wanted == 0 and over and not is_current:
        return Steps(actions=(DeleteDeployment(**key),))
    return steps(
        group,
        count=count,
        order=removal_order,
        times=DrainTimes(floor=observed.floor, budget=observed.desired.drain.timeout),
        shutdown=observed.shutdown,
        now=now,
    )


def _end_jobs(group: WorkerGroup, retired: Sequence[Retire]) -> list[DeploymentAction]:
    uids = {worker.name: worker.uid for worker in group.live_workers}
    return [
        DeleteSlurmJob(name=one.worker, uid=uids[one.worker])
        for one in retired
        if one.worker is not None
    ]


def _start_jobs(
    observed: ModelDeploymentObservation,
    *,
    state: PoolState,
    group: WorkerGroup,
    created: Sequence[Create],
) -> list[DeploymentAction]:
    """A successor takes the slot of the one that it replaces, any other worker a free one."""
    if not created:
        return []
    slot_of = {w.name: w.slot for w in group.live_workers}
    taken = {w.slot for other in state.groups for w in other.workers if not w.failed}
    free = iter(free_slots(taken=taken, count=sum(one.replaces is None for one in created)))
    create = [
        CreateSlurmJob(
            pool=group.pool,
            revision=group.revision,
            slot=next(free) if one.replaces is None else slot_of[one.replaces],
            replaces=one.replaces,
        )
        for one in created
    ]
    return [*_freeze(observed, group), *create]


def _forget_attempts(state: PoolState, *, now: float) -> list[DeploymentAction]:
    """Delete ended attempts, except the latest few of the current revision, which say why."""
    ended = [worker for worker in state.current.workers if worker.failed and not worker.stopping]
    ended.sort(key=lambda worker: (-(worker.finished_at or 0.0), worker.name))
    gone = ended[ENDED_ATTEMPTS_KEPT:] + [
        worker
        for worker in ended[:ENDED_ATTEMPTS_KEPT]
        if (worker.finished_at or 0.0) < now - ENDED_ATTEMPTS_SECONDS
    ]
    for group in state.others:
        gone += [worker for worker in group.workers if worker.failed and not worker.stopping]
    return [
        DeleteSlurmJob(name=worker.name, uid=worker.uid)
        for worker in gone
        if worker.backend == "slurm"
    ]


def _forget_revisions(observed: ModelDeploymentObservation) -> list[DeploymentAction]:
    """Delete frozen revisions that nothing runs, except the latest few of each pool."""
    used = {(group.pool, group.revision) for group in observed.groups}
    used |= set(observed.current.items())
    actions: list[DeploymentAction] = []
    for pool in sorted({frozen.pool for frozen in observed.revisions}):
        unused = sorted(
            (f for f in observed.revisions if f.pool == pool and (pool, f.revision) not in used),
            key=lambda frozen: (-frozen.created_at, frozen.revision),
        )
        kept = OLD_REVISIONS_KEPT if pool in observed.current else 0
        actions += [DeleteRevision(pool=f.pool, revision=f.revision) for f in unused[kept:]]
    return actions


def _delete(observed: ModelDeploymentObservation, *, now: float) -> ModelDeploymentPlan:
    """End every worker, and let the object go when none is left; the rest goes with its owner."""
    if not observed.has_finalizer:
        return ModelDeploymentPlan(status=observed.status)
    actions: list[DeploymentAction] = []
    for group in observed.groups:
        if group.backend == "kubernetes" and group.exists:
            actions.append(DeleteDeployment(pool=group.pool, revision=group.revision))
        if group.backend == "slurm":
            actions += [
                DeleteSlurmJob(name=worker.name, uid=worker.uid)
                for worker in group.workers
                if not worker.stopping
            ]
    if not any(group.workers or group.exists for group in observed.groups):
        actions.append(RemoveFinalizer())
    return ModelDeploymentPlan(status=deleting_status(observed, now=now), actions=tuple(actions))
