"""What is known of one cluster of SLURM, and of its nodes, taken for more than it says."""

from dataclasses import replace
from typing import Any
from unittest.mock import patch

from isthmus.backends.slurm.records import NodeRecord, Snapshot
from isthmus.backends.slurm.states import node_draining, node_maintenance, node_suspect
from isthmus.modeldeployment import observe as deployment_observation
from isthmus.modeldeployment.policy.displacement import node_drain
from isthmus.slurmcluster import plan as cluster_plan
from isthmus.slurmjob import observe as job_observation
from tests.simulation.mutations.register import Patches, mutation


@mutation("something_happens_elsewhere", shape="two clusters")
def a_drained_node_is_one_of_every_cluster() -> Patches:
    displaced = node_drain.displaced

    def everywhere(observed: Any) -> Any:
        views = observed.clusters
        drained: dict[str, str] = {}
        for view in views.values():
            drained |= view.draining
        together = {name: replace(view, draining=drained) for name, view in views.items()}
        return displaced(replace(observed, clusters=together))

    return [patch.object(node_drain, "displaced", everywhere)]


@mutation("something_happens_elsewhere", shape="two clusters")
def an_answer_of_another_cluster_shows_our_view_of_this_one() -> Patches:
    def anywhere(key: Any, job: Any, *, probes: Any, store: Any) -> bool:
        return any(other != key and state.last.ok for other, state in probes.states())

    return [patch.object(job_observation, "others_answer", anywhere)]


@mutation("node_is_maintained", shape="nodes in trouble")
def workers_leave_a_node_in_maintenance() -> Patches:
    def either(snapshot: Snapshot | None) -> dict[str, str]:
        nodes = () if snapshot is None else snapshot.nodes.values()
        found = (node for node in nodes if node_draining(node) or node_maintenance(node))
        return {node.name: node.reason for node in found}

    return [patch.object(deployment_observation, "draining_nodes", either)]


@mutation("node_does_not_respond", shape="nodes in trouble")
def a_silent_node_counts_as_usable() -> Patches:
    usable = cluster_plan.node_usable

    def suspected_too(node: NodeRecord) -> bool:
        return usable(node) or node_suspect(node)

    return [patch.object(cluster_plan, "node_usable", suspected_too)]
