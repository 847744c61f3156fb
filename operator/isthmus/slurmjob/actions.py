"""What the plan of one attempt may ask for, as data: idempotent, or with a proof."""

from dataclasses import dataclass
from typing import TypeAlias

from isthmus.rules.actions import AddFinalizer, RemoveFinalizer
from isthmus.slurmjob.record import AttemptStatus


@dataclass(frozen=True, slots=True)
class Submit:
    """Write `before` as the status, and when that is acknowledged run sbatch once."""

    before: AttemptStatus


@dataclass(frozen=True, slots=True)
class Terminate:
    """TERM to the batch shell of a running job: its engine finishes and ends."""

    job_id: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """scancel: the job is pending, surplus or out of its budget."""

    job_id: int


@dataclass(frozen=True, slots=True)
class ConfirmGone:
    """Ask the second source about a job that complete snapshots no longer show."""

    job_id: int


@dataclass(frozen=True, slots=True)
class ReadPort:
    """Look into the run folder of a job whose comment says no port."""

    job_id: int


@dataclass(frozen=True, slots=True)
class CloseGate:
    """Claim the attempt for nobody, so that a submission that turns up late ends at the gate.

    Attributes:
        sure: go on even if a job has claimed it; otherwise that job has to be seen first.
        may_fail: go on even if it cannot be closed: no ghost comes as late as this.
    """

    sure: bool = False
    may_fail: bool = False


@dataclass(frozen=True, slots=True)
class EnsureSlice:
    """Put the worker into the membership."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class DeleteSlice:
    """Take the worker out of the membership."""


@dataclass(frozen=True, slots=True)
class WithdrawTunnels:
    """Take the worker out where its tunnel supervisors do not: they do not answer any more."""


PlainAction: TypeAlias = (
    Terminate | Cancel | ConfirmGone | ReadPort | EnsureSlice | DeleteSlice | WithdrawTunnels
)
"""What is done and seen by the next pass; the others decide how their own pass goes on."""

SlurmJobAction: TypeAlias = AddFinalizer | RemoveFinalizer | Submit | CloseGate | PlainAction
