"""The simulated SLURM shows what a real one did: recorded lives of jobs, played again."""

import asyncio
import json
from dataclasses import dataclass
from random import Random

import pytest

from isthmus.backends.slurm.work_folder import WorkFolder
from tests.contract.slurm_life import LIVES, SAMPLES, Seen, live, settled
from tests.simulation.apiserver import ApiSimulator
from tests.simulation.clock import Process, SimulationLoop
from tests.simulation.engines import Machines
from tests.simulation.oracle import Oracle
from tests.simulation.slurm import Slurm
from tests.simulation.slurm_jobs import Job
from tests.simulation.slurmclient import SimulatedSlurmClient

RECORDED = [
    (version.parent.name, name) for version in sorted(SAMPLES.glob("*/life.json")) for name in LIVES
]


@dataclass
class SimulatedSite:
    """The simulated cluster in the place of a playground's."""

    slurm: Slurm
    client: SimulatedSlurmClient
    folder: str = "/scratch/life"

    @property
    def files(self) -> WorkFolder:
        return self.client

    async def pause(self) -> None:
        await asyncio.sleep(0.5)

    async def hold(self, job_id: int) -> None:
        job = self._job(job_id)
        job.held, job.reason = True, "JobHeldAdmin"

    async def release(self, job_id: int) -> None:
        job = self._job(job_id)
        job.held, job.reason = False, "Priority"
        self.slurm.schedule()

    async def requeue(self, job_id: int) -> None:
        self.slurm.requeue(self._job(job_id))

    async def end_in_a_second(self, job_id: int) -> None:
        self.slurm.grant(self._job(job_id), 1.0)

    async def crash(self, job_id: int) -> None:
        self.slurm.end(self._job(job_id), "FAILED", exit_code=3 << 8, reason="NonZeroExitCode")

    async def drain(self, *, drained: bool) -> None:
        self.slurm.site.gpus = 0 if drained else 6
        self.slurm.schedule()

    async def clear(self) -> None:
        """Its MinJobAge passes in no time."""

    def _job(self, job_id: int) -> Job:
        return self.slurm.jobs[job_id]


def simulated(name: str, *, seed: int) -> Seen:
    async def main() -> Seen:
        machines = Machines(random=Random(f"{seed}/machines"))
        slurm = Slurm(machines=machines, random=Random(seed), tell=lambda text: None)
        slurm.site.queue_seconds, slurm.site.min_job_age = 5.0, 30.0
        api = ApiSimulator(clock=slurm.wall_clock)
        oracle = Oracle(api=api, slurm=slurm, machines=machines)
        oracle.off = True  # nobody makes SlurmJobs here
        client = SimulatedSlurmClient(
            slurm, process=Process("op1.1"), oracle=oracle, submit_timeout=60.0
        )
        return await live(LIVES[name], SimulatedSite(slurm, client), attempt="life00")

    with asyncio.Runner(loop_factory=SimulationLoop) as runner:
        return runner.run(main())


@pytest.mark.parametrize(("version", "name"), RECORDED)
def test_the_simulated_cluster_shows_what_the_real_one_did(version: str, name: str) -> None:
    recorded = json.loads((SAMPLES / version / "life.json").read_text())[name]
    for seed in range(5):
        assert settled(simulated(name, seed=seed)) == settled(recorded)


def test_something_was_recorded() -> None:
    assert RECORDED
