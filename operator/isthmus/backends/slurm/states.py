"""What SLURM's state words mean: of jobs, and of nodes.

Pure tables, apart from the parsers (which keep the words as printed) and from the planners (which
only know the meaning). Source: the manual pages of squeue and sinfo and SLURM's own tables of
words, releases 22.05 to 26.05; squeue prints one word per job, flags before the base state.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from isthmus.backends.slurm.records import JobRecord, NodeRecord, Snapshot

GATE_EXIT_CODE = 75
"""Exit code of a batch script whose attempt was claimed already (EX_TEMPFAIL of sysexits.h)."""

WORK_DIRECTORY_EXIT_CODE = 74
"""Exit code of a batch script that cannot write to the work directory (EX_IOERR)."""

SETUP_EXIT_CODE = 78
"""Exit code of a batch script that found no module, or no free port (EX_CONFIG)."""


class JobState(Enum):
    """What a state word means for a worker."""

    Pending = "Pending"
    """Waits; the reason says for what."""
    Starting = "Starting"
    """Nodes are allocated and being made ready; the walltime may run already."""
    Running = "Running"
    """The batch script runs, or starts within a second; readiness is not this."""
    Suspended = "Suspended"
    """Stopped by SLURM; may come back."""
    Completing = "Completing"
    """Over, but still holds nodes and GPUs."""
    Requeued = "Requeued"
    """SLURM will start the same id again; that start ends at the gate."""
    Blocked = "Blocked"
    """Will not start without a person."""
    Finished = "Finished"
    """Exited with 0."""
    Cancelled = "Cancelled"
    """Cancelled by us, by its user or by an administrator."""
    Failed = "Failed"
    """Exited with an error."""
    Refused = "Refused"
    """The trace that a refused submission leaves; never ran."""
    Expired = "Expired"
    """Ended at its time limit."""
    NodeFault = "NodeFault"
    """Lost to a fault of its node."""
    Preempted = "Preempted"
    """Ended for a job of higher priority."""
    OutOfMemory = "OutOfMemory"
    """Used more memory than it had asked for."""
    Transient = "Transient"
    """A passing flag that hides the base state: keep what was known."""
    Unknown = "Unknown"
    """A word this release does not know: keep what was known."""

    @property
    def live(self) -> bool:
        """Whether the job holds resources or may do so, now or later."""
        return self not in _OVER


_OVER = frozenset(
    {
        JobState.Finished,
        JobState.Cancelled,
        JobState.Failed,
        JobState.Refused,
        JobState.Expired,
        JobState.NodeFault,
        JobState.Preempted,
        JobState.OutOfMemory,
    }
)

_WORDS = {
    "PENDING": JobState.Pending,
    "CONFIGURING": JobState.Starting,
    "POWER_UP_NODE": JobState.Starting,
    "RUNNING": JobState.Running,
    "SUSPENDED": JobState.Suspended,
    "STOPPED": JobState.Suspended,
    "RESIZING": JobState.Transient,
    "SIGNALING": JobState.Transient,
    "EXPEDITING": JobState.Transient,
    "UPDATE_DB": JobState.Transient,
    "COMPLETING": JobState.Completing,
    "STAGE_OUT": JobState.Completing,
    "REQUEUED": JobState.Requeued,
    "REQUEUE_FED": JobState.Requeued,
    "REQUEUE_HOLD": JobState.Blocked,
    "SPECIAL_EXIT": JobState.Blocked,
    "RESV_DEL_HOLD": JobState.Blocked,
    "COMPLETED": JobState.Finished,
    "CANCELLED": JobState.Cancelled,
    "REVOKED": JobState.Cancelled,
    "FAILED": JobState.Failed,
    "DEADLINE": JobState.Failed,
    "TIMEOUT": JobState.Expired,
    "NODE_FAIL": JobState.NodeFault,
    "BOOT_FAIL": JobState.NodeFault,
    "LAUNCH_FAILED": JobState.NodeFault,
    "RECONFIG_FAIL": JobState.NodeFault,
    "PREEMPTED": JobState.Preempted,
    "OUT_OF_MEMORY": JobState.OutOfMemory,
}


def observe(record: JobRecord) -> JobState:
    """The meaning of a job's state word, read together with its reason and restart count.

    A job is submitted with `--no-requeue`, so a pending job that has been started before was
    requeued by the site: it is `Requeued`, not `Pending`.
    """
    words = record.state.split()
    state = _WORDS.get(words[0].upper(), JobState.Unknown) if words else JobState.Unknown
    if state is JobState.Failed and record.reason.startswith("BadConstraints"):
        return JobState.Refused
    if state is JobState.Pending and record.restart_count > 0:
        return JobState.Requeued
    return state


def has_a_place(record: JobRecord) -> bool:
    """Whether nodes are given to a job, so that it waits no more."""
    return observe(record) in {JobState.Starting, JobState.Running}


def exit_status(record: JobRecord) -> int:
    """The exit code of the batch script, or 128 + signal as a shell would say it."""
    signal = record.exit_code & 0x7F
    return 128 + signal if signal else record.exit_code >> 8


def gate_refused(record: JobRecord) -> bool:
    """Whether the start gate turned this job away: its attempt was claimed by another start."""
    return _ended_with(record, GATE_EXIT_CODE)


def work_directory_failed(record: JobRecord) -> bool:
    """Whether the job could not write to the work directory: the cluster's fault, not its own."""
    return _ended_with(record, WORK_DIRECTORY_EXIT_CODE)


