"""What SLURM's words mean: the tables of states, reasons and error texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.api.texts import one_line
from isthmus.backends.slurm.reasons import (
    OUTAGE_ADVICE,
    PendingClass,
    classify,
    first_word,
    never_after,
    outage,
    spoken,
    unblocked_by,
)
from isthmus.backends.slurm.records import JobRecord, NodeRecord
from isthmus.backends.slurm.states import (
    JobState,
    exit_status,
    gate_refused,
    node_down,
    node_draining,
    node_maintenance,
    node_suspect,
    node_usable,
    observe,
    work_directory_failed,
)


def job(state: str, *, reason: str = "", restart_count: int = 0, exit_code: int = 0) -> JobRecord:
    return JobRecord(
        job_id=1,
        name="llama-a-b-0-x7k2qp",
        state=state,
        restart_count=restart_count,
        batch_host="gpu01",
        nodes="gpu01",
        submit_time=1,
        start_time=2,
        end_time=3,
        time_limit_minutes=60,
        exit_code=exit_code,
        partition="gpu",
        qos="",
        reason=reason,
        comment="",
    )


def node(*states: str) -> NodeRecord:
    return NodeRecord(
        name="gpu01",
        address="10.0.0.1",
        states=frozenset(states),
        reason="",
        partitions=frozenset({"gpu"}),
    )


@pytest.mark.parametrize(
    ("word", "state", "live"),
    [
        ("PENDING", JobState.Pending, True),
        ("CONFIGURING", JobState.Starting, True),
        ("RUNNING", JobState.Running, True),
        ("SUSPENDED", JobState.Suspended, True),
        ("STOPPED", JobState.Suspended, True),
        ("RESIZING", JobState.Transient, True),
        ("SIGNALING", JobState.Transient, True),
        ("COMPLETING", JobState.Completing, True),
        ("STAGE_OUT", JobState.Completing, True),
        ("REQUEUED", JobState.Requeued, True),
        ("REQUEUE_HOLD", JobState.Blocked, True),
        ("SPECIAL_EXIT", JobState.Blocked, True),
        ("SOMETHING_NEW", JobState.Unknown, True),
        ("", JobState.Unknown, True),
        ("F", JobState.Unknown, True),
        ("REVOKED", JobState.Cancelled, False),
        ("COMPLETED", JobState.Finished, False),
        ("CANCELLED", JobState.Cancelled, False),
        ("CANCELLED by 1001", JobState.Cancelled, False),
        ("FAILED", JobState.Failed, False),
        ("TIMEOUT", JobState.Expired, False),
        ("DEADLINE", JobState.Failed, False),
        ("NODE_FAIL", JobState.NodeFault, False),
        ("BOOT_FAIL", JobState.NodeFault, False),
        ("PREEMPTED", JobState.Preempted, False),
        ("OUT_OF_MEMORY", JobState.OutOfMemory, False),
    ],
)
def test_state_words(word: str, state: JobState, live: bool) -> None:
    assert observe(job(word)) is state
    assert observe(job(word)).live is live


def test_trace_of_a_refused_submission_is_not_a_failure() -> None:
    assert observe(job("FAILED", reason="BadConstraints", exit_code=1)) is JobState.Refused
    assert observe(job("PENDING", reason="BadConstraints")) is JobState.Pending


def test_pending_job_that_was_started_before_was_requeued() -> None:
    assert observe(job("PENDING", reason="BeginTime", restart_count=1)) is JobState.Requeued
    assert observe(job("RUNNING", restart_count=1)) is JobState.Running


def test_exit_codes() -> None:
    assert exit_status(job("FAILED", exit_code=768)) == 3
    assert exit_status(job("FAILED", exit_code=9)) == 137
    assert gate_refused(job("FAILED", exit_code=75 << 8))
    assert not gate_refused(job("RUNNING", exit_code=75 << 8))
    assert not gate_refused(job("FAILED", exit_code=75))
    assert work_directory_failed(job("FAILED", exit_code=74 << 8))
    assert not work_directory_failed(job("FAILED", exit_code=75 << 8))


@pytest.mark.parametrize(
    ("states", "draining", "down", "suspect", "usable"),
    [
        (("IDLE",), False, False, False, True),
        (("MIXED", "PLANNED"), False, False, False, True),
        (("ALLOCATED", "COMPLETING"), False, False, False, True),
        (("MIXED", "DRAIN"), True, False, False, False),
        (("IDLE", "DRAIN", "UNDRAIN"), False, False, False, True),
        (("IDLE", "REBOOT_REQUESTED"), True, False, False, False),
        (("DOWN",), False, True, False, False),
        (("DOWN", "NOT_RESPONDING"), False, True, True, False),
        (("MIXED", "NOT_RESPONDING"), False, False, True, False),
        (("IDLE", "DRAIN", "INVALID_REG"), True, True, False, False),
        (("MIXED", "MAINTENANCE", "RESERVED"), False, False, False, False),
        (("UNKNOWN",), False, False, False, True),
        (("IDLE", "BLOCKED"), False, False, False, False),
        (("IDLE", "EXTERNAL"), False, False, False, False),
    ],
)
def test_node_states(
    states: tuple[str, ...], draining: bool, down: bool, suspect: bool, usable: bool
) -> None:
    seen = node(*states)
    assert node_draining(seen) is draining
    assert node_down(seen) is down
    assert node_suspect(seen) is suspect
    assert node_usable(seen) is usable
    assert node_maintenance(seen) is ("MAINTENANCE" in states)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("", PendingClass.RESOURCES),
        ("Resources", PendingClass.RESOURCES),
        ("Priority", PendingClass.RESOURCES),
        ("BeginTime", PendingClass.RESOURCES),
        ("ReqNodeNotAvail, UnavailableNodes:gpu04", PendingClass.RESOURCES),
        ("ReqNodeNotAvail,_May_be_reserved_for_other_job", PendingClass.RESOURCES),
        ("Reserved for maintenance", PendingClass.RESOURCES),
        ("SomethingNew", PendingClass.RESOURCES),
        ("QOSMaxGRESPerUser", PendingClass.QUOTA),
        ("QOSMinGRES", PendingClass.NEVER),
        ("QOSMinCpuNotSatisfied", PendingClass.NEVER),
        ("QOSGrpGRES", PendingClass.QUOTA),
        ("AssocGrpGRES", PendingClass.QUOTA),
        ("AssocMaxJobsLimit", PendingClass.QUOTA),
        ("MaxGRESPerAccount", PendingClass.QUOTA),
        ("QOSMaxWallDurationPerJobLimit", PendingClass.NEVER),
        ("AssocMaxCpuPerJobLimit", PendingClass.NEVER),
        ("JobHeldUser", PendingClass.HELD),
        ("JobHeldAdmin", PendingClass.HELD),
        ("job requeued in held state", PendingClass.HELD),
        ("job_requeued_in_held_state", PendingClass.HELD),
        ("PartitionTimeLimit", PendingClass.NEVER),
        ("PartitionConfig", PendingClass.NEVER),
        ("DependencyNeverSatisfied", PendingClass.NEVER),
        ("QOSNotAllowed", PendingClass.NEVER),
        ("InvalidQOS", PendingClass.NEVER),
        ("ReservationDeleted", PendingClass.NEVER),
        ("ReservationInvalid", PendingClass.NEVER),
        ("MaxMemPerLimit", PendingClass.NEVER),
        ("Constraints", PendingClass.RESOURCES),
        ("NvidiaImexChannels", PendingClass.RESOURCES),
    ],
)
def test_pending_reasons(reason: str, kind: PendingClass) -> None:
    assert classify(reason) is kind
    assert unblocked_by(reason)


NODES_DOWN = (
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions"
)


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("Resources", "Resources"),
        ("ReqNodeNotAvail, UnavailableNodes:gpu04", "ReqNodeNotAvail"),
        ("ReqNodeNotAvail,_May_be_reserved_for_other_job", "ReqNodeNotAvail"),
        ("RaisedSignal:9(Killed)", "RaisedSignal"),
        (NODES_DOWN, NODES_DOWN),
        (NODES_DOWN.replace(" ", "_"), NODES_DOWN),
        ("job requeued in held state", "job requeued in held state"),
        ("", ""),
    ],
)
def test_reasons_read_well(reason: str, said: str) -> None:
    assert spoken(reason) == said
    assert said != NODES_DOWN or classify(reason) is PendingClass.RESOURCES


def test_partition_config_needs_patience() -> None:
    assert never_after("PartitionConfig") > never_after("PartitionTimeLimit")


@given(st.text())
def test_any_reason_has_a_class(reason: str) -> None:
    assert classify(reason) in PendingClass
    assert " " not in first_word(reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "Batch job submission failed: Socket timed out on send/recv operation",
            "ControllerTimeout",
        ),
        (
            "Batch job submission failed: Unable to contact slurm controller (connect failure)",
            "ControllerUnreachable",
        ),
        ("Munge encode failed: Failed to access socket", "AuthenticationFailed"),
        ("Protocol authentication error", "AuthenticationFailed"),
        ("slurm_load_jobs error: Invalid authentication credential", "AuthenticationFailed"),
        ("Rate limit exceeded, please retry momentarily", "RateLimited"),
        ("Zero Bytes were transmitted or received", "ControllerUnreachable"),
    ],
)
def test_outages(text: str, reason: str) -> None:
    assert outage(f"sbatch: error: {text}") == reason
    assert reason in OUTAGE_ADVICE


def test_unknown_text_is_no_outage() -> None:
    assert outage("sbatch: error: Batch job submission failed: The cat sat on the mat") is None


@given(st.text())
def test_messages_are_one_bounded_line(text: str) -> None:
    line = one_line(text)
    assert len(line) <= 300
    assert line.isprintable()
