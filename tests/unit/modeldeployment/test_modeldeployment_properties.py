"""One ModelDeployment over anything: what is never planned, and when there is nothing to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.backends.base import Draining, Worker, WorkerGroup
from isthmus.modeldeployment.actions import (
    CreateDeployment,
    CreateRevision,
    CreateSlurmJob,
    DeleteDeployment,
    DeleteRevision,
    DeleteSlurmJob,
    DrainPods,
    FreezeDeployment,
    ReleasePod,
    ReturnPod,
    ScaleDeployment,
)
from isthmus.modeldeployment.observation import FrozenRevision, ModelDeploymentObservation
from isthmus.modeldeployment.plan import plan_model_deployment
from isthmus.rules.actions import RemoveFinalizer
from tests.unit.builders import (
    NOW,
    REACHABLE,
    UNREACHABLE,
    deployment,
    desired,
    group,
    k8s_pool,
    slurm_pool,
    slurm_worker,
)

STATES = st.lists(
    st.sampled_from(
        ["ready", "joining", "degraded", "starting", "pending", "crashing", "stopping", "failed"]
    ),
    max_size=4,
)
DRAINING = st.lists(st.sampled_from(["draining", "busy", "drained", "released"]), max_size=2)


@st.composite
def observations(draw: st.DrawFn) -> ModelDeploymentObservation:
    pools = [k8s_pool(priority=draw(st.integers(0, 2)), max_replicas=draw(st.none() | st.just(2)))]
    if draw(st.booleans()):
        pools.append(slurm_pool(min_replicas=draw(st.integers(0, 1)), priority=1))
    groups = []
    slot = 0
    for pool, backend in (("k8s", "kubernetes"), ("hpc", "slurm"), ("gone", "slurm")):
        for revision in ("new", "old"):
            states = draw(STATES)
            if backend == "kubernetes":
                wanted = draw(st.integers(0, 4))
                states += draw(DRAINING)
                groups.append(group(*states, pool=pool, revision=revision, wanted=wanted))
                continue
            if not states:
                continue
            found = group(*states, pool=pool, revision=revision, backend="slurm")
            numbered = []
            for one in found.workers:
                numbered.append(replace(one, slot=slot))
                slot += draw(st.integers(1, 2))
            groups.append(replace(found, workers=tuple(numbered)))
    return deployment(
        desired(*pools, replicas=draw(st.integers(0, 6)), deleting=draw(st.booleans())),
        *groups,
        revisions=[("k8s", "new"), ("k8s", "older"), ("hpc", "old"), ("gone", "old")],
        clusters={
            name: draw(st.sampled_from([REACHABLE, UNREACHABLE])) for name in ("hpc", "gone")
        },
    )


def all_workers(observed: ModelDeploymentObservation) -> list[Worker]:
    return [one for found in observed.groups for one in found.workers]


@settings(max_examples=300)
@given(observations())
def test_what_never_happens(observed: ModelDeploymentObservation) -> None:
    plan = plan_model_deployment(observed, now=NOW)
    by_name = {one.name: one for one in all_workers(observed)}
    assert len(set(plan.actions)) == len(plan.actions)
    taken = {
        (one.pool, one.slot)
        for one in by_name.values()
        if one.backend == "slurm" and not one.failed
    }
    for action in plan.actions:
        if isinstance(action, CreateSlurmJob):
            assert (action.pool, action.slot) not in taken
            taken.add((action.pool, action.slot))
            assert observed.reachable(action.pool)
            assert action.revision == observed.current[action.pool]
        elif isinstance(action, DeleteSlurmJob):
            victim = by_name[action.name]
            assert victim.backend == "slurm"
            assert victim.uid == action.uid
            assert not victim.stopping
            if not observed.desired.deleting:
                assert victim.failed or observed.reachable(victim.pool)
        elif isinstance(action, RemoveFinalizer):
            assert not by_name
    if observed.desired.deleting:
        assert not any(
            isinstance(action, CreateSlurmJob | CreateDeployment | CreateRevision | ScaleDeployment)
            for action in plan.actions
        )


@given(observations())
def test_numbers_tell_the_truth(observed: ModelDeploymentObservation) -> None:
    status = plan_model_deployment(observed, now=NOW).status
    if observed.desired.deleting:
        assert (status.replicas, status.ready_replicas, status.ready) == (0, 0, "0/0")
        return
    live = [one for one in all_workers(observed) if not one.stopping and not one.failed]
    assert status.replicas == len(live)
    assert status.available_replicas == sum(one.ready and one.in_rotation for one in live)
    assert status.ready == f"{status.available_replicas}/{observed.desired.replicas}"
    assert status.updated_replicas == sum(
        observed.current.get(one.pool) == one.revision for one in live
    )
    shown = Counter(one.pool for one in status.workers)
    assert shown == Counter(one.pool for one in all_workers(observed) if not one.failed)
    ready = next(one for one in status.conditions if one.type == "Ready")
    if ready.status == "True":
        updated = [one for one in live if observed.current.get(one.pool) == one.revision]
        assert len(updated) == len(live)
        assert sum(one.available for one in updated) >= observed.desired.replicas


@settings(max_examples=200)
@given(observations())
def test_nothing_new_is_planned_for_what_was_just_done(
    observed: ModelDeploymentObservation,
) -> None:
    """Rule 1: everything asked for is there, and nothing else has changed."""
    if observed.desired.deleting:
        return
    for _ in range(4):
        plan = plan_model_deployment(observed, now=NOW)
        observed = done(replace(observed, status=plan.status), plan.actions)
    # Retries and forgetting follow from time alone, so by now there is nothing left to do.
    plan = plan_model_deployment(observed, now=NOW)
    assert plan.actions == ()
    assert plan.status == observed.status


def done(
    observed: ModelDeploymentObservation, actions: tuple[object, ...]
) -> ModelDeploymentObservation:
    """The observation after its actions; jobs that are deleted are gone, pods as they were."""
    groups = {(one.pool, one.revision): one for one in observed.groups}
    revisions = list(observed.revisions)
    for action in actions:
        if isinstance(action, CreateRevision | FreezeDeployment):
            revisions.append(FrozenRevision(action.pool, action.revision, NOW))
        elif isinstance(action, DeleteRevision):
            revisions = [
                one
                for one in revisions
                if (one.pool, one.revision) != (action.pool, action.revision)
            ]
        elif isinstance(action, CreateDeployment | ScaleDeployment):
            key = action.pool, action.revision
            before = groups.get(key) or group(pool=action.pool, revision=action.revision)
            live = sorted(before.live_workers, key=lambda one: (one.available, one.serving))
            wanted = action.replicas - len(before.waiting)
            kept = live[max(0, len(live) - wanted) :]
            leaving = [one for one in before.workers if one.draining is not None]
            groups[key] = replace(before, wanted=wanted, workers=(*kept, *leaving))
        elif isinstance(action, DrainPods):
            key = action.pool, action.revision
            marks = {"draining": Draining(since=NOW), "stopping": True, "in_rotation": False}
            chosen = action.candidates[: action.count]
            groups[key] = _changed(groups[key], frozenset(chosen), marks, less=action.count)
        elif isinstance(action, ReleasePod | ReturnPod):
            key = next(
                key
                for key, one in groups.items()
                if action.name in {worker.name for worker in one.workers}
            )
            waited = action.name in {worker.name for worker in groups[key].waiting}
            if isinstance(action, ReleasePod):
                state = {"draining": Draining(since=NOW - 60, released_at=NOW)}
            else:
                state = {"draining": None, "stopping": False, "in_rotation": True, "ready": True}
            less = -1 if waited else 0
            groups[key] = _changed(groups[key], frozenset({action.name}), state, less=less)
        elif isinstance(action, DeleteDeployment):
            del groups[action.pool, action.revision]
        elif isinstance(action, CreateSlurmJob):
            key = action.pool, action.revision
            before = groups.get(key) or group(
                pool=action.pool, revision=action.revision, backend="slurm"
            )
            made = slurm_worker(
                f"made-{action.pool}-{action.slot}",
                state="starting",
                pool=action.pool,
                revision=action.revision,
                slot=action.slot,
            )
            groups[key] = _jobs(before, (*before.workers, made))
        elif isinstance(action, DeleteSlurmJob):
            for key, before in list(groups.items()):
                rest = tuple(one for one in before.workers if one.name != action.name)
                if len(rest) < len(before.workers):
                    groups[key] = _jobs(before, rest)
                    if not rest:
                        del groups[key]
    return replace(observed, groups=tuple(groups.values()), revisions=tuple(revisions))


def _changed(
    before: WorkerGroup, names: frozenset[str], state: Mapping[str, Any], *, less: int
) -> WorkerGroup:
    workers = tuple(replace(one, **state) if one.name in names else one for one in before.workers)
    return replace(before, workers=workers, wanted=before.wanted - less)


def _jobs(before: WorkerGroup, workers: tuple[Worker, ...]) -> WorkerGroup:
    return replace(before, workers=workers, wanted=sum(one.live for one in workers))
