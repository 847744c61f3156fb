"""B7: what ended attempts have left in a work directory goes, and nothing else."""

import asyncio
from dataclasses import replace
from typing import Any, cast

import hypothesis.strategies as st
import pytest
from hypothesis import given

from isthmus.api.desired import ClusterReference
from isthmus.apiserver.gate import OpenGate
from isthmus.apiserver.resources import SLURM_JOBS
from isthmus.apiserver.store import Store
from isthmus.backends.slurm.records import UnreadableJob
from isthmus.backends.slurm.work_folder import WorkFolder
from isthmus.errors import NotLeaderError, SlurmUnavailableError
from isthmus.slurmcluster.leftovers import EVERY, Leftovers
from isthmus.slurmcluster.policy.leftovers import MOST, may_go
from tests.unit.builders import record, snapshot

OURS = "llama-prod0001-0123456789-0-x7k2qp"
HPC = ClusterReference(namespace="n", name="hpc")


@given(st.text("ab-.0/\n", max_size=12), st.sampled_from(["", ".log", ".key", ".claim", ".17.log"]))
def test_b7_only_whole_names_of_ours_go(text: str, end: str) -> None:
    for name in (text + end, OURS + text, f"{text}/{OURS}{end}", f"{OURS}{end}\n"):
        for file in may_go([name], installation_id="prod0001", known=set()):
            assert OURS in file or "prod0001" in file
            assert "/" not in file
            assert "\n" not in file


def test_b7_files_of_what_is_known_and_of_others_stay() -> None:
    files = [f"{OURS}.17.log", OURS.replace("prod0001", "prod0002"), "notes.log", f"{OURS}.txt"]
    assert may_go(files, installation_id="prod0001", known=set()) == (f"{OURS}.17.log",)
    assert may_go(files, installation_id="prod0001", known={OURS}) == ()
    many = [f"{OURS}.{n}.log" for n in range(MOST + 50)]
    assert len(may_go(many, installation_id="prod0001", known=set())) == MOST


class Client:
    def __init__(self) -> None:
        self.files: tuple[str, ...] = ()
        self.asked, self.removed = 0, [""] * 0
        self.fails = False

    async def old_files(self, **_: object) -> tuple[str, ...]:
        self.asked += 1
        if self.fails:
            raise SlurmUnavailableError("no answer", reason="CommandTimeout")
        return self.files

    async def remove_files(self, *, work_directory: str, files: tuple[str, ...]) -> None:
        self.removed += files


def test_b7_looks_once_an_hour_and_only_by_a_snapshot_that_shows_all() -> None:
    now = 1e9
    store, client = Store(watched=[SLURM_JOBS]), Client()
    kept = OURS.replace("-0-", "-1-")
    obj: Any = {"metadata": {"name": "j", "namespace": "n", "uid": "u", "resourceVersion": "1"}}
    store.put(SLURM_JOBS, {**obj, "spec": {"jobName": kept}})
    leftovers = Leftovers(
        store=store, gate=OpenGate(), installation_id="prod0001", keep=60, clock=lambda: now
    )
    running = OURS.replace("-0-", "-2-")
    unreadable = OURS.replace("-0-", "-3-")
    client.files = (f"{OURS}.1.log", *(f"{name}.2.log" for name in (kept, running, unreadable)))
    odd = UnreadableJob(job_id=7, name=unreadable, problem="its state")
    shown = replace(snapshot(record(name=running)), unreadable=(odd,))

    def look(seen: Any) -> None:
        given = cast(WorkFolder, client)
        asyncio.run(leftovers.look(HPC, seen, work_folder=given, folder="/w"))

    look(replace(shown, nameless=("?",)))
    assert client.asked == 0, "a record that nobody can name may be of any job"
    client.fails = True
    look(shown)
    assert (client.asked, client.removed) == (1, [])
    client.fails, now = False, now + EVERY
    look(shown)
    look(shown)
    assert (client.asked, client.removed) == (2, [f"{OURS}.1.log"])


class ClosedGate:
    def check(self) -> None:
        raise NotLeaderError("the lease is lost")


def test_b7_nothing_goes_once_the_lease_is_lost() -> None:
    client = Client()
    client.files = (f"{OURS}.1.log",)
    leftovers = Leftovers(
        store=Store(watched=[SLURM_JOBS]),
        gate=ClosedGate(),
        installation_id="prod0001",
        keep=60,
        clock=lambda: 1e9,
    )
    with pytest.raises(NotLeaderError):
        asyncio.run(
            leftovers.look(HPC, snapshot(), work_folder=cast(WorkFolder, client), folder="/w")
        )
    assert client.removed == []
