"""What is done for one ModelDeployment, observation by observation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from isthmus.api.conditions import PendingClass, Phase
from isthmus.backends.base import WorkerGroup
from isthmus.modeldeployment.actions import (
    CreateDeployment,
    CreateRevision,
    CreateSlurmJob,
    DeleteDeployment,
    DeleteRevision,
    DeleteSlurmJob,
    DeploymentAction,
    DrainPods,
    EnsureService,
    FreezeDeployment,
    ScaleDeployment,
    may_wait,
)
from isthmus.modeldeployment.observation import ModelDeploymentObservation
from isthmus.modeldeployment.plan import plan_model_deployment
from isthmus.rules.actions import AddFinalizer, RemoveFinalizer
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
    slurm_worker,
)

BOTH = (k8s_pool(priority=10, max_replicas=2), slurm_pool())


def actions(observed: ModelDeploymentObservation, *, now: float = NOW) -> list[DeploymentAction]:
    return list(plan_model_deployment(observed, now=now).actions)


def jobs(*workers: Any, revision: str = "new") -> WorkerGroup:
    """A SLURM group of hand-made workers."""
    return WorkerGroup(
        pool="hpc",
        backend="slurm",
        revision=revision,
        wanted=sum(one.live for one in workers),
        workers=tuple(workers),
    )


class TestCreate:
    def test_the_finalizer_comes_before_any_attempt_exists(self) -> None:
        for wanted, groups in (
            (desired(*BOTH, replicas=3), ()),
            (desired(), (slurm_group("ready", revision="old"),)),
        ):
            observed = deployment(wanted, *groups, has_finalizer=False)
            found = plan_model_deployment(observed, now=NOW)
            assert found.actions[0] == AddFinalizer()
            assert len(found.actions) > 1

    def test_a_deployment_waits_for_nothing(self) -> None:
        """What its pods need is all in it, and it goes with its owner."""
        observed = deployment(desired(), has_finalizer=False, service_ok=False)
        found = plan_model_deployment(observed, now=NOW).actions
        assert [each for each in found if not may_wait(each)] == [
            CreateDeployment(pool="k8s", revision="new", replicas=1)
        ]
        assert {AddFinalizer(later=True), EnsureService()} <= set(found)

    def test_a_deployment_is_frozen_once_it_is_there(self) -> None:
        freeze = FreezeDeployment(pool="k8s", revision="new")
        assert freeze not in actions(deployment(desired()))
        assert actions(deployment(desired(), group("pending"), revisions=[])) == [freeze]
        assert may_wait(freeze)
        assert actions(deployment(desired(), group("pending"))) == []

    def test_of_an_older_revision_nobody_knows_what_was_written(self) -> None:
        observed = deployment(
            desired(), group("ready", revision="old"), group("ready"), revisions=[("k8s", "new")]
        )
        assert not any(isinstance(each, FreezeDeployment) for each in actions(observed))

    def test_everything_from_nothing(self) -> None:
        observed = deployment(desired(*BOTH, replicas=3), service_ok=False)
        assert actions(observed) == [
            CreateDeployment(pool="k8s", revision="new", replicas=2),
            CreateRevision(pool="hpc", revision="new"),
            CreateSlurmJob(pool="hpc", revision="new", slot=0),
            EnsureService(),
        ]

    def test_a_known_revision_is_not_frozen_again(self) -> None:
        observed = deployment(
            desired(*BOTH, replicas=3), revisions=[("k8s", "new"), ("hpc", "new")]
        )
        assert not any(isinstance(action, CreateRevision) for action in actions(observed))

    def test_nothing_to_do_where_all_is_there(self) -> None:
        observed = deployment(
            desired(*BOTH, replicas=3), group("ready", "ready"), slurm_group("ready")
        )
        assert actions(observed) == []

    def test_a_pool_that_gets_nothing_makes_nothing(self) -> None:
        assert actions(deployment(desired(*BOTH, replicas=0))) == []


class TestScale:
    def test_one_four_two_on_kubernetes(self) -> None:
        up = deployment(desired(replicas=4), group("ready"))
        assert actions(up) == [ScaleDeployment(pool="k8s", revision="new", replicas=4)]
        down = deployment(desired(replicas=2), group(*["ready"] * 4))
        (drain,) = actions(down)
        assert isinstance(drain, DrainPods)
        assert (drain.count, drain.since, len(drain.candidates)) == (2, NOW, 4)

    def test_one_four_two_on_slurm(self) -> None:
        wanted = desired(slurm_pool(), replicas=4)
        assert actions(deployment(wanted, slurm_group("ready"))) == [
            CreateSlurmJob(pool="hpc", revision="new", slot=slot) for slot in (1, 2, 3)
        ]
        down = deployment(replace(wanted, replicas=2), slurm_group(*["ready"] * 4))
        assert actions(down) == [
            DeleteSlurmJob(name=f"hpc-new-{slot}", uid=f"uid-hpc-new-{slot}") for slot in (3, 2)
        ]

    def test_a_removed_pool_of_jobs_ends_with_the_pool(self) -> None:
        observed = deployment(
            desired(replicas=1), group("ready"), slurm_group("ready", "pending"), clusters={}
        )
        assert {action.name for action in actions(observed) if isinstance(action, DeleteSlurmJob)} \
            == {"hpc-new-0", "hpc-new-1"}  # fmt: skip

    def test_the_deployment_of_the_current_revision_stays_at_zero(self) -> None:
        observed = deployment(desired(replicas=0), group("starting"))
        assert actions(observed) == [ScaleDeployment(pool="k8s", revision="new", replicas=0)]
        assert actions(deployment(desired(replicas=0), group(wanted=0))) == []

    @pytest.mark.parametrize(
        ("states", "victim"),
        [
            (["ready", "starting", "degraded"], 1),
            (["ready", "degraded", "ready"], 1),
            (["starting", "pending", "ready"], 1),
            (["starting", "waiting", "pending"], 1),
            (["starting", "starting", "starting"], 2),
            (["joining", "ready", "ready"], 0),
            (["degraded", "ejected", "ready"], 1),
            (["ready", "ready", "ready"], 2),
        ],
    )
    def test_the_cheapest_job_goes_first(self, states: list[str], victim: int) -> None:
        observed = deployment(desired(slurm_pool(), replicas=2), slurm_group(*states))
        assert [action for action in actions(observed) if isinstance(action, DeleteSlurmJob)] == [
            DeleteSlurmJob(name=f"hpc-new-{victim}", uid=f"uid-hpc-new-{victim}")
        ]

    def test_somebody_elses_scaling_is_put_back(self) -> None:
        observed = deployment(desired(replicas=2), group("ready", "ready", wanted=1))
        assert actions(observed) == [ScaleDeployment(pool="k8s", revision="new", replicas=2)]

    def test_a_slot_is_used_again_when_it_is_free(self) -> None:
        """Of the slots 0 (ready), 1 (being stopped), 2 (failed long ago) and 3 (ready)."""
        observed = deployment(
            desired(slurm_pool(), replicas=4),
            jobs(
                slurm_worker("a", slot=0),
                slurm_worker("b", slot=1, state="stopping"),
                slurm_worker("c", slot=2, state="failed", finished_at=NOW - 600),
                slurm_worker("d", slot=3),
            ),
        )
        assert actions(observed) == [
            CreateSlurmJob(pool="hpc", revision="new", slot=slot) for slot in (2, 4)
        ]

    def test_slots_of_the_old_revision_are_taken(self) -> None:
        observed = deployment(
            desired(slurm_pool(), replicas=1),
            jobs(slurm_worker("old", revision="old", slot=0), revision="old"),
        )
        assert CreateSlurmJob(pool="hpc", revision="new", slot=1) in actions(observed)


class TestUpdate:
    OLD = group("ready", "ready", revision="old")

    def test_the_new_revision_is_tried_first(self) -> None:
        assert actions(deployment(desired(replicas=2), self.OLD)) == [
            CreateDeployment(pool="k8s", revision="new", replicas=1),
        ]

    def test_then_one_is_exchanged_for_one(self) -> None:
        observed = deployment(desired(replicas=2), group("ready"), self.OLD)
        old = tuple(reversed([one.name for one in self.OLD.workers]))
        assert actions(observed) == [
            DrainPods(pool="k8s", revision="old", count=1, candidates=old, since=NOW),
            ScaleDeployment(pool="k8s", revision="new", replicas=2),
        ]

    @pytest.mark.parametrize("new", ["starting", "pending"])
    def test_a_rollout_that_waits_says_for_what(self, new: str) -> None:
        wanted = desired(slurm_pool(), replicas=1)
        old = slurm_group("ready", revision="old")
        found = plan_model_deployment(deployment(wanted, slurm_group(new), old), now=NOW)
        assert found.actions == ()
        (message,) = [one.message for one in found.status.conditions if one.type == "Progressing"]
        assert "pool hpc: the workers that are to go are kept until another one" in message

    def test_the_empty_deployment_of_an_old_revision_goes(self) -> None:
        for old, expected in (
            (group("stopping", wanted=0, revision="old"), []),
            (group(wanted=0, revision="old"), [DeleteDeployment(pool="k8s", revision="old")]),
            # An evicted pod stays until then: seed 354 before there were keys.
            (
                group("failed", wanted=0, revision="old"),
                [DeleteDeployment(pool="k8s", revision="old")],
            ),
            (group("failed", "stopping", wanted=0, revision="old"), []),
        ):
            observed = deployment(desired(replicas=2), group("ready", "ready"), old)
            assert actions(observed) == expected

    def test_jobs_are_replaced_one_by_one(self) -> None:
        wanted = desired(slurm_pool(), replicas=2)
        old = slurm_group("ready", "ready", revision="old")
        observed = deployment(wanted, old)
        assert actions(observed) == [
            CreateRevision(pool="hpc", revision="new"),
            CreateSlurmJob(pool="hpc", revision="new", slot=2),
        ]
        ready = jobs(slurm_worker("n", slot=2))
        assert actions(deployment(wanted, ready, old)) == [
            DeleteSlurmJob(name="hpc-old-1", uid="uid-hpc-old-1"),
            CreateSlurmJob(pool="hpc", revision="new", slot=3),
        ]

    def test_going_back_is_scaling_the_old_one_up_again(self) -> None:
        observed = deployment(
            desired(replicas=2), self.OLD, group("crashing"), current={"k8s": "old"}
        )
        assert actions(observed) == [ScaleDeployment(pool="k8s", revision="new", replicas=0)]


class TestUnreachable:
    """Rule 2: nothing is created or deleted on what cannot be seen; the rest goes on."""

    @pytest.mark.parametrize("replicas", [0, 1, 3, 5])
    @pytest.mark.parametrize("revision", ["new", "old"])
    def test_the_pool_is_left_alone(self, replicas: int, revision: str) -> None:
        observed = deployment(
            desired(*BOTH, replicas=replicas),
            slurm_group("ready", "pending", revision=revision),
            clusters={"hpc": UNREACHABLE},
        )
        assert not any(
            isinstance(action, CreateSlurmJob | DeleteSlurmJob)
            or (isinstance(action, CreateRevision) and action.pool == "hpc")
            for action in actions(observed)
        )

    def test_kubernetes_goes_on(self) -> None:
        observed = deployment(
            desired(*BOTH, replicas=3), slurm_group("ready"), clusters={"hpc": UNREACHABLE}
        )
        assert CreateDeployment(pool="k8s", revision="new", replicas=2) in actions(observed)

    def test_replicas_that_leave_the_cluster_come_up_on_kubernetes_at_once(self) -> None:
        observed = deployment(
            desired(k8s_pool(), replicas=3),
            slurm_group("degraded", "degraded", "degraded"),
            clusters={"hpc": UNREACHABLE},
        )
        assert actions(observed) == [
            CreateDeployment(pool="k8s", revision="new", replicas=3),
        ]

    def test_a_pool_can_leave_the_cluster_under_its_own_name(self) -> None:
        """Its jobs are left alone, and do not hold up the pods that take over."""
        observed = deployment(
            desired(k8s_pool("hpc"), replicas=2),
            slurm_group("ready", "pending", revision="old"),
            clusters={"hpc": UNREACHABLE},
        )
        found = plan_model_deployment(observed, now=NOW)
        assert list(found.actions) == [
            CreateDeployment(pool="hpc", revision="new", replicas=2),
        ]
        assert (found.status.pools[0].desired, found.status.pools[0].pending) == (2, None)
        back = replace(observed, clusters={"hpc": REACHABLE})
        assert DeleteSlurmJob(name="hpc-old-1", uid="uid-hpc-old-1") in actions(back)
        assert DeleteSlurmJob(name="hpc-old-0", uid="uid-hpc-old-0") not in actions(back)

    def test_a_cluster_that_does_not_exist_gets_nothing(self) -> None:
        missing = replace(UNREACHABLE, reason="ClusterNotFound", message="create it")
        observed = deployment(desired(slurm_pool(), replicas=2), clusters={"hpc": missing})
        assert actions(observed) == []


class TestBackOff:
    WANTED = desired(slurm_pool(), replicas=2)

    def failed(self, count: int, **changes: Any) -> WorkerGroup:
        ended = [
            slurm_worker(f"f{n}", slot=n, state="failed", finished_at=NOW - 4 - 60 * n, **changes)
            for n in range(count)
        ]
        return jobs(*ended)

    @pytest.mark.parametrize(("count", "delay"), [(1, 10), (2, 20), (3, 40), (6, 300)])
    def test_the_next_attempt_waits_and_the_moment_is_known(self, count: int, delay: float) -> None:
        found = plan_model_deployment(deployment(self.WANTED, self.failed(count)), now=NOW)
        assert found.actions == ()
        assert found.requeue_after == pytest.approx(delay - 4)

    def test_then_it_is_made(self) -> None:
        observed = deployment(self.WANTED, self.failed(2))
        assert actions(observed, now=NOW + 16) == [
            CreateSlurmJob(pool="hpc", revision="new", slot=slot) for slot in (0, 1)
        ]

    @pytest.mark.parametrize("phase", [Phase.EXPIRED, Phase.PREEMPTED, Phase.NODE_FAULT])
    def test_what_was_not_its_fault_is_replaced_at_once(self, phase: Phase) -> None:
        assert len(actions(deployment(self.WANTED, self.failed(2, phase=phase)))) == 2

    def test_a_corrected_revision_does_not_wait(self) -> None:
        old = self.failed(3)
        old = replace(old, revision="old", workers=tuple(
            replace(one, revision="old") for one in old.workers
        ))  # fmt: skip
        made = [a for a in actions(deployment(self.WANTED, old)) if isinstance(a, CreateSlurmJob)]
        assert len(made) == 2

    def test_nothing_waits_where_nothing_is_missing(self) -> None:
        ended = slurm_worker("f", slot=5, state="failed", finished_at=NOW - 1)
        full = jobs(slurm_worker("a", slot=0), slurm_worker("b", slot=1), ended)
        assert plan_model_deployment(deployment(self.WANTED, full), now=NOW).requeue_after is None


class TestForgetting:
    def test_the_latest_ended_attempts_stay_for_a_while(self) -> None:
        live = [slurm_worker("live", slot=99)]
        ended = [
            slurm_worker(f"f{n}", slot=n, state="failed", finished_at=NOW - 10 * n)
            for n in range(8)
        ]
        old = slurm_worker("old", slot=50, state="failed", finished_at=NOW - 4000)
        observed = deployment(desired(slurm_pool(), replicas=1), jobs(*live, *ended, old))
        assert {action.name for action in actions(observed) if isinstance(action, DeleteSlurmJob)} \
            == {"f6", "f7", "old"}  # fmt: skip

    def test_those_of_other_revisions_go_at_once(self) -> None:
        observed = deployment(
            desired(slurm_pool(), replicas=1),
            jobs(slurm_worker("live")),
            jobs(slurm_worker("f", revision="old", state="failed"), revision="old"),
        )
        assert actions(observed) == [DeleteSlurmJob(name="f", uid="uid-f")]

    def test_failed_pods_are_left_to_kubernetes(self) -> None:
        observed = deployment(desired(replicas=1), group("ready", "failed", wanted=1))
        assert actions(observed) == []

    def test_the_latest_revisions_stay(self) -> None:
        known = [("k8s", f"r{n}") for n in range(5)] + [("k8s", "new"), ("gone", "x")]
        observed = deployment(desired(replicas=1), group("ready"), revisions=known)
        assert actions(observed) == [
            DeleteRevision(pool="gone", revision="x"),
            DeleteRevision(pool="k8s", revision="r1"),
            DeleteRevision(pool="k8s", revision="r0"),
        ]

    def test_a_revision_that_still_runs_stays(self) -> None:
        known = [("k8s", f"r{n}") for n in range(5)]
        observed = deployment(
            desired(replicas=1), group("ready"), group("ready", revision="r0"), revisions=known
        )
        assert DeleteRevision(pool="k8s", revision="r0") not in actions(observed)


class TestDelete:
    WANTED = replace(desired(*BOTH, replicas=3), deleting=True)

    def test_everything_is_ended_and_the_finalizer_stays(self) -> None:
        observed = deployment(self.WANTED, group("ready"), slurm_group("ready", "failed"))
        assert actions(observed) == [
            DeleteDeployment(pool="k8s", revision="new"),
            DeleteSlurmJob(name="hpc-new-0", uid="uid-hpc-new-0"),
            DeleteSlurmJob(name="hpc-new-1", uid="uid-hpc-new-1"),
        ]

    @pytest.mark.parametrize(
        "left",
        [
            pytest.param(slurm_group("stopping"), id="a job"),
            pytest.param(group("stopping", wanted=0, exists=False), id="a pod"),
            pytest.param(slurm_group("stopping", pool="gone"), id="a job of a removed pool"),
        ],
    )
    def test_what_is_ending_is_waited_for(self, left: WorkerGroup) -> None:
        assert actions(deployment(self.WANTED, left)) == []

    def test_the_last_one_lets_go(self) -> None:
        assert actions(deployment(self.WANTED)) == [RemoveFinalizer()]
        assert actions(deployment(self.WANTED, has_finalizer=False)) == []

    def test_an_unreachable_cluster_holds_it(self) -> None:
        observed = deployment(self.WANTED, slurm_group("stopping"), clusters={"hpc": UNREACHABLE})
        assert actions(observed) == []


def test_the_worst_case_of_quota_changes_no_numbers() -> None:
    problem = pending(PendingClass.QUOTA, "FailedCreate", "exceeded quota")
    observed = deployment(desired(replicas=2), group(wanted=2, problem=problem))
    assert actions(observed) == []
