"""SlurmJob objects as workers."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.api.base import ObjectMeta
from isthmus.api.conditions import PendingClass, Phase, Reason
from isthmus.api.slurmjob import JobClusterRef, SlurmJob, SlurmJobSpec, SlurmJobStatus
from isthmus.api.times import epoch, rfc3339
from isthmus.backends.slurm.states import has_a_place
from isthmus.backends.slurm.workers import groups, worker
from tests.unit.builders import ATTEMPT, JOB_NAME, NOW, record, stored


def slurm_job(
    name: str = "llama-hpc-0-x7k2qp",
    *,
    found: SlurmJobStatus | None = None,
    deleting: bool = False,
    **spec: Any,
) -> SlurmJob:
    values = {"pool": "hpc", "slot": 0, "revision": "new", **spec}
    return SlurmJob(
        metadata=ObjectMeta(
            name=name,
            namespace="team-a",
            uid=f"uid-{name}",
            deletion_timestamp=rfc3339(NOW) if deleting else None,
        ),
        spec=SlurmJobSpec(
            cluster_ref=JobClusterRef(name="hpc", namespace="isthmus-system"),
            deployment="llama",
            attempt=ATTEMPT,
            job_name=JOB_NAME,
            **values,
        ),
        status=found,
    )


UID = "uid-llama-hpc-0-x7k2qp"
MEMBERS = frozenset({UID})


def seen(found: SlurmJobStatus | None, **changes: Any) -> Any:
    return worker(slurm_job(found=found, **changes), members=MEMBERS)


def test_ready() -> None:
    found = seen(stored(Phase.READY, end_time=rfc3339(NOW + 60)))
    assert (found.ready, found.in_rotation, found.available, found.serving) == (True,) * 4
    assert (found.job_id, found.node, found.url) == (101, "gpu01", "http://10.10.0.1:41000")
    assert (found.phase, found.healthy, found.pending) == ("Ready", True, None)
    assert found.ends_at == rfc3339(NOW + 60)


def test_ready_and_not_in_the_membership() -> None:
    found = worker(slurm_job(found=stored(Phase.READY)), members=frozenset())
    assert found.ready
    assert not found.available


def test_one_being_deleted_never_counts() -> None:
    found = seen(stored(Phase.READY), deleting=True)
    assert found.stopping
    assert not found.ready
    assert not found.live
    assert found.pending is None


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase.terminal])
def test_ended(phase: Phase) -> None:
    found = seen(stored(phase, finished_at=rfc3339(NOW), reason=Reason.JOB_FAILED))
    assert found.failed
    assert not found.live
    assert not found.serving
    assert found.finished_at == NOW


@pytest.mark.parametrize(
    ("found", "serving"),
    [
        (stored(Phase.READY), True),
        (stored(Phase.DEGRADED), True),
        (stored(Phase.DEGRADED, ever_ready=None), False),
        (None, True),
        (stored(Phase.WAITING), True),
        (stored(Phase.STARTING), True),
        (stored(Phase.PENDING), False),
        (stored(Phase.TERMINATING, ever_ready=True), False),
    ],
)
def test_what_may_carry_requests(found: SlurmJobStatus | None, serving: bool) -> None:
    """All of them are members; one whose status was wiped, or is not written yet, serves too."""
    assert seen(found).serving is serving


def test_a_worker_that_starts_and_is_no_member_serves_nobody() -> None:
    found = worker(slurm_job(found=stored(Phase.STARTING)), members=frozenset())
    assert not found.serving


@pytest.mark.parametrize(
    ("found", "kind", "reason"),
    [
        (None, PendingClass.SUBMISSION, "Waiting"),
        (stored(Phase.WAITING, reason="ControllerUnreachable"), PendingClass.SUBMISSION, None),
        (stored(Phase.SUBMITTING, reason="Submitting"), PendingClass.SUBMISSION, None),
        (stored(Phase.SUBMIT_UNKNOWN, reason="SubmitUnknown"), PendingClass.SUBMISSION, None),
        (stored(Phase.PENDING, reason="PendingResources"), PendingClass.RESOURCES, None),
        (
            stored(Phase.PENDING, reason="PendingResources", state=None),
            PendingClass.SUBMISSION,
            None,
        ),
        (stored(Phase.PENDING, reason="PendingQuota"), PendingClass.QUOTA, None),
        (stored(Phase.PENDING, reason="PendingHeld"), PendingClass.HELD, None),
        (stored(Phase.PENDING, reason="PendingNever"), PendingClass.NEVER, None),
        (stored(Phase.FAILED, reason="SubmitRefused"), PendingClass.NEVER, None),
        (stored(Phase.STARTING, reason="JobStarting"), PendingClass.STARTUP, None),
        (stored(Phase.DEGRADED, reason="ProbeFailed"), PendingClass.FAILING, None),
        (stored(Phase.FAILED, reason="JobFailed"), PendingClass.FAILING, None),
        (stored(Phase.TERMINATING, reason="StartupTimeout"), PendingClass.FAILING, None),
    ],
)
def test_why_it_is_not_ready(
    found: SlurmJobStatus | None, kind: PendingClass, reason: str | None
) -> None:
    cause = seen(found).pending
    assert cause is not None
    assert cause.pending_class is kind
    assert cause.reason == (reason or (found.reason if found else ""))


def test_since_when() -> None:
    submitted = stored(Phase.PENDING)
    cause = seen(submitted).pending
    assert cause is not None
    assert cause.since == epoch(submitted.submit_time)
    early = seen(stored(Phase.SUBMIT_UNKNOWN)).pending
    assert early is not None
    assert early.since == NOW - 130


def test_groups_by_pool_and_revision_count_what_is_live() -> None:
    found = groups(
        jobs=[
            slurm_job("c", slot=2, found=stored(Phase.PENDING)),
            slurm_job("a", slot=0, found=stored(Phase.READY)),
            slurm_job("b", slot=1, found=stored(Phase.FAILED)),
            slurm_job("d", slot=3, found=stored(Phase.READY), deleting=True),
            slurm_job("e", slot=4, revision="old", found=stored(Phase.READY)),
            slurm_job("f", slot=0, pool="other"),
        ],
        members=frozenset({"uid-a", "uid-d"}),
    )
    assert [(one.pool, one.revision, one.wanted, one.available) for one in found] == [
        ("hpc", "new", 2, 1),
        ("hpc", "old", 1, 0),
        ("other", "new", 1, 0),
    ]
    assert [one.slot for one in found[0].workers] == [0, 1, 2, 3]
    assert all(one.exists for one in found)


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("PENDING", PendingClass.RESOURCES),
        ("CONFIGURING", PendingClass.STARTUP),
        ("RUNNING", PendingClass.STARTUP),
    ],
)
def test_seed_10093_who_has_a_place_is_not_counted_as_one_that_waits(
    state: str, kind: PendingClass
) -> None:
    """After some time without a look the queue is ahead of the statuses: it counts."""
    waits = slurm_job(found=stored(Phase.PENDING, reason=Reason.PENDING_RESOURCES, state="PENDING"))
    shown = [record(state)]
    (group,) = groups(
        jobs=[waits],
        members=frozenset(),
        started=lambda job: any(map(has_a_place, shown)),
    )
    (found,) = group.workers
    assert found.pending is not None
    assert found.pending.pending_class is kind
