"""Every property counts, of what the operator says: each field of a status is written by somebody.

A field that nobody writes is documentation of something that is not so. Short worlds live until all
fields were written, those first that show the rare ones, then seeds of the corpus; what none of
them shows is asked of the function that makes it.
"""

import asyncio
import functools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from isthmus.api.modeldeployment_status import MAX_LISTED_WORKERS
from isthmus.api.slurmjob import SlurmJob
from isthmus.modeldeployment.plan import plan_model_deployment
from isthmus.slurmjob.record import AttemptStatus, Forward
from isthmus.slurmjob.submit import announced
from isthmus.ssh.keys import KeyPair
from tests import observable
from tests.drawn_specs import Path
from tests.simulation import corpus, runner
from tests.simulation.faults.register import Planned
from tests.simulation.scenarios import drained_node, start_gate
from tests.simulation.shape import Shape
from tests.simulation.written_statuses import declared, noted, written
from tests.unit import builders

FIRST, SEEDS = (79, 4, 11, 14), 25
"""Seeds that show the rare fields today, and how many of the corpus are tried at most."""

HAPPENINGS = (
    (3, Planned(at=0.0, name="nothing_can_be_sent", salt=0)),
    (2, Planned(at=200.0, name="restored_from_a_backup", salt=0)),
)
"""What has to happen for some: a submission that could not be sent, and orphans."""

UNWRITTEN: dict[str, str] = {
    "SlurmJob.conditions.[].observedGeneration": "the spec of a SlurmJob never changes, and a "
    "condition has one form in all kinds",
}
"""Fields that nobody writes, and why."""


def _text(path: Path) -> str:
    return ".".join(path)


def _worlds() -> Iterator[Callable[[], Any]]:
    yield lambda: drained_node.emptied(replicas=1)
    yield lambda: start_gate.held_back(folder_broken=True)
    yield lambda: start_gate.held_back(folder_broken=False)
    yield lambda: runner.run(31, (), shape=Shape(front=True))
    for seed, happening in HAPPENINGS:
        yield functools.partial(runner.run, seed, (happening,))
    for seed in dict.fromkeys((*FIRST, *corpus.seeds()[:SEEDS])):
        yield functools.partial(runner.run, seed)


def _more_workers_than_are_listed() -> set[Path]:
    """A simulated world is smaller."""
    workers = builders.group(*["ready"] * (MAX_LISTED_WORKERS + 1))
    one = builders.deployment(builders.desired(), workers)
    status = plan_model_deployment(one, now=builders.NOW).status
    return written("ModelDeployment", status.model_dump(by_alias=True, mode="json"))


def _job_that_calls_a_bastion() -> set[Path]:
    """Mode Reverse is not simulated."""

    async def draw() -> KeyPair:
        return KeyPair(private="private", public="ssh-ed25519 AAAA")

    async def placed(**_: object) -> None:
        pass

    folder = SimpleNamespace(place_tunnel_key=placed)
    clusters: Any = SimpleNamespace(work_folder=lambda _: folder)
    cluster: Any = SimpleNamespace(
        spec=SimpleNamespace(files=SimpleNamespace(work_directory="/scratch"))
    )
    status = announced(
        AttemptStatus(forward=Forward(mode="Reverse")),
        job=SlurmJob.model_validate(observable.slurm_job("llama", "hpc", builders.CLUSTER)),
        cluster=cluster,
        clusters=clusters,
        check=lambda: None,
        draw=draw,
    )
    stored = asyncio.run(status).write()
    return written("SlurmJob", stored.model_dump(by_alias=True, mode="json"))


MADE = (_more_workers_than_are_listed, _job_that_calls_a_bastion)


@pytest.mark.timeout(600)
def test_every_field_of_a_status_is_written_by_somebody() -> None:
    missing = declared().difference(*(made() for made in MADE))
    missing = {path for path in missing if _text(path) not in UNWRITTEN}
    with noted() as found:
        for live in _worlds():
            if not missing - found:
                break
            live()
    assert not missing - found, (
        f"nobody writes {sorted(map(_text, missing - found))}: write it, take it away, or give the "
        "reason in UNWRITTEN"
    )
    wrong = [name for name in UNWRITTEN if name in {*map(_text, found)}]
    assert not wrong, f"{wrong} is written: take it out of UNWRITTEN"
    assert not found - declared(), f"no schema has {sorted(map(_text, found - declared()))}"


def test_what_stands_as_unwritten_is_there() -> None:
    """A field that is gone takes its line with it."""
    assert set(UNWRITTEN) <= {*map(_text, declared())}
