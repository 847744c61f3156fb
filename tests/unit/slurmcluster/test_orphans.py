"""Jobs of ours without an object: found by their whole name, ended when it is sure."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.api import names
from isthmus.api.conditions import Reason
from isthmus.api.desired import ClusterReference
from isthmus.apiserver.gate import OpenGate
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS, SLURM_JOBS, WATCHED
from isthmus.apiserver.store import Store
from isthmus.backends.slurm.records import JobRecord
from isthmus.errors import RefusalCode, SlurmCommandError
from isthmus.slurmcluster.orphans import Orphans
from tests.unit.builders import COMMENT, NOW, record, snapshot

HPC = ClusterReference(namespace="isthmus-system", name="hpc")
AFTER = 600.0
NAME = names.slurm_job_name(
    deployment="llama",
    installation_id="isthmus0",
    namespace="team-a",
    uid="uid-llama",
    slot=0,
    attempt="x7k2qp",
)
GONE = NAME.replace(names.parse_slurm_job_name(NAME).deployment_hash, "0000000000")  # type: ignore[union-attr]


class Client:
    def __init__(self, *, refused: frozenset[int] = frozenset()) -> None:
        self.cancelled: list[tuple[int, str]] = []
        self.refused = refused

    async def cancel(self, *, job_id: int, job_name: str) -> None:
        if job_id in self.refused:
            raise SlurmCommandError("denied", code=RefusalCode.PERMISSION_DENIED)
        self.cancelled.append((job_id, job_name))


@pytest.fixture
def store() -> Store:
    found = Store(watched=[resource for resource, _ in WATCHED])
    meta = {"namespace": "team-a", "name": "llama", "uid": "uid-llama", "resourceVersion": "1"}
    found.put(MODEL_DEPLOYMENTS, {"metadata": meta})
    return found


def orphans(store: Store, *, watched: tuple[str, ...] = (), seconds: float = AFTER) -> Orphans:
    return Orphans(
        store=store,
        gate=OpenGate(),
        installation_id="isthmus0",
        watched=watched,
        after=seconds,
    )


def after(found: Orphans, *jobs: JobRecord, seconds: float = AFTER) -> Any:
    for moment in (0.0, 30.0, seconds):
        last = found.look(HPC, snapshot(*jobs, at=NOW + moment))
    return last


@pytest.mark.parametrize(
    ("name", "reason"), [(NAME, Reason.ATTEMPT_UNKNOWN), (GONE, Reason.DEPLOYMENT_GONE)]
)
def test_what_nobody_knows_for_long_is_an_orphan(store: Store, name: str, reason: Reason) -> None:
    found = orphans(store)
    assert after(found, record(name=name), seconds=AFTER - 1) == ()
    (orphan,) = after(found, record(name=name))
    assert orphan.reason == reason


def test_a_look_without_it_begins_anew(store: Store) -> None:
    found = orphans(store)
    after(found, record(name=NAME), seconds=AFTER - 1)
    found.look(HPC, snapshot(at=NOW + AFTER))
    assert found.look(HPC, snapshot(record(name=NAME), at=NOW + AFTER + 1)) == ()


def test_a_site_says_after_how_long(store: Store) -> None:
    job = record(name=NAME)
    assert len(after(orphans(store, seconds=40.0), job, seconds=45.0)) == 1
    assert after(orphans(store, seconds=60.0), job, seconds=45.0) == ()


@pytest.mark.parametrize(
    "job",
    [
        record("COMPLETED", name=NAME),
        record(name=NAME.replace("-isthmus0-", "-isthmus9-")),
        record(name="somebody-elses-job"),
        record(name=f"{NAME}-8b"),
        record(name=f"x\n{NAME}"),  # L5
    ],
)
def test_what_is_not_ours_or_over_is_none(store: Store, job: JobRecord) -> None:
    assert after(orphans(store), job) == ()


def test_what_has_an_object_is_none(store: Store) -> None:
    meta = {"namespace": "team-a", "name": "a", "uid": "u", "resourceVersion": "2"}
    store.put(SLURM_JOBS, {"metadata": meta, "spec": {"jobName": NAME}})
    assert after(orphans(store), record(name=NAME)) == ()


def test_a_look_that_does_not_show_all_jobs_makes_none(store: Store) -> None:
    found = orphans(store)
    for moment in (0.0, 300.0, AFTER, AFTER + 30):
        strange = snapshot(record(name=NAME), nameless=("JobID is 'x'",), at=NOW + moment)
        assert found.look(HPC, strange) is None
    assert found.look(HPC, snapshot(record(name=NAME), at=NOW + 2 * AFTER)) == ()


def test_an_operator_of_one_namespace_judges_only_that(store: Store) -> None:
    mine = record(name=NAME, comment=COMMENT)
    assert len(after(orphans(store, watched=("team-a",)), mine)) == 1
    assert after(orphans(store, watched=("team-b",)), mine) == ()
    assert after(orphans(store, watched=("team-a",)), record(name=NAME, comment="wckey=x")) == ()


async def test_each_look_cancels_once_what_still_lives(store: Store) -> None:
    found, client = orphans(store), Client()
    jobs = (record(name=NAME), record("COMPLETING", name=GONE, job_id=102))
    ripe = after(found, *jobs)
    last = snapshot(*jobs, at=NOW + AFTER)
    for _ in range(2):
        await found.cancel(HPC, ripe, client=client, snapshot=last)  # type: ignore[arg-type]
    assert client.cancelled == [(101, NAME)]


async def test_l5_one_that_cannot_be_cancelled_stops_none_of_the_others(store: Store) -> None:
    refused = frozenset(range(1, 12))
    found, client = orphans(store), Client(refused=refused)
    jobs = [record(name=NAME, job_id=job_id) for job_id in range(1, 16)]
    ripe = after(found, *jobs)
    for moment in (AFTER, AFTER + 30):
        last = snapshot(*jobs, at=NOW + moment)
        await found.cancel(HPC, ripe, client=client, snapshot=last)  # type: ignore[arg-type]
    assert {12, 13, 14, 15} <= {job_id for job_id, _ in client.cancelled}
