"""The life of jobs as a client sees it: the same operations on a real SLURM and the simulated.

`record_life` runs it against a real cluster and writes down what was seen; the contract test plays
it in the simulator and wants to see the same.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from isthmus.backends.slurm.client import SlurmClient
from isthmus.backends.slurm.reasons import classify
from isthmus.backends.slurm.records import (
    JobRecord,
    JobTemplate,
    SiteFacts,
    SubmitRequest,
    Submitted,
)
from isthmus.backends.slurm.script import identity_comment, parse_comment, render_script
from isthmus.backends.slurm.states import JobState, observe
from isthmus.backends.slurm.work_folder import WorkFolder

SAMPLES = Path(__file__).parent / "samples" / "slurm"
PATIENCE = 300.0
PASSING = frozenset({JobState.Transient, JobState.Completing})
"""States that may be too short to be seen."""

Seen: TypeAlias = list[dict[str, Any]]


class Site(Protocol):
    """A cluster and its administrator."""

    client: SlurmClient
    files: WorkFolder
    folder: str

    async def pause(self) -> None:
        """Wait before the next look."""

    async def hold(self, job_id: int) -> None: ...

    async def release(self, job_id: int) -> None: ...

    async def requeue(self, job_id: int) -> None: ...

    async def end_in_a_second(self, job_id: int) -> None: ...

    async def crash(self, job_id: int) -> None:
        """The engine of a job ends by itself with exit code 3."""

    async def drain(self, *, drained: bool) -> None:
        """Take all nodes out of use, or give them back."""

    async def clear(self) -> None:
        """Let ended jobs be forgotten soon."""


def told(record: JobRecord) -> dict[str, Any]:
    """What of a record the operator acts on, without what differs from run to run."""
    state = observe(record)
    return {
        "state": state.name,
        "word": record.state.partition(" ")[0],
        "live": state.live,
        "restarts": record.restart_count,
        "started": record.start_time is not None and state is not JobState.Pending,
        "on a node": bool(record.nodes),
        # Of what was killed it is chance who tells first.
        "exit code": record.exit_code if state in {JobState.Finished, JobState.Failed} else None,
        "waits for": classify(record.reason).name if state is JobState.Pending else None,
        "published": parse_comment(record.comment) is not None,
    }


@dataclass
class Life:
    """One job name, what is done with it and what is seen of it."""

    site: Site
    attempt: str
    job_id: int = 0
    seen: Seen = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"llama-life0001-0123456789-0-{self.attempt}"

    def request(self, *, gpus: int = 1) -> SubmitRequest:
        comment = identity_comment(
            installation="life0001",
            namespace="team-a",
            deployment="llama",
            pool="hpc",
            slot=0,
            attempt=self.attempt,
        )
        argv = (
            "/usr/bin/env",
            "python3",
            f"{self.site.folder}/engine.py",
            "--weight-version=@ATTEMPT@",
            "--served-model-name=llama",
            "--port=@PORT@",
        )
        site = SiteFacts(
            work_directory=self.site.folder,
            ports_from=41000,
            ports_to=41999,
            default_partition="gpu",
            default_account=None,
            default_qos=None,
            default_time_limit_minutes=30,
        )
        script = render_script(
            template=JobTemplate(argv=argv),
            site=site,
            attempt=self.attempt,
            job_name=self.name,
            comment=comment,
        )
        options = ("--partition=gpu", f"--gres=gpu:h100:{gpus}", "--time=30", "--output=/dev/null")
        return SubmitRequest(self.name, comment, script, options)

    async def submit(self, *, gpus: int = 1) -> None:
        outcome = await self.site.client.submit(self.request(gpus=gpus))
        if isinstance(outcome, Submitted):
            self.job_id = outcome.job_id
        self.seen.append({"submission": type(outcome).__name__})

    async def record(self) -> JobRecord | None:
        jobs = (await self.site.client.snapshot()).jobs
        return next((job for job in jobs if job.job_id == self.job_id), None)

    async def until(self, good: Callable[[JobRecord], bool]) -> None:
        """Look until a record is as wanted, and remember each way that it looked."""
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE
        while loop.time() < end:
            record = await self.record()
            if record is not None:
                self._see(record)
                if good(record):
                    return
            await self.site.pause()
        raise AssertionError(f"never came: {self.seen}")

    async def until_state(self, state: JobState) -> None:
        await self.until(lambda record: observe(record) is state)

    async def until_serving(self) -> None:
        await self.until(lambda record: parse_comment(record.comment) is not None)

    async def cancel(self) -> None:
        await self.site.client.cancel(job_id=self.job_id, job_name=self.name)

    def _see(self, record: JobRecord) -> None:
        if observe(record) in PASSING:
            return
        now = told(record)
        if not self.seen or self.seen[-1] != now:
            self.seen.append(now)


Step: TypeAlias = Callable[[Life], Awaitable[None]]
LIVES: dict[str, Step] = {}


def life(do: Step) -> Step:
    LIVES[do.__name__] = do
    return do


@life
async def served_and_told_to_end(life: Life) -> None:
    await life.submit()
    await life.until_serving()
    await life.site.client.terminate(job_id=life.job_id, job_name=life.name)
    await life.until_state(JobState.Finished)


@life
async def served_and_cancelled(life: Life) -> None:
    await life.submit()
    await life.until_serving()
    await life.site.client.cancel(job_id=life.job_id, job_name="llama-life0001-somebody-else")
    await life.until_serving()
    await life.cancel()
    await life.until_state(JobState.Cancelled)


@life
async def ended_by_itself(life: Life) -> None:
    await life.submit()
    await life.until_serving()
    await life.site.crash(life.job_id)
    await life.until_state(JobState.Failed)


@life
async def second_submission_of_an_attempt(life: Life) -> None:
    await life.submit()
    await life.until_serving()
    first = life.job_id
    await life.submit()
    await life.until_state(JobState.Failed)  # turned away at the gate
    await life.site.client.cancel(job_id=first, job_name=life.name)


@life
async def gate_closed_before_it_starts(life: Life) -> None:
    closed = await life.site.files.close_gate(work_directory=life.site.folder, job_name=life.name)
    life.seen.append({"closed": closed})
    await life.submit()
    await life.until_state(JobState.Failed)


@life
async def gate_of_one_that_runs(life: Life) -> None:
    await life.submit()
    await life.until_serving()
    closed = await life.site.files.close_gate(work_directory=life.site.folder, job_name=life.name)
    life.seen.append({"closed": closed})
    await life.cancel()
    await life.until_state(JobState.Cancelled)


@life
async def held_and_released(life: Life) -> None:
    await life.site.drain(drained=True)
    await life.submit()
    await life.site.hold(life.job_id)
    await life.until(lambda record: classify(record.reason).name == "HELD")
    await life.site.drain(drained=False)
    await life.site.release(life.job_id)
    await life.until_serving()
    await life.cancel()
    await life.until_state(JobState.Cancelled)


@life
async def no_node_is_free(life: Life) -> None:
    await life.site.drain(drained=True)
    await life.submit()
    await life.until_state(JobState.Pending)
    await life.cancel()
    await life.until_state(JobState.Cancelled)
    await life.site.drain(drained=False)


@life
async def requeued_by_the_site(life: Life) -> None:
    await life.submit()
    await life.until_serving()
    await life.site.requeue(life.job_id)
    await life.until(lambda record: record.restart_count == 1 and record.state == "PENDING")
    await life.cancel()
    await life.until_state(JobState.Cancelled)


@life
async def end_moved_to_now(life: Life) -> None:
    await life.submit()
    await life.until_serving()
    await life.site.end_in_a_second(life.job_id)
    await life.until_state(JobState.Expired)


@life
async def forgotten_after_its_end(life: Life) -> None:
    await life.submit()
    await life.until_serving()
    await life.cancel()
    await life.until_state(JobState.Cancelled)
    await life.site.clear()
    end = asyncio.get_running_loop().time() + PATIENCE
    while await life.record() is not None:
        assert asyncio.get_running_loop().time() < end
        await life.site.pause()
    life.seen.append({"second source": await life.site.client.show_job(life.job_id) is not None})
    await life.cancel()  # of what is not there: no error


@life
async def refused_at_submission(life: Life) -> None:
    await life.submit(gpus=99)


def settled(seen: Seen) -> Seen:
    """What was seen but for what is too short to be seen every time: waiting, not published yet."""
    return [
        now
        for index, now in enumerate(seen)
        if "state" not in now
        or not now["live"]
        or now["published"]
        or now["waits for"] == "HELD"
        or index == len(seen) - 1
    ]


async def live(do: Step, site: Site, *, attempt: str) -> Seen:
    """Run one life and return what was seen of it."""
    one = Life(site, attempt)
    await do(one)
    return one.seen
