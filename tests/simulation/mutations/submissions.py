"""What may be submitted, and when."""

from typing import Any
from unittest.mock import patch

from isthmus.api.conditions import Phase
from isthmus.api.slurmjob import SlurmJob
from isthmus.apiserver.election import LeaderElector
from isthmus.backends.slurm import sbatch_answers
from isthmus.slurmcluster import view as cluster_view
from isthmus.slurmcluster.state import ClusterState
from isthmus.slurmjob import start_gate as startgate
from isthmus.slurmjob import submit
from isthmus.slurmjob.policy import blame, submission
from isthmus.turns import Turns
from tests.simulation.mutations.register import Patches, mutation
from tests.simulation.slurm import Slurm


@mutation()
def sbatch_without_an_acknowledged_intent() -> Patches:
    original = submit.write_status

    async def write(api: Any, resource: Any, *, obj: Any, status: Any) -> Any:
        if getattr(status, "phase", None) == Phase.SUBMITTING:
            return obj
        return await original(api, resource, obj=obj, status=status)

    return [patch.object(submit, "write_status", write)]


@mutation()
def submit_again_at_once_after_an_unclear_answer() -> Patches:
    absent = lambda observed, *, now: submission.Unknown.ABSENT  # noqa: E731
    return [
        patch.object(submission, "resolve", absent),
        patch.object(submission, "not_before", lambda observed: 0.0),
    ]


@mutation()
def no_start_gate() -> Patches:
    class Open(dict[str, str]):
        def __contains__(self, key: object) -> bool:
            return False

    original = Slurm.__init__

    def without(self: Any, **arguments: Any) -> None:
        original(self, **arguments)
        self.claims = Open()

    return [patch.object(Slurm, "__init__", without)]


@mutation()
def leave_the_gate_open() -> Patches:
    async def closed(self: Any, job: Any, cluster: Any) -> startgate.Closing:
        return startgate.Closing.CLOSED

    return [patch.object(startgate.StartGate, "close", closed)]


@mutation("pause")
def forget_the_lease() -> Patches:
    return [patch.object(LeaderElector, "check", lambda self: None)]


@mutation()
def a_stale_snapshot_is_good_enough() -> Patches:
    fresh = lambda self, *, now: self.snapshot is not None  # noqa: E731
    return [patch.object(ClusterState, "fresh", fresh)]


@mutation("wipe_status", "edit_cluster")
def submit_through_the_folder_of_today() -> Patches:
    return [patch.object(SlurmJob, "work_directory", None)]


@mutation("node_goes_bad")
def go_to_a_bad_node_again_and_again() -> Patches:
    return [patch.object(blame, "excluded", lambda attempts, **others: ())]


@mutation("hostile_deployment")
def unclear_submissions_are_counted_over_all_namespaces() -> Patches:
    return [
        patch.object(cluster_view, "SHARE", 1_000_000),
        patch.object(cluster_view, "speaks_of_an_outage", lambda words: True),
    ]


@mutation("hostile_deployment")
def the_line_is_first_come_first_served() -> Patches:
    add, remove, holds = Turns.add, Turns.remove, Turns.holds
    return [
        patch.object(Turns, "add", lambda self, namespace, item: add(self, "", item)),
        patch.object(Turns, "remove", lambda self, namespace, item: remove(self, "", item)),
        patch.object(Turns, "holds", lambda self, namespace, item: holds(self, "", item)),
    ]


@mutation("hostile_deployment")
def the_same_answer_is_never_a_refusal() -> Patches:
    return [patch.object(submission, "is_refused", lambda status: False)]


@mutation("hostile_deployment")
def a_refusal_in_words_that_nobody_lists_is_unclear() -> Patches:
    return [patch.object(sbatch_answers, "_is_answer", lambda text: False)]
