"""What the status of a ModelDeployment says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from isthmus.api.conditions import ConditionType, PendingClass, Reason
from isthmus.api.desired import ApiKey, Desired, Endpoint, Engine, EngineType, Router
from isthmus.api.modeldeployment_status import (
    MAX_LISTED_WORKERS,
    ModelDeploymentStatus,
    PoolStatus,
)
from isthmus.api.times import rfc3339
from isthmus.apiserver.status_bounds import written
from isthmus.modeldeployment.observation import ModelDeploymentObservation
from isthmus.modeldeployment.plan import plan_model_deployment
from tests.unit.builders import (
    NOW,
    REACHABLE,
    UNREACHABLE,
    deployment,
    desired,
    group,
    k8s_pool,
    pending,
    slurm_group,
    slurm_pool,
    worker,
)

BOTH = (k8s_pool(priority=10, max_replicas=2), slurm_pool())


def status(observed: ModelDeploymentObservation, *, now: float = NOW) -> ModelDeploymentStatus:
    return plan_model_deployment(observed, now=now).status


def said(found: ModelDeploymentStatus, kind: ConditionType) -> tuple[str, str]:
    condition = next(one for one in found.conditions if one.type == kind)
    return condition.status, condition.reason


def message(found: ModelDeploymentStatus, kind: ConditionType) -> str:
    return next(one for one in found.conditions if one.type == kind).message


def pool(found: ModelDeploymentStatus, name: str = "k8s") -> PoolStatus:
    return next(one for one in found.pools if one.name == name)


IMAGE = {"pending": pending(PendingClass.IMAGE, "ErrImagePull", "correct engine.image")}
QUOTA = pending(PendingClass.QUOTA, "FailedCreate", "exceeded quota")


def stuck(kind: PendingClass, reason: str) -> Any:
    one = worker(state="starting", pending=pending(kind, reason))
    return replace(group("starting"), workers=(one,))


@pytest.mark.parametrize(
    ("replicas", "groups", "ready", "available", "progressing"),
    [
        pytest.param(
            1,
            [],
            ("False", Reason.WORKERS_NOT_READY),
            ("False", Reason.NO_WORKERS_READY),
            ("True", Reason.SCALING_UP),
            id="nothing yet",
        ),
        pytest.param(
            1,
            [group("starting")],
            ("False", Reason.WORKERS_NOT_READY),
            ("False", Reason.NO_WORKERS_READY),
            ("True", Reason.SCALING_UP),
            id="starting",
        ),
        pytest.param(
            1,
            [group("joining")],
            ("False", Reason.WORKERS_NOT_READY),
            ("False", Reason.NO_WORKERS_READY),
            ("True", Reason.SCALING_UP),
            id="ready and not in the membership: no client reaches it",
        ),
        pytest.param(
            2,
            [group("ready", "starting")],
            ("False", Reason.WORKERS_NOT_READY),
            ("True", Reason.WORKERS_AVAILABLE),
            ("True", Reason.SCALING_UP),
            id="half",
        ),
        pytest.param(
            2,
            [group("ready", "ready")],
            ("True", Reason.ALL_WORKERS_READY),
            ("True", Reason.WORKERS_AVAILABLE),
            ("True", Reason.ROLLOUT_COMPLETE),
            id="all",
        ),
        pytest.param(
            1,
            [group("ready", "ready")],
            ("True", Reason.ALL_WORKERS_READY),
            ("True", Reason.WORKERS_AVAILABLE),
            ("True", Reason.SCALING_DOWN),
            id="one too many",
        ),
        pytest.param(
            0,
            [],
            ("True", Reason.ALL_WORKERS_READY),
            ("True", Reason.SCALED_TO_ZERO),
            ("True", Reason.ROLLOUT_COMPLETE),
            id="scaled to zero",
        ),
        pytest.param(
            2,
            [group("starting"), group("ready", "ready", revision="old")],
            ("False", Reason.ROLLOUT_IN_PROGRESS),
            ("True", Reason.WORKERS_AVAILABLE),
            ("True", Reason.ROLLOUT_IN_PROGRESS),
            id="update",
        ),
        pytest.param(
            2,
            [group("ready", "ready"), group("ready", revision="old")],
            ("False", Reason.ROLLOUT_IN_PROGRESS),
            ("True", Reason.WORKERS_AVAILABLE),
            ("True", Reason.ROLLOUT_IN_PROGRESS),
            id="update: the last old one",
        ),
        pytest.param(
            1,
            [stuck(PendingClass.FAILING, "CrashLoopBackOff"), group("ready", revision="old")],
            ("False", Reason.WORKERS_FAILING),
            ("True", Reason.WORKERS_AVAILABLE),
            ("False", Reason.WORKERS_FAILING),
            id="update to what crashes",
        ),
        pytest.param(
            1,
            [stuck(PendingClass.IMAGE, "ErrImagePull")],
            ("False", Reason.IMAGE_PULL_ERROR),
            ("False", Reason.NO_WORKERS_READY),
            ("False", Reason.IMAGE_PULL_ERROR),
            id="no such image",
        ),
        pytest.param(
            1,
            [stuck(PendingClass.UNSCHEDULABLE, "Unschedulable")],
            ("False", Reason.UNSCHEDULABLE),
            ("False", Reason.NO_WORKERS_READY),
            ("True", Reason.SCALING_UP),
            id="no node fits: a node may come",
        ),
        pytest.param(
            1,
            [replace(group(wanted=1), problem=QUOTA)],
            ("False", Reason.PENDING_QUOTA),
            ("False", Reason.NO_WORKERS_READY),
            ("True", Reason.SCALING_UP),
            id="quota",
        ),
    ],
)
def test_conditions(
    replicas: int,
    groups: list[Any],
    ready: tuple[str, str],
    available: tuple[str, str],
    progressing: tuple[str, str],
) -> None:
    found = status(deployment(desired(replicas=replicas), *groups))
    assert said(found, ConditionType.READY) == ready
    assert said(found, ConditionType.AVAILABLE) == available
    assert said(found, ConditionType.PROGRESSING) == progressing
    assert found.summary == ("Ready" if ready[0] == "True" else ready[1])
    assert found.observed_generation == 1
    assert all(one.observed_generation == 1 for one in found.conditions)


class TestNumbers:
    def test_ending_and_failed_workers_never_count(self) -> None:
        observed = deployment(
            desired(replicas=2),
            group("ready", "stopping", "failed", "degraded", wanted=2),
            group("ready", "stopping", revision="old"),
        )
        found = status(observed)
        assert found.replicas == 3
        assert found.updated_replicas == 2
        assert (found.ready_replicas, found.available_replicas, found.ready) == (2, 2, "2/2")
        assert {one.phase for one in found.workers} == {"Ready", "Draining", "Degraded"}

    def test_more_replicas_than_the_pools_take(self) -> None:
        wanted = desired(k8s_pool(max_replicas=1), replicas=3)
        found = status(deployment(wanted, group("ready")))
        assert found.ready == "1/3"
        assert said(found, ConditionType.READY) == ("False", Reason.INSUFFICIENT_CAPACITY)
        assert "maxReplicas" in message(found, ConditionType.READY)

    def test_both_schedulers_are_named(self) -> None:
        found = status(deployment(desired(*BOTH, replicas=3), group("ready"), slurm_group("ready")))
        assert (found.backend, found.engine) == ("kubernetes+slurm", "vllm+sglang")
        assert found.url == "http://llama.team-a.svc/v1"
        assert [(one.name, one.backend) for one in found.workers] == [
            ("hpc-new-0", "slurm"),
            ("k8s-new-0", "kubernetes"),
        ]

    def test_the_selector_matches_pods_only_where_all_workers_are_pods(self) -> None:
        found = status(deployment(desired())).selector
        assert found == "isthmus.dev/modeldeployment=llama,!isthmus.dev/component"
        mixed = status(deployment(desired(*BOTH))).selector
        assert mixed == "isthmus.dev/modeldeployment=llama,!isthmus.dev/modeldeployment"


class TestPools:
    def test_each_says_why_it_has_this_many(self) -> None:
        wanted = desired(k8s_pool(priority=10, max_replicas=2), slurm_pool(min_replicas=1))
        found = status(deployment(replace(wanted, replicas=3)))
        assert (pool(found).desired, pool(found, "hpc").desired) == (2, 1)
        assert pool(found).why == "priority 10; filled to maxReplicas 2"
        assert pool(found, "hpc").why == "priority 0; kept at minReplicas 1"

    def test_old_workers_are_told(self) -> None:
        found = status(deployment(desired(replicas=1), group("ready", revision="old")))
        assert "1 workers of an older revision" in (pool(found).why or "")
        assert (pool(found).ready, pool(found).revision) == (1, "new")

    def test_the_worst_cause_is_shown(self) -> None:
        workers = (
            worker("a", state="starting"),
            worker("b", state="pending", **IMAGE),
            worker("c", state="pending"),
        )
        found = status(deployment(desired(replicas=3), replace(group(wanted=3), workers=workers)))
        cause = pool(found).pending
        assert cause is not None
        assert (cause.pending_class, cause.reason) == (PendingClass.IMAGE, "ErrImagePull")
        assert cause.message == "correct engine.image"
        assert "correct engine.image" in message(found, ConditionType.READY)

    def test_the_latest_failed_attempt_says_why_one_is_missing(self) -> None:
        found = status(deployment(desired(slurm_pool()), slurm_group("failed")))
        cause = pool(found, "hpc").pending
        assert cause is not None
        assert (cause.pending_class, cause.reason) == (PendingClass.FAILING, "JobFailed")
        assert said(found, ConditionType.READY) == ("False", "JobFailed")

    def test_a_full_pool_has_no_cause(self) -> None:
        found = status(deployment(desired(slurm_pool()), slurm_group("ready", "failed")))
        assert pool(found, "hpc").pending is None

    def test_since_when_stays_while_the_cause_stays(self) -> None:
        observed = deployment(desired(slurm_pool()), slurm_group("failed"))
        first = status(observed)
        cause = pool(first, "hpc").pending
        assert cause is not None
        later = status(replace(observed, status=first), now=NOW + 500)
        assert pool(later, "hpc").pending == cause
        other = deployment(desired(slurm_pool()), status=first, clusters={"hpc": UNREACHABLE})
        changed = pool(status(other, now=NOW + 500), "hpc").pending
        assert changed is not None
        assert changed.since == rfc3339(NOW + 500)

    def test_a_cause_with_a_long_name_settles_too(self) -> None:
        group_ = replace(group(wanted=1), problem=replace(QUOTA, reason="Q" * 80, since=None))
        observed = deployment(desired(), group_)
        first = status(observed)
        assert status(replace(observed, status=first), now=NOW + 500) == first


class TestSlurmReachable:
    def test_true(self) -> None:
        found = status(deployment(desired(*BOTH, replicas=2), group("ready", "ready")))
        assert said(found, ConditionType.SLURM_REACHABLE) == ("True", Reason.SNAPSHOT_COMPLETE)

    def test_an_outage_does_not_make_serving_workers_unready(self) -> None:
        found = status(
            deployment(desired(slurm_pool()), slurm_group("ready"), clusters={"hpc": UNREACHABLE})
        )
        assert said(found, ConditionType.SLURM_REACHABLE) == ("False", "ControllerUnreachable")
        assert said(found, ConditionType.READY) == ("True", Reason.ALL_WORKERS_READY)

    def test_an_outage_is_why_workers_are_missing(self) -> None:
        found = status(
            deployment(
                desired(slurm_pool(), replicas=2),
                slurm_group("ready", "pending"),
                clusters={"hpc": UNREACHABLE},
            )
        )
        cause = pool(found, "hpc").pending
        assert cause is not None
        assert cause.pending_class == PendingClass.UNREACHABLE
        assert said(found, ConditionType.READY) == ("False", "ControllerUnreachable")
        assert said(found, ConditionType.PROGRESSING) == ("False", "ControllerUnreachable")
        assert "slurmctld does not answer" in message(found, ConditionType.READY)

    def test_only_while_a_pool_is_on_slurm(self) -> None:
        before = status(deployment(desired(*BOTH)))
        found = status(deployment(desired(), status=before, clusters={"hpc": REACHABLE}))
        assert ConditionType.SLURM_REACHABLE not in {one.type for one in found.conditions}


class TestDeleting:
    def test_it_says_how_many_are_left_and_counts_none(self) -> None:
        wanted = replace(desired(*BOTH), deleting=True)
        found = status(deployment(wanted, group("stopping"), slurm_group("ready")))
        assert said(found, ConditionType.READY) == ("False", Reason.DELETING)
        assert (found.ready, found.replicas, found.summary) == ("0/0", 0, "Deleting")
        assert "2 workers" in message(found, ConditionType.READY)

    def test_and_what_holds_them(self) -> None:
        wanted = replace(desired(*BOTH), deleting=True)
        found = status(deployment(wanted, slurm_group("stopping"), clusters={"hpc": UNREACHABLE}))
        assert "slurmctld does not answer" in message(found, ConditionType.READY)


def test_what_wants_no_key_is_told() -> None:
    key = ApiKey(secret="llama-api-key", key="api-key", generated=True)
    vllm = slurm_pool(engine=Engine(type=EngineType.VLLM))
    found = status(deployment(desired(vllm, api_key=key))).api_key
    assert found is not None
    assert "/invocations" in found.open_paths
    assert "/v1/chat/completions" not in found.open_paths
    assert status(deployment(desired(vllm))).api_key is None


@pytest.mark.parametrize(
    "observed",
    [
        deployment(desired()),
        deployment(desired(*BOTH, replicas=3), group("ready", "crashing"), slurm_group("pending")),
        deployment(desired(slurm_pool()), slurm_group("failed"), clusters={"hpc": UNREACHABLE}),
        deployment(replace(desired(), deleting=True), group("stopping")),
        deployment(desired(replicas=2), group("joining"), group("ready", revision="old")),
    ],
)
def test_time_alone_changes_nothing(observed: ModelDeploymentObservation) -> None:
    first = status(observed)
    later = status(replace(observed, status=first), now=NOW + 10_000)
    assert later.model_dump() == first.model_dump()


def test_a_transition_time_moves_with_the_word_only() -> None:
    first = status(deployment(desired(replicas=2), group("starting", "starting")))
    more = status(
        deployment(desired(replicas=2), group("ready", "starting"), status=first), now=NOW + 60
    )
    times = {one.type: one.last_transition_time for one in more.conditions}
    assert times[ConditionType.READY] == rfc3339(int(NOW))
    assert times[ConditionType.AVAILABLE] == rfc3339(int(NOW) + 60)


@pytest.mark.parametrize(
    ("endpoint", "shared", "told"),
    [
        (Endpoint(), 0, ("True", Reason.KEY_PER_ATTEMPT)),
        (Endpoint(), 2, ("False", Reason.KEY_SHARED)),
        (Endpoint(type="Service"), 0, ("False", Reason.KEY_SHARED)),
        (Endpoint(type="External", router=Router(kind="envoy")), 0, ("False", Reason.KEY_SHARED)),
    ],
)
def test_h1_it_is_told_whether_jobs_share_a_key(
    endpoint: Endpoint, shared: int, told: tuple[str, str]
) -> None:
    jobs = slurm_group("ready", "ready")
    workers = tuple(
        replace(one, shares_key=number < shared) for number, one in enumerate(jobs.workers)
    )
    key = ApiKey(secret="llama-api-key", key="api-key", generated=True, digest="aaaaaaaaaa")
    wanted = desired(slurm_pool(), replicas=2, api_key=key, endpoint=endpoint)
    found = status(deployment(wanted, replace(jobs, workers=workers)))
    assert said(found, ConditionType.KEYS_SEPARATE) == told
    text = message(found, ConditionType.KEYS_SEPARATE)
    assert ("2 jobs" in text) is (shared > 0)


@pytest.mark.parametrize(
    "wanted",
    [
        desired(slurm_pool()),
        desired(k8s_pool(), api_key=ApiKey(secret="s", key="k", generated=True, digest="a")),
    ],
)
def test_where_no_job_has_a_key_nothing_is_said_of_it(wanted: Desired) -> None:
    found = status(deployment(wanted))
    assert all(one.type != ConditionType.KEYS_SEPARATE for one in found.conditions)


@pytest.mark.parametrize("deleting", [False, True])
def test_l10_more_workers_than_a_status_has_room_for_stop_nothing(deleting):
    """Long drains and many rollouts: the plan raised, so nothing was planned any more."""
    many = replace(
        group(),
        revision="old",
        workers=tuple(worker(f"w-{n:04}", state="busy", revision="old") for n in range(2100)),
    )
    wanted = replace(desired(k8s_pool(), replicas=1), deleting=deleting)
    found = status(deployment(wanted, group("ready"), many))
    assert len(found.workers) == MAX_LISTED_WORKERS
    assert found.omitted_workers == 2101 - MAX_LISTED_WORKERS
    assert found.draining == 2100
    assert "omittedWorkers" in written(found)
    few = status(deployment(replace(wanted, deleting=deleting), group("ready")))
    assert few.omitted_workers is None
