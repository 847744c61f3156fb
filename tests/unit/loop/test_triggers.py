"""Whose keys a change in the store adds to the queue."""

from __future__ import annotations

from random import Random
from typing import Any

from isthmus.apiserver.key import Key
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS, SLURM_JOBS, WATCHED
from isthmus.apiserver.store import Store
from isthmus.loop.queue import WorkQueue
from isthmus.loop.triggers import Triggers


def model_deployment(version: int, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "team-a",
            "name": "llama",
            "uid": "u1",
            "resourceVersion": str(version),
        },
        "spec": spec,
    }


def slurm_job(name: str, deployment: str) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "team-a",
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": "1",
            "labels": {"isthmus.dev/modeldeployment": deployment},
        },
        "spec": {"clusterRef": {"namespace": "isthmus-system", "name": "hpc"}},
    }


def drained(queue: WorkQueue) -> set[Key]:
    found = set()
    while (key := queue.try_get()) is not None:
        queue.done(key)
        found.add(key)
    return found


async def test_attempts_hear_of_a_changed_deployment() -> None:
    """Its endpoint says which Service their slices belong to: that must not wait for the resync."""
    store = Store(watched=[resource for resource, _ in WATCHED])
    queue = WorkQueue(retry_base=1.0, retry_cap=2.0, random=Random(1))
    Triggers(store=store, queue=queue, operator_namespace="isthmus-system").attach()
    store.put(SLURM_JOBS, slurm_job("llama-hpc-0", "llama"))
    store.put(SLURM_JOBS, slurm_job("other-hpc-0", "other"))
    store.put(MODEL_DEPLOYMENTS, model_deployment(2, endpoint={"type": "Managed"}))
    drained(queue)
    store.put(MODEL_DEPLOYMENTS, model_deployment(3, endpoint={"type": "Service"}))
    assert drained(queue) == {
        Key("ModelDeployment", "team-a", "llama"),
        Key("SlurmJob", "team-a", "llama-hpc-0"),
    }
    store.put(
        MODEL_DEPLOYMENTS, {**model_deployment(4, endpoint={"type": "Service"}), "status": {}}
    )
    assert drained(queue) == {Key("ModelDeployment", "team-a", "llama")}
