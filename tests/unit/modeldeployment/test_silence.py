"""A pool of which no worker answers: one successor shows whether they fail or the way to them."""

from __future__ import annotations

import pytest

from isthmus.api.conditions import Reason
from isthmus.backends.base import Worker, WorkerGroup
from isthmus.modeldeployment.actions import CreateRevision, CreateSlurmJob, DeleteSlurmJob
from isthmus.modeldeployment.observation import ModelDeploymentObservation, Reachability
from isthmus.modeldeployment.plan import plan_model_deployment
from tests.unit.builders import NOW, deployment, desired, slurm_pool, slurm_worker

STARTUP = desired(slurm_pool(), replicas=1).health.startup_timeout
LONG = NOW - STARTUP


def silent(number: int, *, since: float = LONG) -> Worker:
    """Its probes fail, and it is left in rotation as the last one."""
    return slurm_worker(
        f"hpc-{number}", state="degraded", slot=number, in_rotation=True, silent_since=since
    )


def answers(number: int, *, state: str = "ready", replaces: str | None = None) -> Worker:
    return slurm_worker(f"hpc-{number}", state=state, slot=number, replaces=replaces)


def observed(*workers: Worker, replicas: int, reachable: bool = True) -> ModelDeploymentObservation:
    group = WorkerGroup(
        pool="hpc",
        backend="slurm",
        revision="new",
        wanted=sum(one.live for one in workers),
        workers=workers,
    )
    clusters = {"hpc": Reachability(reachable=reachable)}
    return deployment(desired(slurm_pool(), replicas=replicas), group, clusters=clusters)


def moves(found: ModelDeploymentObservation) -> list[object]:
    actions = plan_model_deployment(found, now=NOW).actions
    return [one for one in actions if not isinstance(one, CreateRevision)]


def successor(number: int) -> CreateSlurmJob:
    return CreateSlurmJob(pool="hpc", revision="new", slot=number, replaces=f"hpc-{number}")


def test_seed_9875_the_only_worker_gets_a_successor_and_is_not_ended() -> None:
    assert moves(observed(silent(0), replicas=1)) == [successor(0)]


@pytest.mark.parametrize("state", ["pending", "starting", "joining", "ready"])
def test_it_does_not_go_because_its_successor_serves(state: str) -> None:
    """Our view may have healed a moment ago, and the newer one be asked more often."""
    there = answers(1, state=state, replaces="hpc-0")
    assert moves(observed(silent(0), there, replicas=1)) == []


def test_if_it_answers_again_there_is_one_too_many() -> None:
    found = moves(observed(answers(0), answers(1, replaces="hpc-0"), replicas=1))
    assert [type(one) for one in found] == [DeleteSlurmJob]


def test_not_before_it_has_been_silent_as_long_as_a_start_may_take() -> None:
    early = observed(silent(0, since=LONG + 60), replicas=1)
    assert moves(early) == []
    assert plan_model_deployment(early, now=NOW).requeue_after == 60


def test_a_view_that_fails_makes_one_new_worker_and_not_as_many_as_there_are() -> None:
    all_silent = (silent(0), silent(1, since=LONG - 9), silent(2))
    assert moves(observed(*all_silent, replicas=3)) == [successor(1)]
    for state in ("pending", "ready"):
        there = answers(3, state=state, replaces="hpc-1")
        assert moves(observed(*all_silent, there, replicas=3)) == []


def test_where_another_one_answers_the_silent_one_is_given_up_by_itself() -> None:
    assert moves(observed(silent(0), answers(1), replicas=2)) == []


def test_nothing_where_the_cluster_cannot_be_seen() -> None:
    assert moves(observed(silent(0), replicas=1, reachable=False)) == []


@pytest.mark.parametrize("replicas", [0, 1])
def test_silent_ones_that_are_not_wanted_go(replicas: int) -> None:
    found = moves(observed(silent(0), silent(1), replicas=replicas))
    assert sum(isinstance(one, DeleteSlurmJob) for one in found) == 2 - replicas


def test_the_status_says_who_and_why() -> None:
    (listed,) = plan_model_deployment(observed(silent(0), replicas=1), now=NOW).status.workers
    assert listed.displaced is not None
    assert listed.displaced.reason == Reason.PROBE_FAILED
    assert (
        "another one shows whether they fail or the connection to them does"
        in listed.displaced.message
    )
