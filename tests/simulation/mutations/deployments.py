"""How many workers there are, who goes first, and what is counted."""

from dataclasses import replace
from typing import Any
from unittest.mock import patch

from isthmus.backends.base import Worker
from isthmus.backends.kubernetes import observe as pod_observation
from isthmus.backends.slurm import workers as slurm_workers
from isthmus.modeldeployment import plan as planner
from isthmus.modeldeployment.actions import ScaleDeployment
from isthmus.modeldeployment.policy import rollout, scaledown
from isthmus.modeldeployment.policy.displacement import silence
from tests.simulation.mutations.register import Patches, mutation, without_waiting


@mutation()
def count_workers_that_are_ending() -> Patches:
    return [patch.object(Worker, "live", property(lambda self: not self.failed))]


@mutation()
def take_away_without_a_budget() -> Patches:
    return [patch.object(rollout._Budget, "takes", lambda self, worker, *, displaced: True)]


@mutation()
def release_a_busy_pod() -> Patches:
    return [patch.object(scaledown, "decide", without_waiting)]


@mutation()
def scale_pods_away_in_rotation() -> Patches:
    def at_once(group: Any, *, count: int, **_: Any) -> scaledown.Steps:
        if count == group.wanted:
            return scaledown.Steps()
        scale = ScaleDeployment(pool=group.pool, revision=group.revision, replicas=count)
        return scaledown.Steps(actions=(scale,))

    return [patch.object(planner, "steps", at_once)]


@mutation()
def surge_without_a_limit() -> Patches:
    return [patch.object(planner, "STRATEGY", rollout.Strategy(surge=4))]


@mutation()
def a_failed_probe_makes_a_worker_worthless() -> Patches:
    original = slurm_workers.worker

    def worker(job: Any, **others: Any) -> Worker:
        found = original(job, **others)
        return replace(found, serving=found.ready, failed=found.failed or found.phase == "Degraded")

    return [patch.object(slurm_workers, "worker", worker)]


@mutation()
def count_pods_that_are_terminating() -> Patches:
    return [patch.object(pod_observation, "deletion_timestamp", lambda pod: None)]


@mutation("network_to_the_nodes_is_down")
def a_silent_worker_goes_since_nobody_answers() -> Patches:
    original = silence.displaced

    def at_once(observed: Any) -> Any:
        return tuple(replace(one, on_trial=False, involuntary=True) for one in original(observed))

    def gone(self: Any, worker: Any, *, displaced: bool) -> bool:
        return displaced or takes(self, worker, displaced=displaced)

    takes = rollout._Budget.takes
    return [
        patch.object(silence, "displaced", at_once),
        patch.object(rollout._Budget, "takes", gone),
    ]


@mutation("node_is_drained")
def a_displaced_worker_goes_at_once() -> Patches:
    original = rollout._Budget.takes

    def takes(self: Any, worker: Any, *, displaced: bool) -> bool:
        return displaced or original(self, worker, displaced=displaced)

    return [patch.object(rollout._Budget, "takes", takes)]
