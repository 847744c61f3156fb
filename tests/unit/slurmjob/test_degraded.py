"""A worker that was ready and stays unwell is replaced; one that only we cannot see is not."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.api.conditions import Phase, Reason
from isthmus.api.times import rfc3339
from isthmus.slurmjob.actions import Cancel, DeleteSlice
from isthmus.slurmjob.observation import Network, SlurmJobPlan
from isthmus.slurmjob.plan import plan_slurm_job
from tests.unit.builders import MEMBER, NOW, PUBLISHED, RULES, job, record, status

LIMIT = RULES.startup_timeout


def plan(*, since: float | None, probe: str, now: float = NOW, **changes: Any) -> SlurmJobPlan:
    stamp = None if since is None else rfc3339(since)
    observed = job(
        record(comment=PUBLISHED),
        status=status(Phase.DEGRADED, degraded_since=stamp),
        probe_healthy=False,
        probe_reason=probe,
        **changes,
    )
    return plan_slurm_job(observed, now=now)


def test_its_time_begins_with_the_first_verdict() -> None:
    found = plan(since=None, probe="NotReady")
    assert found.status.degraded_since == NOW
    assert found.actions == ()
    assert found.requeue_after == pytest.approx(LIMIT)


def test_an_engine_that_says_itself_that_it_is_unwell_is_given_up() -> None:
    found = plan(since=NOW - LIMIT, probe="NotReady", slice_target=MEMBER)
    assert found.actions == (DeleteSlice(), Cancel(job_id=101))
    assert found.status.phase == Phase.TERMINATING
    assert found.status.reason == Reason.PROBE_FAILED
    assert "health.startupTimeout" in (found.status.message or "")


@pytest.mark.parametrize("probe", ["Timeout", "Refused", "HttpError"])
def test_silence_counts_only_while_another_worker_answers(probe: str) -> None:
    unseen = plan(since=NOW - 10 * LIMIT, probe=probe)
    assert unseen.actions == ()
    # The first that answers when a network heals must not condemn the others at once.
    assert unseen.status.degraded_since is None
    found = plan(since=NOW - LIMIT, probe=probe, others_answer=True)
    assert found.actions == (Cancel(job_id=101),)


def test_a_cluster_that_is_not_seen_ends_nothing() -> None:
    found = plan(
        since=NOW - 10 * LIMIT,
        probe="NotReady",
        cluster_changes={"fresh": False, "reason": "ControllerUnreachable", "message": "down"},
    )
    assert found.actions == ()


@pytest.mark.parametrize("probe", ["Timeout", "Refused"])
def test_silence_through_a_tunnel_is_not_the_engines(probe: str) -> None:
    """Its host may be dead, and has not said yet that the way is broken."""
    found = plan(since=NOW - LIMIT, probe=probe, others_answer=True, network=Network(mode="Tunnel"))
    assert found.actions == ()
    assert found.status.degraded_since is None


@pytest.mark.parametrize("probe", ["WrongModel", "WrongAttempt"])
@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.READY, Phase.DEGRADED])
def test_h1_an_attempt_whose_address_somebody_else_has_is_replaced_at_once(
    phase: Phase, probe: str
) -> None:
    """The question that found him out has told him the attempt's key."""

    def found(**changes: Any) -> SlurmJobPlan:
        observed = job(
            record(comment=PUBLISHED),
            status=status(phase),
            probe_healthy=False,
            probe_reason=probe,
            probe_message="serves other instead of llama",
            **changes,
        )
        return plan_slurm_job(observed, now=NOW)

    over = found(probe_age=1.0)
    assert over.actions == (Cancel(job_id=101),)
    assert (over.status.phase, over.status.reason) == (
        Phase.TERMINATING,
        Reason.IDENTITY_MISMATCH,
    )
    assert "serves other instead of llama" in (over.status.message or "")
    asked = found(probe_age=60.0)  # what is said of it is a minute old
    assert (asked.actions, asked.probe_now) == ((), True)
    unseen = {"fresh": False, "reason": "ControllerUnreachable", "message": "down"}
    assert found(cluster_changes=unseen).actions == ()


def test_a_status_alone_replaces_no_attempt() -> None:
    """After a restart it says what probes found long ago, and none has been made since."""
    observed = job(
        record(comment=PUBLISHED),
        status=status(Phase.DEGRADED, reason=Reason.IDENTITY_MISMATCH),
        probe_healthy=None,
    )
    assert plan_slurm_job(observed, now=NOW).actions == ()


def test_the_last_word_is_that_of_a_fresh_probe() -> None:
    """After a minute of back-off the last answer may be a minute old, and the engine well again."""
    asked = plan(since=NOW - LIMIT, probe="NotReady", probe_age=60.0)
    assert asked.actions == ()
    assert asked.probe_now
    assert asked.requeue_after == pytest.approx(2.0)
    assert plan(since=NOW - LIMIT, probe="NotReady", probe_age=1.0).actions == (Cancel(job_id=101),)
    assert not plan(since=NOW - 1.0, probe="NotReady", probe_age=60.0).probe_now


def test_one_that_is_well_again_has_all_its_time_next_time() -> None:
    observed = job(
        record(comment=PUBLISHED),
        status=status(Phase.DEGRADED, degraded_since=rfc3339(NOW - LIMIT)),
        probe_healthy=True,
    )
    found = plan_slurm_job(observed, now=NOW)
    assert found.status.phase == Phase.READY
    assert found.status.degraded_since is None
