"""Which slice is taken away when a worker leaves the membership."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.apiserver.resources import ENDPOINT_SLICES
from isthmus.apiserver.store import Store
from isthmus.slurmjob.slices import delete_slice

JOB = {"metadata": {"namespace": "team-a", "name": "llama-hpc-0", "uid": "uid-job"}}


class Api:
    def __init__(self) -> None:
        self.deleted: list[str] = []

    async def delete(self, resource: object, *, namespace: str, name: str, uid: str) -> None:
        self.deleted.append(uid)


@pytest.mark.parametrize(
    ("owners", "goes"),
    [
        (["uid-job"], True),
        ([], True),  # its owner was taken away by hand: the worker must leave all the same
        (["uid-of-another"], False),
    ],
)
async def test_a_slice_of_the_name_that_another_owns_stays(owners: list[str], goes: bool) -> None:
    store, api = Store(watched=[ENDPOINT_SLICES]), Api()
    references = [{"kind": "SlurmJob", "name": "x", "uid": owner} for owner in owners]
    place = {"namespace": "team-a", "name": "llama-hpc-0", "uid": "uid-slice"}
    store.put(ENDPOINT_SLICES, {"metadata": {**place, "ownerReferences": references}})
    untyped: Any = api
    await delete_slice(untyped, store, JOB)
    assert api.deleted == (["uid-slice"] if goes else [])
