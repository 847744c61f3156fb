"""The status of a ModelDeployment: a pure aggregate of what exists.

Counts never include what is ending or has failed; ready means that a client can reach the worker;
every pool that lacks workers says why. The same observation gives the same status, so nothing is
written when nothing changed.
"""

from collections.abc import Iterator, Sequence

from isthmus.api import names
from isthmus.api.conditions import (
    Condition,
    ConditionType,
    PendingClass,
    Reason,
    set_condition,
)
from isthmus.api.desired import Desired, Pool
from isthmus.api.modeldeployment_status import (
    ApiKeyStatus,
    ModelDeploymentStatus,
    PendingStatus,
    PoolStatus,
    RolloutStatus,
    TunnelsStatus,
)
from isthmus.api.times import epoch, rfc3339
from isthmus.backends.base import Pending, Worker
from isthmus.engines import ENGINES
from isthmus.modeldeployment.listed_workers import listed, omitted, shown
from isthmus.modeldeployment.observation import ModelDeploymentObservation
from isthmus.modeldeployment.policy.displacement.base import Displacement
from isthmus.modeldeployment.policy.placement import Placement
from isthmus.modeldeployment.policy.rollout import Blocked
from isthmus.modeldeployment.policy.rollout_times import rollout_times
from isthmus.modeldeployment.verdicts import (
    SEVERITY,
    Totals,
    Verdict,
    available,
    behind_front,
    client_keys,
    front_version,
    keys,
    progressing,
    ready,
    router,
    tunnels,
)
from isthmus.rules.conditions import models, typed

_MESSAGE_LIMIT = 1000


def deployment_status(
    observed: ModelDeploymentObservation,
    *,
    placement: Placement,
    now: float,
    blocked: Blocked | None = None,
    displaced: Sequence[Displacement] = (),
) -> ModelDeploymentStatus:
    """The status of a deployment that is not being deleted.

    Args:
        observed: everything known of it.
        placement: where its workers are to be.
        now: epoch seconds; only moments of change are taken from it.
        blocked: why the rollout takes no step, None where it does or is complete.
        displaced: workers to be replaced while they run.
    """
    due = tuple(one for one in displaced if one.due(now=now))
    totals = _count(observed, placed=placement.placed)
    pools = tuple(
        _pool_status(observed, pool=pool, placement=placement, now=now)
        for pool in observed.desired.pools
    )
    progress = progressing(totals=totals, pools=pools, blocked=blocked, displaced=due)
    conditions = _conditions(observed, totals=totals, pools=pools, progress=progress, now=now)
    ready = next(c for c in conditions if c["type"] == ConditionType.READY)
    engines = sorted({str(pool.engine.type) for pool in observed.desired.pools}, reverse=True)
    return ModelDeploymentStatus(
        observed_generation=observed.desired.generation,
        replicas=totals.live,
        ready_replicas=totals.available,
        updated_replicas=totals.updated,
        available_replicas=totals.available,
        selector=_selector(observed),
        ready=f"{totals.available}/{totals.desired}",
        backend="+".join(sorted({pool.backend for pool in observed.desired.pools})),
        engine="+".join(engines),
        url=_url(observed),
        clients=_clients(observed.desired),
        api_key=_api_key(observed.desired),
        summary="Ready" if ready["status"] == "True" else ready["reason"],
        rollout=_rollout(observed, totals, now=now),
        tunnels=_tunnels(observed),
        conditions=models(conditions),
        pools=pools,
        workers=listed(observed, displaced=due),
        omitted_workers=omitted(observed),
        draining=_number_draining(observed),
    )


def _rollout(
    observed: ModelDeploymentObservation, totals: Totals, *, now: float
) -> RolloutStatus | None:
    before = observed.status
    known = {pool.name: pool.revision for pool in before.pools if pool.revision}
    changed = any(
        observed.current.get(pool, revision) != revision for pool, revision in known.items()
    )
    return rollout_times(
        before.rollout,
        changed=changed and bool(before.replicas),
        outdated=totals.outdated > 0,
        complete=totals.outdated == 0 and totals.updated_available >= totals.placed,
        now=now,
    )


def _tunnels(observed: ModelDeploymentObservation) -> TunnelsStatus | None:
    """Forwards of live workers; None where none is reached through one."""
    found = [w.tunnel for group in observed.groups for w in group.live_workers if w.tunnel]
    if not found:
        return None
    up = sum(tunnel == "Up" for tunnel in found)
    return TunnelsStatus(desired=len(found), up=up, summary=f"{up}/{len(found)}")