def _ended_with(record: JobRecord, code: int) -> bool:
    return observe(record) is JobState.Failed and record.exit_code == code << 8


_DRAIN_WORDS = frozenset({"DRAIN", "DRAINING", "DRAINED", "REBOOT_REQUESTED", "REBOOT_ISSUED"})
_MAINTENANCE_WORDS = frozenset({"MAINTENANCE", "MAINT"})
_ELSEWHERE_WORDS = frozenset({"BLOCKED", "EXTERNAL"})
_DOWN_WORDS = frozenset(
    {
        "DOWN",
        "FAIL",
        "FAILING",
        "ERROR",
        "POWERED_DOWN",
        "POWERING_DOWN",
        "INVALID_REG",
        "INVAL",
    }
)


def node_draining(node: NodeRecord) -> bool:
    """Whether no new job may start there while running ones go on (DRAIN, a reboot asked for)."""
    return "UNDRAIN" not in node.states and bool(node.states & _DRAIN_WORDS)


def draining_nodes(snapshot: Snapshot | None) -> Mapping[str, str]:
    """Drained nodes of a snapshot, each with SLURM's reason for it."""
    nodes = () if snapshot is None else snapshot.nodes.values()
    return {node.name: node.reason for node in nodes if node_draining(node)}


def node_maintenance(node: NodeRecord) -> bool:
    """Whether a maintenance reservation covers the node now."""
    return bool(node.states & _MAINTENANCE_WORDS)


def node_down(node: NodeRecord) -> bool:
    """Whether its jobs are lost or will be."""
    return bool(node.states & _DOWN_WORDS)


def node_suspect(node: NodeRecord) -> bool:
    """Whether slurmd does not answer: the job may run on, the health probe decides."""
    return "NOT_RESPONDING" in node.states


def node_usable(node: NodeRecord) -> bool:
    """Whether a new job could start there, as far as states tell.

    Not on one whose part of the topology a job has to itself (BLOCKED, known from 24.11 on), nor on
    one that SLURM lists and does not run itself (EXTERNAL, known from 26.05 on).
    """
    troubled = node_draining(node) or node_maintenance(node) or node_down(node)
    return not (troubled or node_suspect(node) or node.states & _ELSEWHERE_WORDS)
