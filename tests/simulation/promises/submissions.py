"""At most one engine for each attempt: what must be so when sbatch is called."""

from isthmus.backends.slurm.records import SubmitRequest
from tests.simulation.clock import Process
from tests.simulation.promises.bad_nodes import ON_ITS_WAY, BadNodeRules
from tests.simulation.promises.leadership import LeadershipRules
from tests.simulation.promises.ledger import View
from tests.simulation.promises.secrecy import Secrecy
from tests.simulation.slurm import Slurm

UNKNOWN_WAIT = 115.0
"""Least seconds between two submissions of one attempt: 60 + 5 + 2 * 10 + 30, and jitter."""


class SubmissionRules(LeadershipRules, BadNodeRules):
    """Judges each submission when it is made."""

    secrecy: Secrecy

    def submits(self, process: Process, request: SubmitRequest, *, at: Slurm) -> None:
        job_name = request.job_name
        self.secrecy.shows_in(f"sbatch of {job_name}", request)
        at.tell(f"{process.name}: sbatch {job_name}")
        self._leads(process, "sbatch")
        self._sees(process, "sbatch", cluster=at.name, slack=30.0)
        attempt = self.attempts.get(job_name)
        if attempt is None:
            self.require(False, f"sbatch of {job_name} without any SlurmJob")
            return
        self._at_home("sbatch", attempt, at=at)
        # One that vanished from etcd after its acknowledged intent, in a pause of the process.
        unknown = attempt.lost and self.caches_late
        self.require(unknown or not attempt.gone, f"sbatch of {job_name}, whose SlurmJob is gone")
        self._is_absent(process, job_name, cluster=at.name)
        if attempt.deleted_at is not None and not self.caches_late:
            late = self.now - attempt.deleted_at
            self.require(late < self.lag, f"sbatch of {job_name}, deleted {late:.0f} s ago")
        attempt.submissions.append(self.now)
        self.require(
            len(attempt.submissions) <= attempt.intents,
            f"sbatch of {job_name} without an acknowledged intent",
        )
        if len(attempt.submissions) > 1 and not attempt.wiped and not self.clocks_jumped:
            since = self.now - attempt.submissions[-2]
            self.require(
                since >= UNKNOWN_WAIT - 2, f"{job_name} was submitted again after {since:.0f} s"
            )
        self._spares(request, attempt)

    def _is_absent(self, process: Process, job_name: str, *, cluster: str) -> None:
        """Nothing is submitted that may be there, as far as its operator has been told for long."""
        view = self.views.get((process.name, cluster), View())
        shown = view.shown.get(job_name, self.now)
        self.require(
            self.now - shown <= ON_ITS_WAY, f"sbatch of {job_name}, which SLURM shows all the while"
        )
        strange = self.now if view.nameless is None else view.nameless
        self.require(
            self.now - strange <= ON_ITS_WAY,
            f"sbatch of {job_name}, while SLURM shows a record that may be any job",
        )
