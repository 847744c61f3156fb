"""A command that fails is told in the status of its SlurmJob, and is tried again (finding B8)."""

from isthmus.api.conditions import ConditionType, Phase, Reason
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import SLURM_JOBS
from tests.simulation.clock import Process
from tests.simulation.promises.ledger import Attempt, Ledger
from tests.simulation.slurm_jobs import Job

UNTOLD = 2
"""Failures in a row that may be untold: the write of the first may meet another one."""

IN_A_ROW = 100.0
"""Most seconds between two of them: what was not tried again for long is not told any more."""


class FailingActionRules(Ledger):
    """Judges each command that fails, by what its object said before."""

    def command_failed(self, process: Process, command: str, job_name: str) -> None:
        """SLURM has refused a TERM or a scancel, or gave no answer to it."""
        attempt = self.attempts.get(job_name)
        if attempt is None:
            return
        same = (attempt.failing, attempt.failing_by) == (command, process.name)
        if not same or self.now - attempt.failed_at > IN_A_ROW:
            attempt.failing, attempt.failing_by, attempt.failures = command, process.name, 0
        if attempt.failures >= UNTOLD:
            self._is_told(attempt, command)
        attempt.failures, attempt.failed_at = attempt.failures + 1, self.now

    def command_done(self, job_name: str) -> None:
        """A TERM or a scancel has worked."""
        attempt = self.attempts.get(job_name)
        if attempt is not None:
            attempt.failing, attempt.failures = "", 0

    def _is_told(self, attempt: Attempt, command: str) -> None:
        """Unless it could not be written, or was taken away from the status since."""
        obj = self._api.get(SLURM_JOBS, attempt.namespace, attempt.name)
        if obj is None or k8s.uid(obj) != attempt.uid or self.caches_late or self.clocks_jumped:
            return
        if attempt.wiped or attempt.lost:
            return
        tried = f"{command} of {attempt.job_name} failed {attempt.failures} times"
        self.require(says_failing(obj), f"{tried}, and its status does not say so")
        phase = k8s.dig(obj, "status", "phase")
        ends = attempt.deleted_at is not None
        self.require(not ends or phase != Phase.READY, f"{tried}, and its status says Ready")

    def _had_its_term(self, attempt: Attempt, job: Job) -> None:
        """What was to drain is not cancelled because nobody could tell its engine to."""
        engine = job.engine
        if engine is None or attempt.failing != "terminate" or attempt.wiped or self.clocks_jumped:
            return
        told = engine.terminated_at is not None or job.state != "RUNNING"
        self.require(told, f"scancel of {attempt.job_name}, whose TERM has failed")


def says_failing(obj: dict[str, object]) -> bool:
    """Whether a SlurmJob says that what is done about it fails."""
    found = k8s.dig(obj, "status", "conditions", default=[])
    return isinstance(found, list) and any(
        (one["type"], one["status"], one.get("reason"))
        == (ConditionType.ACTIONS_SUCCEED, "False", Reason.ACTION_FAILED)
        for one in found
    )
