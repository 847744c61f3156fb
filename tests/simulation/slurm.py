"""The simulated SLURM: slurmctld's jobs, the compute nodes' batch scripts, and all that goes wrong.

What slurmctld believes (`jobs`) and what runs on the nodes (`machines`) are two things, and drift
apart as they do in the real one. Source of the behaviour: measurements on 22.05, 24.11 and 26.05.
"""

import asyncio
import itertools
import re
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from isthmus.backends.slurm.records import JobRecord, NodeRecord, SubmitRequest
from tests.simulation import slurm_nodes
from tests.simulation.batch_scripts import BatchScript
from tests.simulation.clock import EPOCH, outside
from tests.simulation.engines import Engine, Machines
from tests.simulation.shape import ClusterShape
from tests.simulation.slurm_jobs import LIVE, Job, Site
from tests.simulation.strange import StrangeFields

_STARTED = frozenset({"RUNNING", "SUSPENDED"})


class Slurm:
    """One cluster."""

    def __init__(
        self,
        *,
        machines: Machines,
        random: Random,
        tell: Callable[[str], None],
        shape: ClusterShape | None = None,
        number: int = 0,
    ) -> None:
        self.machines, self.random, self.tell = machines, random, tell
        self.shape = shape or ClusterShape()
        self.name = self.shape.name
        self.site = self.usual_site()
        self.mode = "up"  # or "down", "hung"
        self.jobs: dict[int, Job] = {}
        self.claims: dict[tuple[str, str], str] = {}  # (work directory, job name) → who has it
        self.secrets: dict[tuple[str, str], str] = {}  # the same → its API key
        self.port_files: dict[tuple[str, int], int] = {}  # job name and id → port
        self.nodes = slurm_nodes.addresses(self.shape.nodes, network=number)
        first = sorted(self.nodes)[: self.shape.drained]
        self.site.drained.update(dict.fromkeys(first, "it has been drained for long"))
        self.waiting: list[Callable[[], None]] = []  # requests that a hung slurmctld will serve
        self.submission_faults: deque[tuple[str, float]] = deque()
        self.answers: dict[str, str] = {}  # namespace → which of `site_answers`
        self.unsent_until = 0.0
        self.failing: dict[str, float] = {}  # command → until when it is refused
        self.snapshot_faults: deque[str] = deque()
        self.strange = StrangeFields()
        self.nodes_told = False  # whether the last look showed nodes
        self.history: deque[tuple[JobRecord, ...]] = deque(maxlen=6)
        self.lied_at = -1e9  # when a snapshot was last complete and not true
        self.ghosts = 0  # submissions that are still under way to slurmctld
        self.on_claim: list[Callable[[Job], None]] = []
        self._ids = itertools.count(1000)
        self.context = outside()
        self._loop = asyncio.get_running_loop()

    def usual_site(self) -> Site:
        """How the site behaves while nothing is wrong with it, until the faults stop."""
        return Site(gpus=self.shape.places, walltime=self.shape.walltime)

    # ---- time

    @property
    def now(self) -> float:
        return self._loop.time()

    def wall_clock(self) -> float:
        return EPOCH + self.now + self.site.clock_skew

    def later(self, seconds: float, do: Callable[..., Any], *args: Any) -> None:
        self._loop.call_later(seconds, do, *args, context=self.context)

    def chance(self, most: float) -> float:
        return self.random.random() * most

    # ---- slurmctld

    def accept(self, request: SubmitRequest) -> Job:
        """A submission reaches slurmctld and becomes a job."""
        job = Job(
            id=next(self._ids),
            name=request.job_name,
            comment=request.comment,
            request=request,
            submitted_at=self.now,
            eligible_at=self.now + self.chance(self.site.queue_seconds),
        )
        self.jobs[job.id] = job
        self.strange.accepted(job.id)
        self.tell(f"slurm: job {job.id} accepted, {job.name}")
        self.later(job.eligible_at - self.now + 0.01, self.schedule)
        return job

    def impossible(self, request: SubmitRequest) -> bool:
        """Whether no node could ever have what is asked for: sbatch says so at once."""
        gpus = (re.search(r"--gres=gpu:(?:[\w.-]+:)?(\d+)", option) for option in request.options)
        return any(found is not None and int(found[1]) > self.shape.gpus_per_node for found in gpus)

    def refuse(self, request: SubmitRequest, *, leaves_record: bool) -> None:
        """A submission is refused; sometimes its record stays."""
        if leaves_record:
            job = self.accept(request)
            self.end(job, "FAILED", exit_code=1 << 8, reason="BadConstraints")

    def lose_newest(self, job: Job) -> None:
        """slurmctld dies before it has saved an acknowledged job; its id is given again."""
        if self.jobs.get(job.id) is job and job.state == "PENDING":
            del self.jobs[job.id]
            self._reuse_from(job.id)
            self.tell(f"slurm: job {job.id} lost with slurmctld's state")

    def _reuse_from(self, first: int) -> None:
        free = [n for n in range(first, first + 40) if n not in self.jobs]
        highest = max([first + 40, *self.jobs])
        self._ids = itertools.chain(free, itertools.count(highest + 1))  # type: ignore[assignment]

    def rollback(self, seconds: float) -> None:
        """slurmctld comes up with a state that is some seconds old."""
        then = self.now - seconds
        for job in list(self.jobs.values()):
            if job.submitted_at > then:
                self._orphan(job)
                del self.jobs[job.id]
                self._reuse_from(min(job.id, *self.jobs) if self.jobs else job.id)
            elif job.started_at is not None and job.started_at > then:
                self._orphan(job)
                job.state, job.reason, job.node = "PENDING", "Priority", ""
                job.rolled_back, job.ends_at = True, None
                job.started_at = job.ended_at = None
                job.eligible_at = self.now + 5 + self.chance(30)
                self.later(job.eligible_at - self.now + 0.01, self.schedule)
        self.tell(f"slurm: slurmctld back with its state of {seconds:.0f} s ago")

    def _orphan(self, job: Job) -> None:
        """A step that slurmctld does not know of runs until its node has told of it."""
        engine, job.engine = job.engine, None
        if engine is not None and engine.alive:
            self._lose(engine)

    def _lose(self, engine: Engine) -> None:
        engine.lost_by_slurm = True
        self.later(30 + self.chance(200), self.machines.end, engine)

    def schedule(self) -> None:
        """Start what can be started."""
        used = sum(job.state in LIVE - {"PENDING"} for job in self.jobs.values())
        for job in sorted(self.jobs.values(), key=lambda job: (job.submitted_at, job.id)):
            if job.state != "PENDING" or job.held or job.eligible_at > self.now:
                continue
            if used >= self.site.gpus:
                job.reason = "Resources"
                continue
            if job.request is not None and used > self.site.quota:
                job.reason = "QOSMaxJobsPerUserLimit"
                continue
            used += 1
            self._start(job)

    def _start(self, job: Job) -> None:
        job.state, job.reason, job.started_at = "RUNNING", "None", self.now
        job.nodes = slurm_nodes.placed(job, nodes=self.nodes, site=self.site, random=self.random)
        job.node = job.nodes[0]
        job.walltime = self.site.walltime
        self.grant(job, job.walltime)
        if job.request is not None:
            self.later(0.3 + self.chance(1.0), self._batch, job, job.started_at)

    def grant(self, job: Job, seconds: float) -> None:
        """A started job ends in so many seconds, by its limit, unless that is moved again."""
        job.ends_at = self.now + seconds
        self.later(seconds + self.chance(30), self._expire, job, job.ends_at)

    def _expire(self, job: Job, ends_at: float) -> None:
        if job.ends_at == ends_at and job.state in _STARTED and self.jobs.get(job.id) is job:
            self.end(job, "TIMEOUT")

    def end(self, job: Job, state: str, *, exit_code: int = 0, reason: str = "None") -> None:
        """A job is over for slurmctld; its record goes after MinJobAge."""
        if job.engine is not None:
            self.machines.end(job.engine)
            job.engine = None
        job.state, job.exit_code, job.reason, job.ended_at = state, exit_code, reason, self.now
        if job.started_at is None:
            job.started_at = self.now  # SLURM says so, also of one that never ran
        self.tell(f"slurm: job {job.id} {state} exit {exit_code} {job.name}")
        self.later(self.site.min_job_age + self.chance(5), self.purge, job)
        self.later(0.5, self.schedule)

    def purge(self, job: Job) -> None:
        if self.jobs.get(job.id) is job and job.state not in LIVE:
            del self.jobs[job.id]

    def cancel(self, job: Job) -> None:
        """As scancel: at once for what waits, TERM and KILL for what runs."""
        if job.state == "PENDING":
            self.end(job, "CANCELLED")
        elif job.state in _STARTED:
            job.state = "COMPLETING"
            if job.engine is not None:
                job.engine.draining = True
            self.later(0.05 + self.chance(self.site.kill_wait), self._cancelled, job)

    def _cancelled(self, job: Job) -> None:
        if job.state == "COMPLETING":
            self.end(job, "CANCELLED", exit_code=15)

    def terminate(self, job: Job) -> None:
        """TERM to the batch shell, which passes it to the engine."""
        engine = job.engine
        if job.state != "RUNNING" or engine is None or engine.terminated_at is not None:
            return
        engine.terminated_at = self.now
        engine.draining = True
        self.later(0.2 + self.chance(self.site.drain_seconds), self._drained, job, engine)

    def _drained(self, job: Job, engine: Engine) -> None:
        if not engine.alive or job.engine is not engine or job.state != "RUNNING":
            return
        if engine.held(self.now):
            self.later(1.0, self._drained, job, engine)  # SGLang waits without limit
        else:
            self.end(job, "COMPLETED")

    def requeue(self, job: Job) -> None:
        """The site puts a started job back into the queue, under the same id."""
        if job.state not in _STARTED:
            return
        if job.engine is not None:
            self.machines.end(job.engine)
            job.engine = None
        job.state, job.reason, job.restarts = "PENDING", "BeginTime", job.restarts + 1
        job.node, job.started_at, job.submitted_at, job.ends_at = "", None, self.now, None
        job.eligible_at = self.now + 20 + self.chance(100)
        self.later(job.eligible_at - self.now + 0.01, self.schedule)
        self.tell(f"slurm: job {job.id} requeued")

    def resume(self) -> None:
        """A hung or dead slurmctld works again."""
        self.mode = "up"
        waiting, self.waiting = self.waiting, []
        for do in waiting:
            do()

    # ---- a node: the batch script

    def _batch(self, job: Job, started_at: float) -> None:
        if job.state != "RUNNING" or job.started_at != started_at or job.engine is not None:
            return
        assert job.request is not None
        script = BatchScript(job.request.script)
        claim = script.constant("work_directory"), job.name
        if claim in self.claims or self.site.folder_broken:
            code = 75 if claim in self.claims else 74
            self.end(job, "FAILED", exit_code=code << 8, reason="NonZeroExitCode")
            return
        self.claims[claim] = f"{job.id}.{job.restarts}"
        for listener in self.on_claim:
            listener(job)
        key = self.secrets.pop(claim, "")
        if script.constant("shared_key") and not key:
            self.tell(f"node: job {job.id} of {job.name} finds no API key")
            self.end(job, "FAILED", exit_code=78 << 8, reason="NonZeroExitCode")
            return
        port = self._free_port(job, script)
        engine = Engine(
            job_name=job.name,
            job_id=job.id,
            attempt=script.option("--weight-version"),
            model=script.option("--served-model-name"),
            address=self.nodes[job.node],
            port=port,
            started_at=self.now,
            ready_at=self.now + 1 + self.chance(self.site.load_seconds),
            arguments=script.command,
            api_key=key,
        )
        job.engine = engine
        self.machines.start(engine)
        if self.jobs.get(job.id) is not job:
            self._lose(engine)
        self.tell(f"node: engine of {job.name} starts at {engine.address}:{port} (job {job.id})")
        if job.node == self.site.bad_node:
            self.later(2.0, self._crash, job, engine)
        if self.chance(1.0) < self.site.crash_chance:
            self.later(1 + self.chance(20), self._crash, job, engine)
        told = self.site.forged_port or port
        comment = f"{script.comment}:port={told}"
        # A port is published once its engine listens: SGLang does at once, vLLM when it has loaded.
        loads = engine.ready_at - self.now if job.id % 2 else 0.0
        delay = loads + self.chance(self.site.publish_delay)
        self.later(delay, self._publish, job, engine, comment)

    def _publish(self, job: Job, engine: Engine, comment: str) -> None:
        if not engine.alive or job.engine is not engine:
            return
        self.port_files[job.name, job.id] = engine.port
        if self.mode != "up":
            self.later(2.0, self._publish, job, engine, comment)
            return
        job.comment = "wckey=default" if self.site.rewrite_comments else comment

    def _crash(self, job: Job, engine: Engine) -> None:
        if engine.alive and job.engine is engine and job.state == "RUNNING":
            self.end(job, "FAILED", exit_code=1 << 8, reason="NonZeroExitCode")

    def _free_port(self, job: Job, script: BatchScript) -> int:
        first, last = script.ports
        size = last - first + 1
        ports = (first + (job.id * 37 + i) % size for i in range(size))
        taken = self.machines.listening
        return next(port for port in ports if (self.nodes[job.node], port) not in taken)

    # ---- what the commands show

    def job_records(self) -> tuple[JobRecord, ...]:
        return tuple(self.record(job) for job in self.jobs.values())

    def record(self, job: Job) -> JobRecord:
        def wall(moment: float | None) -> int | None:
            return None if moment is None else int(EPOCH + moment + self.site.clock_skew)

        end = job.ends_at if job.ended_at is None else job.ended_at
        return JobRecord(
            job_id=job.id,
            name=job.name,
            state=job.state,
            restart_count=job.restarts,
            batch_host=job.node,
            nodes=slurm_nodes.hostlist(job.nodes or (job.node,)) if job.node else "",
            submit_time=wall(job.submitted_at),
            # One that was put back into the queue tells when it is expected to start.
            start_time=wall(job.eligible_at if job.restarts and not job.node else job.started_at),
            end_time=wall(end),
            time_limit_minutes=int(job.walltime // 60),
            exit_code=job.exit_code,
            partition="gpu",
            qos="",
            reason=job.reason,
            comment=job.comment,
        )

    def node_count(self) -> str:
        """How many nodes can be used, of how many, as a status tells it."""
        free = slurm_nodes.usable(self.nodes, site=self.site)
        return "hidden" if self.site.nodes_hidden else f"{free}/{len(self.nodes)}"

    def node_records(self) -> dict[str, NodeRecord]:
        self.nodes_told = not self.site.nodes_hidden
        if not self.nodes_told:
            return {}
        return slurm_nodes.shown(self.nodes, site=self.site)


def as_old(records: tuple[JobRecord, ...]) -> tuple[JobRecord, ...]:
    """A copy of an answer that slurmctld gave some time ago."""
    return tuple(replace(record) for record in records)
