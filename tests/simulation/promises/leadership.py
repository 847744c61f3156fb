"""Only who holds the lease changes anything, and only on a cluster that it has just seen."""

from isthmus.api import names
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import LEASES
from tests.simulation.clock import Process
from tests.simulation.promises.ledger import Attempt, Ledger, View
from tests.simulation.slurm import Slurm


class LeadershipRules(Ledger):
    """Judges who gives a command, and what it has seen."""

    def looked(
        self,
        process: Process,
        *,
        cluster: str,
        shown: frozenset[str] | None,
        nameless: bool = False,
    ) -> None:
        """What one answer of SLURM showed, readable or not.

        Args:
            process: whose look it was.
            cluster: at which one.
            shown: names of jobs, None where the answer was none.
            nameless: it held a record that may be any job's.
        """
        view = self.views.setdefault((process.name, cluster), View())
        if shown is None:
            view.failed = self.now
            return
        view.complete = self.now
        view.shown = {name: view.shown.get(name, self.now) for name in shown}
        since = self.now if view.nameless is None else view.nameless
        view.nameless = since if nameless else None

    def _leads(self, process: Process, what: str) -> None:
        leases = [o for o in self._api.all(LEASES) if names.LABEL_TUNNEL_HOST not in k8s.labels(o)]
        holder = k8s.dig(leases[0], "spec", "holderIdentity") if leases else None
        self.require(holder == process.name, f"{what} by {process.name}, but {holder} leads")

    def _at_home(self, what: str, attempt: Attempt | None, *, at: Slurm) -> None:
        """A command is given to the cluster that the attempt names."""
        if attempt is not None:
            said = f"{what} of {attempt.job_name}, which is of {attempt.cluster}, to {at.name}"
            self.require(attempt.cluster == at.name, said)

    def _sees(self, process: Process, what: str, *, cluster: str, slack: float) -> None:
        view = self.views.get((process.name, cluster), View())
        if view.complete is None:
            self.require(False, f"{what} before {process.name} has seen the cluster")
            return
        age = self.now - view.complete
        limit = self.stale_after + slack
        if not self.clocks_jumped:
            self.require(age <= limit, f"{what} on a cluster last seen {age:.0f} s ago")
        if view.failed is not None and view.failed > view.complete:
            blind = self.now - view.failed
            self.require(blind <= slack, f"{what} on a cluster not seen for {blind:.0f} s")