def deleting_status(observed: ModelDeploymentObservation, *, now: float) -> ModelDeploymentStatus:
    """The status while the last workers end."""
    workers = listed(observed)
    message = f"{len(shown(observed))} workers are being stopped"
    stuck = [view.message for view in observed.clusters.values() if not view.reachable]
    stuck += [worker.problem for worker in shown(observed) if worker.problem]
    if workers and stuck:
        message += f"; {stuck[0]}"
    conditions = _carried(observed)
    for kind in (ConditionType.READY, ConditionType.AVAILABLE):
        conditions = set_condition(
            conditions,
            type=kind,
            status=False,
            reason=Reason.DELETING,
            message=message,
            now=now,
            observed_generation=observed.desired.generation,
        )
    return observed.status.model_copy(
        update={
            "observed_generation": observed.desired.generation,
            "replicas": 0,
            "ready_replicas": 0,
            "updated_replicas": 0,
            "available_replicas": 0,
            "ready": "0/0",
            "summary": str(Reason.DELETING),
            "conditions": models(conditions),
            "pools": (),
            "workers": workers,
            "omitted_workers": omitted(observed),
            "draining": _number_draining(observed),
        }
    )


def _count(observed: ModelDeploymentObservation, *, placed: int) -> Totals:
    live = [worker for group in observed.groups for worker in group.live_workers]
    updated = [w for w in live if observed.current.get(w.pool) == w.revision]
    return Totals(
        desired=observed.desired.replicas,
        placed=placed,
        live=len(live),
        available=sum(worker.available for worker in live),
        updated=len(updated),
        updated_available=sum(worker.available for worker in updated),
        outdated=len(live) - len(updated),
    )


def _url(observed: ModelDeploymentObservation) -> str:
    """Where clients send requests: the router that is not ours, else the deployment's Service."""
    desired = observed.desired
    external = desired.endpoint.router
    if external is not None and external.url is not None:
        return f"{external.url}/v1"
    return f"http://{desired.name}.{desired.namespace}.svc/v1"


def _clients(desired: Desired) -> str | None:
    """What the front lets its clients do, for people; None without one of ours."""
    endpoint = desired.endpoint
    if not endpoint.managed:
        return None
    parts = [
        "paths of " + "+".join(desired.engines),
        "administration is " + ("allowed" if endpoint.administration else "refused"),
        "they need a key" if endpoint.client_keys else "they need no key",
    ]
    if endpoint.extra_paths:
        parts.insert(1, f"extra paths: {len(endpoint.extra_paths)}")
    return ", ".join(parts)


def _api_key(desired: Desired) -> ApiKeyStatus | None:
    key = desired.api_key
    if key is None:
        return None
    kinds = {pool.engine.type for pool in desired.pools}
    paths = sorted({path for kind in kinds for path in ENGINES[kind].open_paths})
    return ApiKeyStatus(secret=key.secret, key=key.key, open_paths=tuple(paths))


def _selector(observed: ModelDeploymentObservation) -> str:
    """What an autoscaler may count as replicas.

    With a SLURM pool no pod selector is true, so it is one that matches nothing: an autoscaler
    that averages over pods then does nothing instead of something wrong.
    """
    label = names.LABEL_DEPLOYMENT
    wanted = f"{label}={observed.desired.name}"
    only_pods = all(pool.backend == "kubernetes" for pool in observed.desired.pools)
    return f"{wanted},!{names.LABEL_COMPONENT if only_pods else label}"


def _number_draining(observed: ModelDeploymentObservation) -> int:
    return sum(
        worker.draining is not None and not worker.failed
        for group in observed.groups
        for worker in group.workers
    )


def _pool_status(
    observed: ModelDeploymentObservation, *, pool: Pool, placement: Placement, now: float
) -> PoolStatus:
    target = placement.counts[pool.name]
    groups = observed.groups_of(pool.name)
    available = sum(group.available for group in groups)
    current = observed.group(pool=pool)
    old = sum(len(group.live_workers) for group in groups) - len(current.live_workers)
    missing = current.available < target or old > 0
    pending = _pool_pending(observed, pool=pool, target=target) if missing else None
    return PoolStatus(
        name=pool.name,
        backend=pool.backend,
        desired=target,
        ready=available,
        revision=observed.current[pool.name],
        pending=_pending_status(observed, pool=pool.name, pending=pending, now=now),
        why=_why(
            placement.why[pool.name],
            old=old,
            problems=[w.problem for group in groups for w in group.workers if w.problem],
        ),
    )


def _why(placed: str, *, old: int, problems: list[str]) -> str:
    parts = [placed]
    if old:
        parts.append(f"{old} workers of an older revision serve until they are replaced")
    if problems:
        workers = "one worker" if len(problems) == 1 else f"{len(problems)} workers"
        parts.append(f"of {workers} {problems[0]}")
    return "; ".join(parts)


