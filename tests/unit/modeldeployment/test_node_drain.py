"""Workers on a node that is drained in SLURM: replaced first, ended afterwards."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from isthmus.api.conditions import Reason
from isthmus.backends.base import WorkerGroup
from isthmus.backends.slurm.records import NodeRecord
from isthmus.backends.slurm.states import draining_nodes
from isthmus.modeldeployment.actions import CreateRevision, CreateSlurmJob, DeleteSlurmJob
from isthmus.modeldeployment.observation import ModelDeploymentObservation, Reachability
from isthmus.modeldeployment.plan import plan_model_deployment
from isthmus.modeldeployment.policy.displacement import node_drain
from tests.unit.builders import NOW, deployment, desired, slurm_pool, slurm_worker, snapshot

DRAINING = Reachability(reachable=True, draining={"gpu01": "new firmware"})
STATES = ("ready", "joining", "degraded", "starting", "pending", "stopping", "failed")


def observed(
    *workers: tuple[str, str | None, str | None], replicas: int, view: Reachability = DRAINING
) -> ModelDeploymentObservation:
    """Workers `hpc-<n>` by state, node and whom they replace."""
    found = tuple(
        slurm_worker(f"hpc-{n}", state=state, slot=n, node=node, replaces=replaces)
        for n, (state, node, replaces) in enumerate(workers)
    )
    group = WorkerGroup(
        pool="hpc",
        backend="slurm",
        revision="new",
        wanted=sum(one.live for one in found),
        workers=found,
    )
    return deployment(desired(slurm_pool(), replicas=replicas), group, clusters={"hpc": view})


def moves(found: ModelDeploymentObservation) -> list[object]:
    actions = plan_model_deployment(found, now=NOW).actions
    return [one for one in actions if not isinstance(one, CreateRevision)]


def test_the_successor_takes_the_slot_and_comes_first() -> None:
    before = observed(("ready", "gpu01", None), ("ready", "gpu02", None), replicas=2)
    assert moves(before) == [
        CreateSlurmJob(pool="hpc", revision="new", slot=0, replaces="hpc-0"),
    ]
    waits = observed(
        ("ready", "gpu01", None), ("ready", "gpu02", None), ("starting", "gpu03", "hpc-0"),
        replicas=2,
    )  # fmt: skip
    assert moves(waits) == []
    there = observed(
        ("ready", "gpu01", None), ("ready", "gpu02", None), ("ready", "gpu03", "hpc-0"),
        replicas=2,
    )  # fmt: skip
    assert moves(there) == [DeleteSlurmJob(name="hpc-0", uid="uid-hpc-0")]


def test_the_status_says_who_and_why() -> None:
    found = plan_model_deployment(observed(("ready", "gpu01", None), replicas=1), now=NOW).status
    (listed,) = found.workers
    assert listed.displaced is not None
    assert listed.displaced.reason == Reason.NODE_DRAINING
    assert listed.displaced.message == (
        "node gpu01 is drained in SLURM (new firmware); another worker takes over first"
    )
    (progress,) = [one for one in found.conditions if one.type == "Progressing"]
    assert (progress.status, progress.reason) == ("True", "NodeDraining")
    assert "one worker is being replaced; hpc-0: node gpu01 is drained" in progress.message


def test_a_cluster_that_cannot_be_seen_displaces_nobody() -> None:
    unseen = replace(DRAINING, reachable=False, reason="SnapshotStale", message="old")
    assert node_drain.displaced(observed(("ready", "gpu01", None), replicas=1, view=unseen)) == ()


def test_which_nodes_count_as_drained() -> None:
    def node(name: str, *states: str) -> NodeRecord:
        return NodeRecord(
            name=name,
            address="10.0.0.1",
            states=frozenset(states),
            reason="r",
            partitions=frozenset({"gpu"}),
        )

    nodes = [
        node("a", "MIXED", "DRAIN"),
        node("b", "DRAINING"),
        node("c", "DRAINED"),
        node("d", "MIXED"),
        node("e", "MIXED", "DRAIN", "UNDRAIN"),
        node("f", "DOWN"),
    ]
    seen = replace(snapshot(), nodes={one.name: one for one in nodes})
    assert draining_nodes(seen) == {"a": "r", "b": "r", "c": "r"}
    assert draining_nodes(None) == {}


WORKERS = st.lists(
    st.tuples(st.sampled_from(STATES), st.sampled_from([None, "gpu01", "gpu02"]), st.none()),
    max_size=5,
)


@given(WORKERS, st.integers(0, 4))
def test_exactly_live_workers_on_drained_nodes_are_named(
    workers: list[tuple[str, str | None, None]], replicas: int
) -> None:
    found = observed(*workers, replicas=replicas)
    named = node_drain.displaced(found)
    live = [w for group in found.groups for w in group.live_workers]
    assert [one.worker for one in named] == [w.name for w in live if w.node == "gpu01"]
    assert not any(one.involuntary for one in named)


@given(WORKERS, st.integers(0, 4))
def test_a_drain_never_costs_an_available_worker_that_is_wanted(
    workers: list[tuple[str, str | None, None]], replicas: int
) -> None:
    found = observed(*workers, replicas=replicas)
    live = [w for group in found.groups for w in group.live_workers]
    gone = {one.name for one in moves(found) if isinstance(one, DeleteSlurmJob)}
    available = sum(w.available for w in live)
    assert sum(w.available for w in live if w.name not in gone) >= min(available, replicas)
