"""Workers whose jobs come to their time limit are replaced before that, however many at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.api.conditions import Reason
from isthmus.api.times import rfc3339
from isthmus.backends.base import WorkerGroup
from isthmus.modeldeployment.actions import CreateSlurmJob, DeleteSlurmJob
from isthmus.modeldeployment.observation import ModelDeploymentObservation
from isthmus.modeldeployment.plan import plan_model_deployment
from isthmus.modeldeployment.policy.displacement import walltime
from tests.unit.builders import NOW, deployment, desired, slurm_pool, slurm_worker

HOUR = 3600.0
LEAD = 2100.0
"""A start of at most 1800 s and a drain of at most 300 s: the defaults."""


def observed(
    *workers: tuple[float, float | None, str | None], replicas: int
) -> ModelDeploymentObservation:
    """Ready workers `hpc-<n>` by start, end (seconds from now) and whom they replace."""
    found = tuple(
        slurm_worker(
            f"hpc-{n}",
            slot=n,
            started_at=rfc3339(NOW + start),
            ends_at=None if end is None else rfc3339(NOW + end),
            replaces=replaces,
        )
        for n, (start, end, replaces) in enumerate(workers)
    )
    group = WorkerGroup(
        pool="hpc", backend="slurm", revision="new", wanted=len(found), workers=found
    )
    return deployment(desired(slurm_pool(), replicas=replicas), group, revisions=[("hpc", "new")])


@pytest.mark.parametrize(
    ("start", "end", "lead"),
    [
        (-8 * HOUR, HOUR, LEAD),
        (-900.0, 300.0, 300.0),
        (-HOUR, HOUR, 1800.0),
        (-9 * HOUR, -1.0, LEAD),
    ],
)
def test_the_lead_is_a_start_and_a_drain_and_at_most_a_quarter(
    start: float, end: float, lead: float
) -> None:
    (found,) = walltime.displaced(observed((start, end, None), replicas=1))
    assert found.ready_by == pytest.approx(NOW + end - lead, abs=1)
    assert found.involuntary
    assert found.reason is Reason.TIME_LIMIT_NEAR


def test_two_that_are_due_at_once_get_two_successors_in_their_slots() -> None:
    due = (-8 * HOUR, 2000.0, None)
    assert plan_model_deployment(observed(due, due, replicas=2), now=NOW).actions == (
        CreateSlurmJob(pool="hpc", revision="new", slot=0, replaces="hpc-0"),
        CreateSlurmJob(pool="hpc", revision="new", slot=1, replaces="hpc-1"),
    )


def test_each_goes_when_as_many_serve_as_are_wanted() -> None:
    due, new = (-8 * HOUR, 2000.0, None), (-60.0, 8 * HOUR, "hpc-1")
    found = plan_model_deployment(observed(due, due, new, replicas=2), now=NOW).actions
    assert DeleteSlurmJob(name="hpc-1", uid="uid-hpc-1") in found
    assert DeleteSlurmJob(name="hpc-0", uid="uid-hpc-0") not in found


def test_before_that_nothing_happens_and_the_moment_is_known() -> None:
    plan = plan_model_deployment(observed((-HOUR, 8 * HOUR, None), replicas=1), now=NOW)
    assert plan.actions == ()
    assert plan.requeue_after == pytest.approx(8 * HOUR - LEAD, abs=1)


def test_a_job_without_an_end_is_never_due() -> None:
    assert walltime.displaced(observed((-HOUR, None, None), replicas=1)) == ()


@given(
    st.lists(
        st.tuples(st.floats(-1e6, -60), st.none() | st.floats(-60, 1e6), st.none()), max_size=5
    ),
    st.integers(0, 5),
)
def test_every_due_worker_has_a_successor_of_its_own(
    workers: list[tuple[float, float | None, None]], replicas: int
) -> None:
    found = observed(*workers, replicas=replicas)
    due = {one.worker for one in walltime.displaced(found) if one.due(now=NOW)}
    actions = plan_model_deployment(found, now=NOW).actions
    made = [one.replaces for one in actions if isinstance(one, CreateSlurmJob)]
    gone = {one.name for one in actions if isinstance(one, DeleteSlurmJob)}
    bound = [name for name in made if name is not None]
    assert len(set(bound)) == len(bound)
    assert set(bound) <= due - gone
    assert len(made) == max(0, replicas - (len(workers) - len(due)))
