"""Whose keys a change in the store adds to the queue."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from isthmus.api.desired import ClusterReference
from isthmus.apiserver.key import Key
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS, SLURM_JOBS, WATCHED
from isthmus.apiserver.store import Store
from isthmus.backends.slurm.records import SnapshotChanges
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


def slurm_job(name: str, deployment: str, uid: str = "u1") -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "team-a",
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": "1",
            "labels": {"isthmus.dev/modeldeployment": deployment},
            "ownerReferences": [{"kind": "ModelDeployment", "name": deployment, "uid": uid}],
        },
        "spec": {
            "clusterRef": {"namespace": "isthmus-system", "name": "hpc"},
            "deployment": deployment,
        },
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
    store.put(SLURM_JOBS, slurm_job("other-hpc-0", "other", uid="u2"))
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


async def test_a_job_without_labels_is_known_by_its_owner() -> None:
    """Its deployment hears of it and gives them back; and it hears of its deployment."""
    now = 0.0
    store = Store(watched=[resource for resource, _ in WATCHED])
    queue = WorkQueue(retry_base=1.0, retry_cap=2.0, random=Random(1), clock=lambda: now)
    Triggers(store=store, queue=queue, operator_namespace="isthmus-system").attach()
    store.put(MODEL_DEPLOYMENTS, model_deployment(2))
    store.put(SLURM_JOBS, slurm_job("llama-hpc-0", "llama"))
    now += 60
    drained(queue)
    bare = slurm_job("llama-hpc-0", "llama")
    bare["metadata"] |= {"labels": {}, "resourceVersion": "3"}
    store.put(SLURM_JOBS, bare)
    now += 60
    assert Key("ModelDeployment", "team-a", "llama") in drained(queue)
    store.put(MODEL_DEPLOYMENTS, model_deployment(4, replicas=2))
    assert Key("SlurmJob", "team-a", "llama-hpc-0") in drained(queue)


async def test_a_drained_node_wakes_the_deployments_of_its_cluster_and_nobody_else() -> None:
    store = Store(watched=[resource for resource, _ in WATCHED])
    queue = WorkQueue(retry_base=1.0, retry_cap=2.0, random=Random(1))
    triggers = Triggers(store=store, queue=queue, operator_namespace="isthmus-system")
    pools = [{"name": "hpc", "slurm": {"clusterRef": {"name": "hpc"}}}]
    store.put(MODEL_DEPLOYMENTS, model_deployment(1, pools=pools))
    store.put(SLURM_JOBS, slurm_job("llama-hpc-0", "llama"))
    hpc = ClusterReference(namespace="isthmus-system", name="hpc")
    cluster = Key("SlurmCluster", "isthmus-system", "hpc")
    deployment = Key("ModelDeployment", "team-a", "llama")

    def woken(reference: ClusterReference, *, draining: bool) -> set[Key]:
        triggers.cluster_changed(reference, SnapshotChanges(jobs=frozenset(), draining=draining))
        return drained(queue)

    assert woken(hpc, draining=False) == {cluster}
    assert woken(hpc, draining=True) == {cluster, deployment}
    other = replace(hpc, name="other")
    assert woken(other, draining=True) == {Key("SlurmCluster", "isthmus-system", "other")}
