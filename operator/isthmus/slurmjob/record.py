"""The status of one attempt as its rules read and change it: typed, with times as numbers.

The wire model (`api.slurmjob`) is flat, its times are texts, and a change of it is checked by
nobody. This record is read once from a stored SlurmJob and written once back; in between every
change is a `dataclasses.replace`, of which the type checker knows all fields.

All times are epoch seconds. What is None here is absent there.
"""

from dataclasses import dataclass
from typing import Self

from isthmus.api.base import ConditionModel
from isthmus.api.conditions import Phase
from isthmus.api.slurmjob import Drained, ForwardStatus, SlurmJobStatus
from isthmus.api.times import epoch, rfc3339

_WRITABLE = 253_402_300_799.0
"""The last second of the year 9999: no later time can be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """How the attempt came, or comes, to its job.

    Attributes:
        started_at: when sbatch was called last.
        count: how often it was called.
        last_answer: its words, where they were not clear.
        same_answers: how often in a row they came without a job.
        unsent: how many tries in a row ended before anything was sent.
        unsent_at: when the last of them ended.
        unknown_since: since when it is not clear whether a job exists.
        work_directory: by which it was submitted.
        excluded_nodes: that it was submitted without.
    """

    started_at: float | None = None
    count: int | None = None
    last_answer: str | None = None
    same_answers: int | None = None
    unsent: int | None = None
    unsent_at: float | None = None
    unknown_since: float | None = None
    work_directory: str | None = None
    excluded_nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What SLURM said of the job; its times are the cluster's.

    Attributes:
        job_id: in SLURM.
        state: SLURM's word.
        submit_time: when SLURM took it.
        start_time: when it started.
        end_time: when it ends or ended.
        restart_count: how often SLURM restarted it.
        nodes: as a host list.
    """

    job_id: int | None = None
    state: str | None = None
    submit_time: float | None = None
    start_time: float | None = None
    end_time: float | None = None
    restart_count: int | None = None
    nodes: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What was found when the start gate was to be closed.

    Attributes:
        claimed_at: when it was claimed by a job that no snapshot showed.
        failed_at: since when it cannot be closed.
    """

    claimed_at: float | None = None
    failed_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How far the end of the attempt has come.

    Attributes:
        draining_since: when it was taken out of rotation to be stopped.
        drained: how the wait for its requests ended.
        cut: requests that had not finished then.
        terminated_at: when the engine was told to end.
        cancelled_at: when scancel was sent last.
        finished_at: when the end of the job was seen.
    """

    draining_since: float | None = None
    drained: Drained | None = None
    cut: int | None = None
    terminated_at: float | None = None
    cancelled_at: float | None = None
    finished_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """The forward that the worker wants.

    Attributes:
        mode: how it is reached, fixed when the forward is assigned.
        port: on the tunnel supervisor.
        public_key: with which the job of mode Reverse calls.
        in_traffic: whether the worker may get requests through it.
        service: whose membership it belongs to.
    """

    mode: str | None = None
    port: int | None = None
    public_key: str | None = None
    in_traffic: bool | None = None
    service: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStatus:
    """What is known of one attempt.

    Attributes:
        phase: where it stands.
        reason: why.
        message: in a sentence.
        job: what SLURM said of its job.
        host: address of its first node.
        port: that the engine took.
        url: by which the engine is reached.
        healthy: whether its probes succeed.
        ever_ready: whether it was ready once.
        degraded_since: since when it fails its probes while our view of it is good.
        probes_failed_since: since when it fails them, whether or not our view is good.
        forward: that it wants, where it is not reached directly.
        submission: how it came to its job.
        gate: what was found at its start gate.
        ending: how far its end has come.
        conditions: as they are written.
    """

    phase: Phase | None = None
    reason: str | None = None
    message: str | None = None
    job: Job = Job()
    host: str | None = None
    port: int | None = None
    url: str | None = None
    healthy: bool | None = None
    ever_ready: bool | None = None
    degraded_since: float | None = None
    probes_failed_since: float | None = None
    forward: Forward | None = None
    submission: Submission = Submission()
    gate: Gate = Gate()
    ending: Ending = Ending()
    conditions: tuple[ConditionModel, ...] = ()

    @classmethod
    def read(cls, status: SlurmJobStatus | None) -> Self:
        """Return what a stored status says; None is an attempt of which nothing is known yet.

        What is no time counts as absent: it could not be written either.
        """
        if status is None:
            return cls()
        return cls(
            phase=status.phase,
            reason=status.reason,
            message=status.message,
            job=_job(status),
            host=status.host,
            port=status.port,
            url=status.url,
            healthy=status.healthy,
            ever_ready=status.ever_ready,
            degraded_since=_seconds(status.degraded_since),
            probes_failed_since=_seconds(status.probes_failed_since),
            forward=_forward(status.forward),
            submission=_submission(status),
            gate=Gate(
                claimed_at=_seconds(status.gate_claimed_at),
                failed_at=_seconds(status.gate_failed_at),
            ),
            ending=_ending(status),
            conditions=status.conditions,
        )

    def write(self) -> SlurmJobStatus:
        """Return the status as it is stored.

        Nothing is checked again: `write_status` brings all within the bounds of the schema.
        """
        job, submission, gate, ending = self.job, self.submission, self.gate, self.ending
        forward = self.forward
        return SlurmJobStatus.model_construct(
            phase=self.phase,
            reason=self.reason,
            message=self.message,
            job_id=job.job_id,
            state=job.state,
            submit_time=_text(job.submit_time),
            start_time=_text(job.start_time),
            end_time=_text(job.end_time),
            restart_count=job.restart_count,
            nodes=job.nodes,
            host=self.host,
            port=self.port,
            url=self.url,
            forward=None if forward is None else _forward_status(forward),
            submit_started_at=_text(submission.started_at),
            submissions=submission.count,
            last_answer=submission.last_answer,
            same_answers=submission.same_answers,
            unsent=submission.unsent,
            unsent_at=_text(submission.unsent_at),
            excluded_nodes=submission.excluded_nodes,
            unknown_since=_text(submission.unknown_since),
            draining_since=_text(ending.draining_since),
            drained=ending.drained,
            cut=ending.cut,
            terminated_at=_text(ending.terminated_at),
            cancelled_at=_text(ending.cancelled_at),
            gate_claimed_at=_text(gate.claimed_at),
            gate_failed_at=_text(gate.failed_at),
            work_directory=submission.work_directory,
            degraded_since=_text(self.degraded_since),
            probes_failed_since=_text(self.probes_failed_since),
            finished_at=_text(ending.finished_at),
            ever_ready=self.ever_ready,
            healthy=self.healthy,
            conditions=self.conditions,
        )


