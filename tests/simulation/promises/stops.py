"""What is ended is ours, is to end, and has had its time: TERM and scancel."""

from isthmus.apiserver.resources import ENDPOINT_SLICES
from tests.simulation.clock import Process
from tests.simulation.engines import Engine
from tests.simulation.promises.failing_actions import FailingActionRules
from tests.simulation.promises.leadership import LeadershipRules
from tests.simulation.promises.ledger import WAITING, Attempt
from tests.simulation.promises.tunnels import in_tunnels
from tests.simulation.slurm import Slurm

FRESH_PROBE = 25.0
"""Most seconds since a probe began that a decision calls fresh: 10, its limit, and the way here."""


class StopRules(LeadershipRules, FailingActionRules):
    """Judges each command that ends a job."""

    def terminates(self, process: Process, job_id: int, job_name: str, *, at: Slurm) -> None:
        at.tell(f"{process.name}: TERM to job {job_id} {job_name}")
        attempt = self._stops(process, "TERM", job_id, job_name, at=at)
        if attempt is None:
            return
        self.require(attempt.deleted_at is not None, f"TERM to {job_name}, which is wanted")
        self.require(not self._member(attempt), f"TERM to {job_name} while it is in the membership")
        if attempt.slice_left is not None and not self.clocks_jumped:
            since = self.now - attempt.slice_left
            self.require(since > 4.0, f"TERM to {job_name} {since:.1f} s after it left")
        for engine in self._machines.running(job_name):
            self._in_time("TERM to", attempt, engine)

    def cancels(self, process: Process, job_id: int, job_name: str, *, at: Slurm) -> None:
        at.tell(f"{process.name}: scancel job {job_id} {job_name}")
        attempt = self._stops(process, "scancel", job_id, job_name, at=at)
        job = at.jobs.get(job_id)
        if attempt is None or job is None or job.name != job_name or job.engine is None:
            return
        self.require(
            not self._member(attempt), f"scancel of {job_name} while it is in the membership"
        )
        if attempt.gone or attempt.lost:
            return  # an orphan
        told_waiting = attempt.phase in WAITING  # by an old copy of SLURM's answer
        if attempt.deleted_at is not None and job.state == "RUNNING" and not told_waiting:
            self._in_time("scancel of", attempt, job.engine)
        if attempt.deleted_at is None and job.state == "RUNNING" and attempt.over_at is None:
            unknown = attempt.wiped and not self.tells(job)
            good = (
                unknown
                or not job.engine.checked
                or self._unwell(job.engine, self.patience(attempt.place), at=at)
            )
            self.require(good, f"scancel of {job_name}, which serves")
            if not unknown:
                self.wanted_is_cancelled(job_name, job)
        elif attempt.deleted_at is not None and not self.clocks_jumped:
            since = job.engine.terminated_at
            early = since is not None and self.now - since < self.shape.termination_grace - 2
            self.require(not early, f"scancel of {job_name} within its grace")
            if not told_waiting:
                self._had_its_term(attempt, job)

    def _member(self, attempt: Attempt) -> bool:
        direct = self._api.get(ENDPOINT_SLICES, attempt.namespace, attempt.name)
        # What a supervisor does meanwhile is known late where watches are.
        return direct is not None or (in_tunnels(self._api, attempt.uid) and not self.caches_late)

    def _in_time(self, what: str, attempt: Attempt, engine: Engine) -> None:
        since, place = attempt.slice_left, attempt.place
        self.not_cut(what, attempt.job_name, engine, place=place, since=since, attempt=attempt)

    def _unwell(self, engine: Engine, patience: float, *, at: Slurm) -> bool:
        """Whether an engine that once served has not done so for its startupTimeout."""
        machines, now = self._machines, self.now
        # Others of its own cluster: what leads to another one is another network.
        alone = any(machines.unreachable_until.get(a, 0.0) <= now for a in at.nodes.values())
        long = now - engine.bad_since > patience - 2 or self.clocks_jumped
        # A probe that hangs says for its whole limit how the engine (not the network) was before.
        away = machines.unreachable_until.get(engine.address, 0.0)
        recent = now - max(engine.broken_until, engine.slow_until, away) < FRESH_PROBE
        return alone and long and (recent or not machines.serves(engine, now=now))

    def _stops(
        self, process: Process, what: str, job_id: int, job_name: str, *, at: Slurm
    ) -> Attempt | None:
        self._leads(process, what)
        self._sees(process, what, cluster=at.name, slack=40.0)
        attempt = self.attempts.get(job_name)
        self.require(attempt is not None, f"{what} to job {job_id} {job_name}, which is not ours")
        self._at_home(what, attempt, at=at)
        return attempt
