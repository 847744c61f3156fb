"""Workers that pods cannot reach."""

from dataclasses import replace
from typing import Any
from unittest.mock import patch

from isthmus.api.conditions import Reason
from isthmus.backends.base import Worker
from isthmus.backends.slurm import workers as slurm_workers
from isthmus.slurmjob.policy import stopping
from isthmus.tunnels import supervisor as supervisors
from isthmus.tunnels.leftovers import Leftovers
from isthmus.tunnels.rules import Health, View
from tests.simulation.mutations.register import Patches, mutation


@mutation("supervisor_killed")
def a_forward_is_ready_without_an_answer() -> Patches:
    return [patch.object(Health, "serves", property(lambda self: True))]


@mutation("login_hosts_away")
def a_broken_way_is_a_broken_worker() -> Patches:
    original = slurm_workers.worker

    def worker(job: Any, **others: Any) -> Worker:
        found = original(job, **others)
        lost = job.status is not None and job.status.reason == Reason.TUNNEL_DOWN
        return replace(found, failed=found.failed or lost)

    return [patch.object(slurm_workers, "worker", worker)]


@mutation("login_hosts_away")
def a_supervisor_empties_a_service() -> Patches:
    def ready(views: Any, *, others: Any, leaving: bool = False) -> frozenset[str]:
        def good(view: View) -> bool:
            return view.in_traffic and view.established and view.health.serves and not leaving

        return frozenset(view.key for view in views if good(view))

    return [patch.object(supervisors, "ready_forwards", ready)]


@mutation("supervisor_lost")
def slices_of_a_dead_supervisor_stay() -> Patches:
    async def nothing(self: Leftovers, mine: frozenset[str]) -> None:
        return

    return [patch.object(Leftovers, "remove", nothing)]


@mutation("supervisor_lost", "scale")
def a_deletion_waits_for_a_dead_supervisor() -> Patches:
    return [patch.object(stopping, "_withdrawn", lambda observed, *, now: ())]