def _pool_pending(
    observed: ModelDeploymentObservation, *, pool: Pool, target: int
) -> Pending | None:
    """The worst cause for which the pool has fewer current workers than it should."""
    view = observed.clusters.get(pool.name) if pool.backend == "slurm" else None
    if view is not None and not (view.reachable and view.accepts):
        return Pending(
            pending_class=PendingClass.UNREACHABLE, reason=view.reason, message=view.message
        )
    group = observed.group(pool=pool)
    causes = [worker.pending for worker in group.live_workers if worker.pending is not None]
    if group.problem is not None:
        causes.append(group.problem)
    if len(group.live_workers) < target:
        causes += [w.pending for w in _latest_ended(group.workers) if w.pending is not None]
    return min(causes, key=lambda cause: SEVERITY.index(cause.pending_class), default=None)


def _latest_ended(workers: tuple[Worker, ...]) -> tuple[Worker, ...]:
    ended = sorted(
        (worker for worker in workers if worker.failed), key=lambda w: w.finished_at or 0.0
    )
    return tuple(ended[-1:])


def _pending_status(
    observed: ModelDeploymentObservation, *, pool: str, pending: Pending | None, now: float
) -> PendingStatus | None:
    if pending is None:
        return None
    before = next((p.pending for p in observed.status.pools if p.name == pool), None)
    same = (
        before is not None
        and before.pending_class == pending.pending_class
        and before.reason == pending.reason[:64]
    )
    since = epoch(before.since) if before is not None and same else pending.since
    return PendingStatus(
        pending_class=pending.pending_class,
        reason=pending.reason[:64],
        message=pending.message[:_MESSAGE_LIMIT],
        since=rfc3339(int(now if since is None else since)),
    )


def _conditions(
    observed: ModelDeploymentObservation,
    *,
    totals: Totals,
    pools: tuple[PoolStatus, ...],
    progress: Verdict,
    now: float,
) -> tuple[Condition, ...]:
    judged = ready(totals=totals, pools=pools), available(totals)
    desired = observed.desired
    if desired.endpoint.managed and not observed.front_available:
        judged = (
            behind_front(judged[0], deployment=desired.name, why=observed.front_problem),
            behind_front(judged[1], deployment=desired.name, why=observed.front_problem),
        )
    found: list[tuple[ConditionType, bool, Reason, str]] = [
        (ConditionType.READY, *judged[0]),
        (ConditionType.AVAILABLE, *judged[1]),
        (ConditionType.PROGRESSING, *progress),
    ]
    conditions = _carried(observed)
    wanted = {pool.name for pool in observed.desired.pools if pool.backend == "slurm"}
    views = [view for name, view in sorted(observed.clusters.items()) if name in wanted]
    if views:
        bad = next((view for view in views if not view.reachable), None)
        reason = Reason.SNAPSHOT_COMPLETE if bad is None else bad.reason
        message = "squeue and sinfo answer" if bad is None else bad.message
        found.append((ConditionType.SLURM_REACHABLE, bad is None, reason, message))
    else:
        conditions = tuple(c for c in conditions if c["type"] != ConditionType.SLURM_REACHABLE)
    for kind, verdict in (
        (ConditionType.TUNNELS_UP, tunnels(_live(observed))),
        (ConditionType.ROUTER_REACHABLE, router(observed.router_problem)),
        (
            ConditionType.CLIENT_KEYS_IN_FORCE,
            client_keys(observed.client_keys_problem, rolled_out=observed.front_rolled_out),
        ),
        (ConditionType.KEYS_SEPARATE, keys(desired, _live(observed))),
        (ConditionType.FRONT_UP_TO_DATE, _front_version(observed)),
    ):
        if verdict is not None:
            found.append((kind, *verdict))
        else:
            conditions = tuple(c for c in conditions if c["type"] != kind)
    for kind, status, reason, message in found:
        conditions = set_condition(
            conditions,
            type=kind,
            status=status,
            reason=reason,
            message=message[:_MESSAGE_LIMIT],
            now=now,
            observed_generation=observed.desired.generation,
        )
    return conditions


def _front_version(observed: ModelDeploymentObservation) -> Verdict | None:
    managed = observed.desired.endpoint.managed
    return front_version(observed.front_understands) if managed else None


def _live(observed: ModelDeploymentObservation) -> Iterator[Worker]:
    return (worker for group in observed.groups for worker in group.live_workers)


def _carried(observed: ModelDeploymentObservation) -> tuple[Condition, ...]:
    """The conditions as they stand, so that moments of change are kept."""
    return tuple(typed(condition) for condition in observed.status.conditions)