def _job(status: SlurmJobStatus) -> Job:
    return Job(
        job_id=status.job_id,
        state=status.state,
        submit_time=_seconds(status.submit_time),
        start_time=_seconds(status.start_time),
        end_time=_seconds(status.end_time),
        restart_count=status.restart_count,
        nodes=status.nodes,
    )


def _submission(status: SlurmJobStatus) -> Submission:
    return Submission(
        started_at=_seconds(status.submit_started_at),
        count=status.submissions,
        last_answer=status.last_answer,
        same_answers=status.same_answers,
        unsent=status.unsent,
        unsent_at=_seconds(status.unsent_at),
        unknown_since=_seconds(status.unknown_since),
        work_directory=status.work_directory,
        excluded_nodes=status.excluded_nodes,
    )


def _ending(status: SlurmJobStatus) -> Ending:
    return Ending(
        draining_since=_seconds(status.draining_since),
        drained=status.drained,
        cut=status.cut,
        terminated_at=_seconds(status.terminated_at),
        cancelled_at=_seconds(status.cancelled_at),
        finished_at=_seconds(status.finished_at),
    )


def _forward(status: ForwardStatus | None) -> Forward | None:
    if status is None:
        return None
    return Forward(
        mode=status.mode,
        port=status.port,
        public_key=status.public_key,
        in_traffic=status.in_traffic,
        service=status.service,
    )


def _forward_status(forward: Forward) -> ForwardStatus:
    return ForwardStatus.model_construct(
        mode=forward.mode,
        port=forward.port,
        public_key=forward.public_key,
        in_traffic=forward.in_traffic,
        service=forward.service,
    )


def _seconds(text: str | None) -> float | None:
    moment = epoch(text)
    return None if moment is None or not 0 <= moment <= _WRITABLE else moment


def _text(moment: float | None) -> str | None:
    return None if moment is None else rfc3339(moment)
