"""Which key files of an attempt are removed when its SlurmJob goes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from isthmus.errors import SlurmUnavailableError
from isthmus.slurmjob.key_files import KeyStaging


class Client:
    """Notes for which jobs files are removed; `broken` does not place any."""

    def __init__(self) -> None:
        self.removed: list[str] = []
        self.broken = False

    async def place_secret(self, *, work_directory: str, job_name: str, content: str) -> None:
        if self.broken:
            raise SlurmUnavailableError("broke off", reason="SshUnreachable")

    async def remove_secrets(self, *, work_directory: str, job_name: str) -> None:
        self.removed.append(f"{work_directory}/{job_name}")


class World:
    def __init__(self, *, key: str | None, bastion: bool) -> None:
        self.client = Client()
        clusters = SimpleNamespace(work_folder=lambda _: self.client)
        self.staging = KeyStaging(
            keys=Keys(),  # type: ignore[arg-type]
            clusters=clusters,  # type: ignore[arg-type]
            check=lambda: None,
            clock=lambda: 1000.0,
        )
        self.frozen: Any = SimpleNamespace(template=SimpleNamespace(key=key))
        network = SimpleNamespace(bastion=object() if bastion else None)
        files = SimpleNamespace(work_directory="/work")
        self.cluster: Any = SimpleNamespace(spec=SimpleNamespace(network=network, files=files))

    def job(self, **status: Any) -> Any:
        known = {"submit_started_at": None, "start_time": None, **status}
        return SimpleNamespace(
            spec=SimpleNamespace(
                job_name="llama-1",
                deployment="llama",
                cluster=SimpleNamespace(namespace="default", name="hpc"),
            ),
            metadata=SimpleNamespace(namespace="default", deleting=True),
            status=SimpleNamespace(**known),
            work_directory="",
        )

    async def remove(self, **status: Any) -> list[str]:
        await self.staging.remove(job=self.job(**status), frozen=self.frozen, cluster=self.cluster)
        return self.client.removed


class Keys:
    async def key(self, *_: Any) -> str:
        return "a key"


@pytest.mark.parametrize(
    ("key", "bastion", "removed"),
    [
        ("abc", False, ["/work/llama-1"]),
        (None, True, ["/work/llama-1"]),
        (None, False, []),
    ],
)
async def test_l3_keys_of_a_job_that_never_started_are_removed(
    key: str | None, bastion: bool, removed: list[str]
) -> None:
    world = World(key=key, bastion=bastion)
    assert await world.remove(submit_started_at="2026-11-20T10:00:00Z") == removed


@pytest.mark.parametrize(
    "status", [{}, {"submit_started_at": "2026-11-20T10:00:00Z", "start_time": "x"}]
)
async def test_nothing_is_removed_where_nothing_can_be(status: dict[str, str]) -> None:
    assert await World(key="abc", bastion=True).remove(**status) == []


async def test_l3_keys_of_an_attempt_that_broke_off_before_it_was_announced_are_removed() -> None:
    world = World(key="abc", bastion=False)
    world.client.broken = True
    with pytest.raises(SlurmUnavailableError):
        await world.staging.stage(job=world.job(), frozen=world.frozen, folder="/work")
    assert await world.remove() == ["/work/llama-1"]


async def test_b9_an_attempt_whose_object_somebody_took_away_is_forgotten() -> None:
    """No last pass sees it, so its name stayed in memory for ever."""
    world = World(key="abc", bastion=False)
    await world.staging.stage(job=world.job(), frozen=world.frozen, folder="/work")
    world.staging.forget("llama-1")
    assert await world.remove() == []
