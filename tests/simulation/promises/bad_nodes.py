"""An attempt leaves out the one node on which its revision has just failed twice."""

from typing import Any

from isthmus.api.times import epoch
from isthmus.apiserver.resources import (
    SLURM_JOBS,
)
from isthmus.backends.slurm.records import SubmitRequest
from tests.simulation.promises.ledger import Attempt, Ledger

ON_ITS_WAY = 40.0
"""Most seconds between the plan of a submission and its sbatch."""


class BadNodeRules(Ledger):
    """Judges the options of a submission."""

    def _spares(self, request: SubmitRequest, attempt: Attempt) -> None:
        """An attempt leaves out the node on which its revision has just failed twice.

        As far as the statuses of its SlurmJobs have said so for long, and only one node has.
        """
        slurm, own = self._clusters[attempt.cluster], self._spec(attempt)
        if own is None or self.clocks_jumped or self.caches_late:
            return
        if not slurm.nodes_told:  # none that it knows of is left
            return
        failed: dict[str, list[float]] = {}
        for other in self.attempts.values():
            status = self._status(other)
            if other.namespace != attempt.namespace or self._spec(other) != own or not status:
                continue
            if status.get("phase") == "Ready" or status.get("excludedNodes"):
                return  # it serves, or the rule is at work already
            told = other.over_at is not None and self.now - other.over_at > ON_ITS_WAY
            if told and status.get("reason") == "JobFailed":
                failed.setdefault(status.get("nodes", ""), []).append(
                    epoch(status["finishedAt"]) or 0.0
                )
        if len(failed) != 1 or slurm.site.clock_skew:
            return
        ((node, times),) = failed.items()
        close = sorted(times)[-2:]
        if len(close) == 2 and close[1] - close[0] < 500:
            recent = slurm.wall_clock() - close[1] < 1500
            spared = f"--exclude={node}" in request.options
            self.require(
                spared or not recent, f"sbatch of {attempt.job_name} may run on {node} again"
            )

    def _spec(self, attempt: Attempt) -> tuple[str, str, str] | None:
        obj = self._api.get(SLURM_JOBS, attempt.namespace, attempt.name)
        found = None if obj is None else obj["spec"]
        return found and (found["deployment"], found["pool"], found["revision"])

    def _status(self, attempt: Attempt) -> dict[str, Any]:
        obj = self._api.get(SLURM_JOBS, attempt.namespace, attempt.name) or {}
        status: dict[str, Any] = obj.get("status") or {}
        return status
