"""The port of a job that cannot say it by its comment (F6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from isthmus.api.conditions import Phase, Reason
from isthmus.api.desired import ClusterReference
from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.api.times import rfc3339
from isthmus.errors import SlurmUnavailableError
from isthmus.slurmcluster.port_files import AT_ONCE, EVERY, PortFiles
from isthmus.slurmcluster.state import ClusterState, ClusterStates
from isthmus.slurmjob.actions import ReadPort
from isthmus.slurmjob.plan import plan_slurm_job
from isthmus.slurmjob.policy.readiness import SILENT
from tests.unit.builders import COMMENT, NOW, job, record, snapshot

HPC = ClusterReference(namespace="default", name="hpc")
STATUS = SlurmJobStatus(
    phase=Phase.STARTING, job_id=101, submit_started_at=rfc3339(NOW - 130), host=None
)


def running(seconds: float, **changes: Any) -> Any:
    shown = record(comment="wckey=default", start_time=int(NOW - 5 - seconds))
    return job(shown, status=STATUS, **changes)


def test_f6_a_job_that_stays_silent_has_its_run_folder_looked_at() -> None:
    early = plan_slurm_job(running(SILENT - 1), now=NOW)
    assert early.actions == ()
    late = plan_slurm_job(running(SILENT), now=NOW)
    assert late.actions == (ReadPort(job_id=101),)
    assert late.requeue_after is not None
    assert late.requeue_after <= SILENT


def test_f6_the_port_of_the_file_is_as_good_as_that_of_the_comment_and_no_better() -> None:
    plan = plan_slurm_job(running(SILENT, told_port=41007), now=NOW)
    assert (plan.status.host, plan.status.port) == ("10.10.0.1", 41007)
    assert plan.actions == ()
    outside = plan_slurm_job(running(SILENT, told_port=22), now=NOW)
    assert outside.status.reason == Reason.ADDRESS_REFUSED
    both = job(record(comment=f"{COMMENT}:port=41001"), status=STATUS, told_port=41007)
    assert plan_slurm_job(both, now=NOW).status.port == 41001


def test_f6_the_time_out_names_the_command_and_the_file() -> None:
    plan = plan_slurm_job(running(1900), now=NOW)
    assert plan.status.reason == Reason.STARTUP_TIMEOUT
    assert "scontrol update JobId=101 Comment=" in (plan.status.message or "")
    assert "`port` in its run folder" in (plan.status.message or "")


class Client:
    def __init__(self) -> None:
        self.asked: list[Sequence[tuple[str, int]]] = []
        self.files: dict[str, int] = {}
        self.broken = False

    async def published_ports(
        self, *, work_directory: str, jobs: Sequence[tuple[str, int]]
    ) -> Mapping[str, int]:
        self.asked.append(list(jobs))
        if self.broken:
            raise SlurmUnavailableError("gone", reason="WorkDirectoryUnavailable")
        return {name: self.files[name] for name, _ in jobs if name in self.files}


class World:
    def __init__(self) -> None:
        self.client, self.now, self.states = Client(), 0.0, ClusterStates()
        self.state = ClusterState(stale_after=60.0)
        self.states.put(HPC, self.state)
        clusters: Any = SimpleNamespace(work_folder=lambda _: self.client)
        self.files = PortFiles(clusters=clusters, states=self.states, clock=lambda: self.now)

    async def read(self, name: str, job_id: int) -> None:
        await self.files.read(HPC, folder="/work", job_name=name, job_id=job_id)

    def told(self, name: str, job_id: int | None) -> int | None:
        return self.files.told(HPC, job_name=name, job_id=job_id)


async def test_f6_all_that_wait_are_asked_for_at_once_and_seldom() -> None:
    world = World()
    world.client.files = {"a": 41001, "b": 41002}
    await world.read("a", 1)
    assert world.told("a", 1) == 41001
    assert world.told("a", 2) is None, "of another job under the same name"
    for number in range(AT_ONCE + 5):
        await world.read(f"n{number}", number)
    await world.read("b", 2)
    assert len(world.client.asked) == 1
    world.now = EVERY
    await world.read("b", 2)
    assert len(world.client.asked) == 2
    assert len(world.client.asked[1]) == AT_ONCE
    world.now = 2 * EVERY
    await world.read("b", 2)
    assert world.told("b", 2) == 41002


async def test_f6_a_folder_that_cannot_be_reached_ends_no_pass() -> None:
    world = World()
    world.client.broken = True
    await world.read("a", 1)
    assert world.told("a", 1) is None


def test_f6_a_port_is_forgotten_with_its_job() -> None:
    world = World()
    world.state.ports["a"] = 41001, 1
    world.state.take(snapshot(record(name="a", job_id=1)))
    assert world.told("a", 1) == 41001
    world.state.take(snapshot())
    assert world.told("a", 1) is None


def test_f6_an_unknown_cluster_tells_nothing() -> None:
    other = ClusterReference(namespace="default", name="other")
    assert World().files.told(other, job_name="a", job_id=1) is None
