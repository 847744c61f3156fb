"""The `SlurmClient` and `WorkFolder` of one operator process, as commands run by child processes.

A child goes on when its operator is killed: an sbatch whose caller died is still accepted.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

from isthmus.backends.slurm.login import ClusterHandle
from isthmus.backends.slurm.parsing import OutputError
from isthmus.backends.slurm.records import (
    JobRecord,
    NotSent,
    Refused,
    Snapshot,
    SubmitOutcome,
    SubmitRequest,
    Submitted,
    Unclear,
)
from isthmus.backends.slurm.snapshots import unlisted_hosts
from isthmus.errors import SlurmUnavailableError
from tests.simulation.clock import Process
from tests.simulation.oracle import Oracle
from tests.simulation.site_answers import ANSWERS, namespace_of, said
from tests.simulation.slurm import Slurm
from tests.simulation.slurm_jobs import LIVE, Job

T = TypeVar("T")

KILL_FAILS = "scancel: error: Kill job error on job id {}: Unexpected message received"


class SimulatedSlurmClient:
    """One operator's way to the cluster."""

    def __init__(
        self, slurm: Slurm, *, process: Process, oracle: Oracle, submit_timeout: float
    ) -> None:
        self._slurm, self._process, self._oracle = slurm, process, oracle
        self._submit_timeout = submit_timeout
        self._random: Random = slurm.random

    def handle(self) -> ClusterHandle:
        return ClusterHandle(client=self, work_folder=self, warning=lambda: "", close=self._close)

    async def _close(self) -> None:
        """Nothing is held open."""

    async def place_tunnel_key(self, **_: object) -> None:
        """No simulated job calls a bastion."""

    async def old_files(self, **_: object) -> tuple[str, ...]:
        """No simulated job leaves a file that is old enough."""
        return ()

    # ---- questions

    async def snapshot(self) -> Snapshot:
        started_at = self._process.wall_clock()
        slurm = self._slurm
        try:
            records = await self._child(self._look())
            found = slurm.strange.read(records)
        except (SlurmUnavailableError, OutputError) as error:
            self._oracle.looked(self._process, cluster=slurm.name, shown=None)
            if isinstance(error, OutputError):
                raise SlurmUnavailableError(str(error), reason="UnknownFormat") from error
            raise
        shown = frozenset(record.name for record in records)
        self._oracle.looked(
            self._process, cluster=slurm.name, shown=shown, nameless=bool(found.nameless)
        )
        nodes = slurm.node_records()
        self._oracle.nodes_shown(slurm)
        hosts = unlisted_hosts(found.jobs, nodes=nodes)
        return Snapshot(
            jobs=found.jobs,
            nodes=nodes,
            started_at=started_at,
            taken_at=self._process.wall_clock(),
            cluster_time=int(slurm.wall_clock()),
            unreadable=found.unreadable,
            nameless=found.nameless,
            hosts={name: slurm.nodes[name] for name in hosts},
        )

    async def _look(self) -> tuple[JobRecord, ...]:
        slurm = self._slurm
        await self._answered()
        fault = slurm.snapshot_faults.popleft() if slurm.snapshot_faults else ""
        records = slurm.job_records()
        if fault == "hang":  # a rate limit: the command waits until its own limit ends it
            await asyncio.sleep(25)
            raise SlurmUnavailableError("no answer in time", reason="CommandTimeout")
        if fault == "truncated":
            raise SlurmUnavailableError("no end mark", reason="IncompleteOutput")
        if fault == "failed":
            raise SlurmUnavailableError("rc 1", reason="CommandFailed")
        if fault in {"empty", "old"}:
            slurm.lied_at = slurm.now
        if fault == "empty":
            return ()
        if fault == "old" and slurm.history:
            return slurm.history[0]
        if fault == "reordered":
            return tuple(self._random.sample(records, len(records)))
        slurm.history.append(records)
        await asyncio.sleep(self._random.random() * 0.3)
        return records

    async def ping(self) -> bool:
        if self._slurm.mode == "hung":
            await asyncio.sleep(10)
        return self._slurm.mode == "up"

    async def version(self) -> str:
        return "22.05.8"

    async def show_job(self, job_id: int) -> JobRecord | None:
        await self._child(self._answered())
        job = self._slurm.jobs.get(job_id)
        return None if job is None else self._slurm.record(job)

    async def place_secret(self, *, work_directory: str, job_name: str, content: str) -> None:
        self._oracle.secrecy.staged(job_name, content)

        async def child() -> None:
            await asyncio.sleep(0.05)
            if self._slurm.site.folder_broken or self._random.random() < 0.03:
                raise SlurmUnavailableError("disk full", reason="WorkDirectoryUnavailable")
            place = work_directory, job_name
            if place not in self._slurm.claims:
                self._slurm.secrets[place] = content

        await self._child(child())

    async def placed_secrets(self, *, work_directory: str) -> frozenset[str]:
        await asyncio.sleep(0.05)
        if self._slurm.site.folder_broken:
            raise SlurmUnavailableError("read-only", reason="WorkDirectoryUnavailable")
        return frozenset(name for folder, name in self._slurm.secrets if folder == work_directory)

    async def remove_secrets(self, *, work_directory: str, job_name: str) -> None:
        await asyncio.sleep(0.05)
        self._slurm.secrets.pop((work_directory, job_name), None)

    async def published_ports(
        self, *, work_directory: str, jobs: Sequence[tuple[str, int]]
    ) -> Mapping[str, int]:
        await asyncio.sleep(0.05)
        if self._slurm.site.folder_broken:
            raise SlurmUnavailableError("read-only", reason="WorkDirectoryUnavailable")
        ports = self._slurm.port_files
        return {name: ports[name, job_id] for name, job_id in jobs if (name, job_id) in ports}

    async def prepare(self, *, work_directory: str) -> None:
        await asyncio.sleep(0.05)
        if self._slurm.site.folder_broken:
            raise SlurmUnavailableError("read-only", reason="WorkDirectoryUnavailable")

    # ---- changes

    async def submit(self, request: SubmitRequest) -> SubmitOutcome:
        self._oracle.submits(self._process, request, at=self._slurm)
        if self._slurm.unsent_until > self._slurm.now:
            self._oracle.nothing_sent(request.job_name)
            return NotSent("login1: Connection refused")
        return await self._child(self._sbatch(request))

    async def _sbatch(self, request: SubmitRequest) -> SubmitOutcome:
        slurm = self._slurm
        kind = slurm.answers.get(namespace_of(request))
        if kind is not None:
            answer = ANSWERS[kind]
            found = await said(answer, limit=self._submit_timeout, number=self._random.random)
            self._oracle.sbatch_said(request.job_name, kind, refused=answer.refused)
            return found
        await asyncio.sleep(0.05 + self._random.random() * 0.4)
        fault, seconds = ("", 0.0)
        if slurm.submission_faults:
            fault, seconds = slurm.submission_faults.popleft()
            slurm.tell(f"fault: sbatch of {request.job_name}: {fault} {seconds:.0f}")
        if slurm.mode == "down":
            await asyncio.sleep(9.5)
            return Unclear("Unable to contact slurm controller (connect failure)")
        if slurm.mode == "hung":
            slurm.waiting.append(lambda: self._accept(request))
            await asyncio.sleep(10)
            return Unclear("Socket timed out on send/recv operation")
        if fault == "no-reply":
            slurm.accept(request)
            await asyncio.sleep(self._submit_timeout)
            return Unclear("no answer in time")
        if fault == "ghost":
            slurm.ghosts += 1
            slurm.later(seconds, self._arrive, request)
            await asyncio.sleep(self._random.random() * self._submit_timeout)
            return Unclear("Socket timed out on send/recv operation")
        if fault == "hang":
            await asyncio.sleep(self._submit_timeout)
            return Unclear("no answer in time")
        if fault == "unclear":
            return Unclear("the connection was lost")
        if fault in {"refused", "bad-constraints"}:
            slurm.refuse(request, leaves_record=fault == "bad-constraints")
            return Refused(reason="NodeConfigurationNotAvailable", message="not available")
        if slurm.impossible(request):
            return Refused(reason="NodeConfigurationNotAvailable", message="not available")
        job = slurm.accept(request)
        if fault == "lost":
            slurm.later(seconds, slurm.lose_newest, job)
        return Submitted(job.id)

    def _arrive(self, request: SubmitRequest) -> None:
        self._slurm.ghosts -= 1
        self._slurm.accept(request)

    def _accept(self, request: SubmitRequest) -> None:
        self._slurm.accept(request)

    async def terminate(self, *, job_id: int, job_name: str) -> None:
        self._oracle.terminates(self._process, job_id, job_name, at=self._slurm)
        await self._change(job_id, job_name, command="terminate", do=self._slurm.terminate)

    async def cancel(self, *, job_id: int, job_name: str) -> None:
        self._oracle.cancels(self._process, job_id, job_name, at=self._slurm)
        await self._change(job_id, job_name, command="cancel", do=self._slurm.cancel)

    async def _change(
        self, job_id: int, job_name: str, *, command: str, do: Callable[[Job], None]
    ) -> None:
        """scancel: by id and exact name; what does not match is left alone."""

        def work() -> None:
            job = self._slurm.jobs.get(job_id)
            if job is not None and job.name == job_name and job.state in LIVE:
                do(job)

        async def child() -> None:
            if self._slurm.mode == "hung":
                self._slurm.waiting.append(work)
            await self._answered()
            if self._slurm.failing.get(command, 0.0) > self._slurm.now:
                raise SlurmUnavailableError(KILL_FAILS.format(job_id), reason="CommandFailed")
            work()

        try:
            await self._child(child())
        except SlurmUnavailableError:
            self._oracle.command_failed(self._process, command, job_name)
            raise
        self._oracle.command_done(job_name)

    async def close_gate(self, *, work_directory: str, job_name: str) -> bool:
        await asyncio.sleep(0.05)
        if self._slurm.site.folder_broken:
            raise SlurmUnavailableError("read-only", reason="WorkDirectoryUnavailable")
        return self._slurm.claims.setdefault((work_directory, job_name), "closed") == "closed"

    # ---- the commands' own ways to fail

    async def _answered(self) -> None:
        """Wait as long as a command takes.

        Raises:
            SlurmUnavailableError: slurmctld does not answer.
        """
        await asyncio.sleep(0.05 + self._random.random() * 0.5)
        if self._slurm.mode == "down":
            await asyncio.sleep(9)
            raise SlurmUnavailableError(
                "Unable to contact slurm controller", reason="ControllerUnreachable"
            )
        if self._slurm.mode == "hung":
            await asyncio.sleep(10)
            raise SlurmUnavailableError("Socket timed out", reason="ControllerTimeout")

    async def _child(self, work: Coroutine[Any, Any, T]) -> T:
        """Run in a process of its own, which does not end with its parent."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(work, context=self._slurm.context)
        return await asyncio.shield(task)
