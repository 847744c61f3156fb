"""The part of the judge that looks at the commands of operators: sbatch, TERM, scancel."""

from typing import Any

from isthmus.api import names
from isthmus.api.times import epoch
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import ENDPOINT_SLICES, LEASES, SLURM_JOBS
from isthmus.backends.slurm.records import SubmitRequest
from tests.simulation.clock import Process
from tests.simulation.engines import Engine
from tests.simulation.ledger import WAITING, Attempt, Ledger, View
from tests.simulation.secrecy import Secrecy
from tests.simulation.tunnel_oracle import in_tunnels

GRACE = 60.0
"""Seconds between TERM and scancel: `termination-grace` in this world."""
UNKNOWN_WAIT = 115.0
"""Least seconds between two submissions of one attempt: 60 + 5 + 2 * 10 + 30, and jitter."""

ON_ITS_WAY = 40.0
"""Most seconds between the plan of a submission and its sbatch."""

FRESH_PROBE = 25.0
"""Most seconds since a probe began that a decision calls fresh: 10, its limit, and the way here."""


class CommandRules(Ledger):
    """Judges each command when it is called."""

    secrecy: Secrecy

    def looked(
        self, process: Process, *, shown: frozenset[str] | None, nameless: bool = False
    ) -> None:
        """What one answer of SLURM showed, readable or not.

        Args:
            process: whose look it was.
            shown: names of jobs, None where the answer was none.
            nameless: it held a record that may be any job's.
        """
        view = self.views.setdefault(process.name, View())
        if shown is None:
            view.failed = self.now
            return
        view.complete = self.now
        view.shown = {name: view.shown.get(name, self.now) for name in shown}
        since = self.now if view.nameless is None else view.nameless
        view.nameless = since if nameless else None

    def submits(self, process: Process, request: SubmitRequest) -> None:
        job_name = request.job_name
        self.secrecy.shows_in(f"sbatch of {job_name}", request)
        self._slurm.tell(f"{process.name}: sbatch {job_name}")
        self._leads(process, "sbatch")
        self._sees(process, "sbatch", slack=30.0)
        attempt = self.attempts.get(job_name)
        if attempt is None:
            self.require(False, f"sbatch of {job_name} without any SlurmJob")
            return
        # One that vanished from etcd after its acknowledged intent, in a pause of the process.
        unknown = attempt.lost and self.caches_late
        self.require(unknown or not attempt.gone, f"sbatch of {job_name}, whose SlurmJob is gone")
        self._is_absent(process, job_name)
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

    def _spares(self, request: SubmitRequest, attempt: Attempt) -> None:
        """An attempt leaves out the node on which its revision has just failed twice.

        As far as the statuses of its SlurmJobs have said so for long, and only one node has.
        """
        site, own = self._slurm.site, self._spec(attempt)
        if own is None or self.clocks_jumped or self.caches_late:
            return
        if not self._slurm.nodes_told:  # none that it knows of is left
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
        if len(failed) != 1 or site.clock_skew:
            return
        ((node, times),) = failed.items()
        close = sorted(times)[-2:]
        if len(close) == 2 and close[1] - close[0] < 500:
            recent = self._slurm.wall_clock() - close[1] < 1500
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

    def _is_absent(self, process: Process, job_name: str) -> None:
        """Nothing is submitted that may be there, as far as its operator has been told for long."""
        view = self.views.get(process.name, View())
        shown = view.shown.get(job_name, self.now)
        self.require(
            self.now - shown <= ON_ITS_WAY, f"sbatch of {job_name}, which SLURM shows all the while"
        )
        strange = self.now if view.nameless is None else view.nameless
        self.require(
            self.now - strange <= ON_ITS_WAY,
            f"sbatch of {job_name}, while SLURM shows a record that may be any job",
        )

    def terminates(self, process: Process, job_id: int, job_name: str) -> None:
        self._slurm.tell(f"{process.name}: TERM to job {job_id} {job_name}")
        attempt = self._stops(process, "TERM", job_id, job_name)
        if attempt is None:
            return
        self.require(attempt.deleted_at is not None, f"TERM to {job_name}, which is wanted")
        self.require(not self._member(attempt), f"TERM to {job_name} while it is in the membership")
        if attempt.slice_left is not None and not self.clocks_jumped:
            since = self.now - attempt.slice_left
            self.require(since > 4.0, f"TERM to {job_name} {since:.1f} s after it left")
        for engine in self._machines.running(job_name):
            self.not_cut("TERM to", job_name, engine, since=attempt.slice_left, attempt=attempt)

    def cancels(self, process: Process, job_id: int, job_name: str) -> None:
        self._slurm.tell(f"{process.name}: scancel job {job_id} {job_name}")
        attempt = self._stops(process, "scancel", job_id, job_name)
        job = self._slurm.jobs.get(job_id)
        if attempt is None or job is None or job.name != job_name or job.engine is None:
            return
        self.require(
            not self._member(attempt), f"scancel of {job_name} while it is in the membership"
        )
        if attempt.gone or attempt.lost:
            return  # an orphan
        told_waiting = attempt.phase in WAITING  # by an old copy of SLURM's answer
        if attempt.deleted_at is not None and job.state == "RUNNING" and not told_waiting:
            self.not_cut(
                "scancel of", job_name, job.engine, since=attempt.slice_left, attempt=attempt
            )
        if attempt.deleted_at is None and job.state == "RUNNING" and attempt.over_at is None:
            unknown = attempt.wiped and not self.tells(job)
            good = unknown or not job.engine.checked or self._unwell(job.engine)
            self.require(good, f"scancel of {job_name}, which serves")
            if not unknown:
                self.wanted_is_cancelled(job_name, job)
        elif attempt.deleted_at is not None and not self.clocks_jumped:
            since = job.engine.terminated_at
            early = since is not None and self.now - since < GRACE - 2
            self.require(not early, f"scancel of {job_name} within its grace")

    def _member(self, attempt: Attempt) -> bool:
        direct = self._api.get(ENDPOINT_SLICES, attempt.namespace, attempt.name)
        # What a supervisor does meanwhile is known late where watches are.
        return direct is not None or (in_tunnels(self._api, attempt.uid) and not self.caches_late)

    def _unwell(self, engine: Engine) -> bool:
        """Whether an engine that once served has not done so for the shortest startupTimeout."""
        machines, now = self._machines, self.now
        alone = any(
            machines.unreachable_until.get(a, 0.0) <= now for a in self._slurm.nodes.values()
        )
        long = now - engine.bad_since > 180 - 2 or self.clocks_jumped
        # A probe that hangs says for its whole limit how the engine (not the network) was before.
        away = machines.unreachable_until.get(engine.address, 0.0)
        recent = now - max(engine.broken_until, engine.slow_until, away) < FRESH_PROBE
        return alone and long and (recent or not machines.serves(engine, now=now))

    def _stops(self, process: Process, what: str, job_id: int, job_name: str) -> Attempt | None:
        self._leads(process, what)
        self._sees(process, what, slack=40.0)
        attempt = self.attempts.get(job_name)
        self.require(attempt is not None, f"{what} to job {job_id} {job_name}, which is not ours")
        return attempt

    def _leads(self, process: Process, what: str) -> None:
        leases = [o for o in self._api.all(LEASES) if names.LABEL_TUNNEL_HOST not in k8s.labels(o)]
        holder = k8s.dig(leases[0], "spec", "holderIdentity") if leases else None
        self.require(holder == process.name, f"{what} by {process.name}, but {holder} leads")

    def _sees(self, process: Process, what: str, *, slack: float) -> None:
        view = self.views.get(process.name, View())
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
