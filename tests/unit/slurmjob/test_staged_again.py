"""Key files of jobs that wait: only what is missing is staged again, and it is looked for once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from isthmus.api.conditions import Phase
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import SlurmJob
from isthmus.backends.slurm.frozen import FrozenJob, freeze
from isthmus.errors import SlurmUnavailableError
from isthmus.slurmjob.key_files import STAGED_AGAIN_AFTER, KeyStaging
from tests.unit.api.test_keys import Lab
from tests.unit.builders import status

CLUSTER = SlurmCluster.model_validate(
    {
        "metadata": {"namespace": "team-a", "name": "hpc", "uid": "c"},
        "spec": {"login": {"local": {}}, "files": {"workDirectory": "/scratch"}},
    }
)


class Folder:
    """A cluster's client, and its folder."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.listings, self.placed = 0, 0
        self.broken = False

    async def place_secret(self, *, work_directory: str, job_name: str, content: str) -> None:
        self.placed += 1
        self.files[job_name] = content

    async def placed_secrets(self, *, work_directory: str) -> frozenset[str]:
        self.listings += 1
        await asyncio.sleep(0)
        if self.broken:
            raise SlurmUnavailableError("read-only", reason="WorkDirectoryUnavailable")
        return frozenset(self.files)

    def work_folder(self, reference: object) -> Folder:
        return self


class Waiting:
    """An operator that has just started, and jobs that wait."""

    def __init__(self, lab: Lab, jobs: list[SlurmJob], frozen: FrozenJob) -> None:
        self.jobs, self.frozen, self.now = jobs, frozen, 1.8e9
        self.folder = Folder()
        clusters: Any = self.folder
        self.staging = KeyStaging(
            keys=lab.keys()[1], clusters=clusters, check=lambda: None, clock=lambda: self.now
        )

    @classmethod
    async def made(cls, count: int) -> Waiting:
        lab = Lab()
        await lab.settle()
        jobs = [await lab.attempt(f"j{number}") for number in range(count)]
        return cls(lab, jobs, freeze(desired=lab.settled, pool=lab.settled.pools[0]))

    async def keep(self) -> None:
        """A pass over each job."""
        await asyncio.gather(
            *(
                self.staging.keep(
                    job=job, frozen=self.frozen, cluster=CLUSTER, status=status(Phase.PENDING)
                )
                for job in self.jobs
            )
        )


@pytest.mark.parametrize("missing", [0, 1, 20])
async def test_b9_after_a_restart_only_what_is_missing_is_staged(missing: int) -> None:
    waiting = await Waiting.made(20)
    folder = waiting.folder
    folder.files = {job.spec.job_name: "key" for job in waiting.jobs[missing:]}
    await waiting.keep()
    assert (folder.listings, folder.placed) == (1, missing)
    await waiting.keep()
    assert (folder.listings, folder.placed) == (1, missing)
    waiting.now += STAGED_AGAIN_AFTER
    del folder.files[waiting.jobs[3].spec.job_name]  # the site has cleaned up
    await waiting.keep()
    assert (folder.listings, folder.placed) == (2, missing + 1)


async def test_b9_a_folder_that_cannot_be_listed_is_asked_again_later() -> None:
    waiting = await Waiting.made(5)
    folder = waiting.folder
    folder.broken = True
    await waiting.keep()
    await waiting.keep()
    assert (folder.listings, folder.placed) == (1, 0)
    folder.broken = False
    waiting.now += 60
    await waiting.keep()
    assert (folder.listings, folder.placed) == (2, 5)
