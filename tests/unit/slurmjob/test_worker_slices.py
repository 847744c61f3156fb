"""Which slice is written for a worker, and which is taken away when it leaves the membership."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.api import names
from isthmus.apiserver.resources import ENDPOINT_SLICES
from isthmus.apiserver.store import Store
from isthmus.errors import ApiAlreadyExistsError, NameTakenError
from isthmus.slurmjob.slices import delete_slice, ensure_slice

JOB = {"metadata": {"namespace": "team-a", "name": "llama-hpc-0", "uid": "uid-job"}}


class Api:
    def __init__(self, there: dict[str, Any] | None = None) -> None:
        self.there = there
        self.deleted: list[str] = []
        self.applied: list[Any] = []

    async def create(self, resource: object, obj: object) -> None:
        if self.there is not None:
            raise ApiAlreadyExistsError("exists", status=409, reason="AlreadyExists")

    async def get(self, resource: object, *, namespace: str, name: str) -> dict[str, Any] | None:
        return self.there

    async def apply(self, resource: object, obj: object) -> None:
        self.applied.append(obj)

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


OWN = {"kind": "SlurmJob", "name": "llama-hpc-0", "uid": "uid-job"}
OURS = {names.LABEL_MANAGED_BY: names.MANAGED_BY}


def _ensured(api: Any) -> Any:
    return ensure_slice(
        api, JOB, deployment="llama", service="llama", address="10.0.0.1", port=41000
    )


def _there(owners: list[dict[str, str]], labels: dict[str, str]) -> dict[str, Any]:
    place = {"namespace": "team-a", "name": "llama-hpc-0", "uid": "uid-slice"}
    return {"metadata": {**place, "ownerReferences": owners, "labels": labels}}


@pytest.mark.parametrize(
    ("owners", "labels"),
    [
        ([OWN], {}),
        ([{**OWN, "uid": "uid-before-the-backup"}], OURS),
        ([], OURS),  # its owner was taken away by hand
    ],
)
async def test_a_slice_of_ours_gets_the_worker(owners: Any, labels: Any) -> None:
    api = Api(_there(owners, labels))
    await _ensured(api)
    assert len(api.applied) == 1


@pytest.mark.parametrize(
    ("owners", "labels"),
    [
        ([{"kind": "Service", "name": "mine", "uid": "uid-mine"}], {}),
        ([{"kind": "SlurmJob", "name": "llama-hpc-1", "uid": "uid-another"}], OURS),
        ([], {}),
    ],
)
async def test_nothing_is_written_over_a_slice_of_somebody_else(owners: Any, labels: Any) -> None:
    """It was, by force: whoever had a slice of that name lost its addresses to our worker's."""
    api = Api(_there(owners, labels))
    with pytest.raises(NameTakenError, match="EndpointSlice team-a/llama-hpc-0 exists"):
        await _ensured(api)
    assert not api.applied
