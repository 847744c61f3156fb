"""Whether the status of an attempt is stored already, so that a pass ends without writing it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from isthmus.api.conditions import Phase, Reason
from isthmus.apiserver.resources import SLURM_JOBS
from isthmus.apiserver.status_bounds import written
from isthmus.apiserver.statuses import has_status
from isthmus.apiserver.store import Store
from isthmus.slurmjob.stored_status import is_stored, stored_status
from tests.unit.builders import stored
from tests.unit.tunnels.test_tunnel_rules import slurm_job

WHOLE = written(stored(Phase.READY, reason=Reason.HEALTHY))


def held(status: dict[str, Any], *, version: int = 1) -> tuple[Store, dict[str, Any]]:
    """A store with one SlurmJob, and it as it lies there."""
    store = Store(watched=[SLURM_JOBS])
    put(store, status, version=version)
    found: Any = store.list(SLURM_JOBS)[0]
    return store, found


def put(store: Store, status: dict[str, Any], *, version: int) -> None:
    obj = slurm_job()
    meta = {**obj["metadata"], "resourceVersion": str(version)}
    store.put(SLURM_JOBS, {**obj, "metadata": meta, "status": status})


@pytest.mark.parametrize("status", [written(stored(Phase.WAITING)), WHOLE])
def test_what_is_stored_as_we_would_write_it_is_not_written(status: dict[str, Any]) -> None:
    store, raw = held(status)
    assert is_stored(raw, stored_status(raw, store=store), store=store)


def test_what_became_different_is_written() -> None:
    store, raw = held(WHOLE)
    now = replace(stored_status(raw, store=store), message="no longer")
    assert not is_stored(raw, now, store=store)


@pytest.mark.parametrize(
    "ours", [{"phase": "Flying"}, {"message": "x" * 2000}, {"startTime": "soon"}], ids=str
)
def test_what_we_would_write_otherwise_is_written(ours: dict[str, Any]) -> None:
    """Read, it is what the plan wants; in the object it is not."""
    store, raw = held({**WHOLE, **ours})
    status = stored_status(raw, store=store)
    assert not has_status(raw, status.write())
    assert not is_stored(raw, status, store=store)


def test_what_a_newer_release_wrote_beside_it_stays_and_is_no_reason_to_write() -> None:
    store, raw = held({**WHOLE, "mood": "good"})
    assert is_stored(raw, stored_status(raw, store=store), store=store)


def test_of_an_object_that_has_changed_or_is_gone_nothing_is_remembered() -> None:
    store, raw = held(WHOLE)
    status = stored_status(raw, store=store)
    put(store, {"phase": "Waiting"}, version=2)
    assert not is_stored(raw, status, store=store)
    meta = raw["metadata"]
    store.remove(SLURM_JOBS, meta["namespace"], meta["name"], meta["uid"])
    assert not is_stored(raw, status, store=store)
    assert len(store.derived) == 0
