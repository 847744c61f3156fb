"""Deliberate breaks of the rules: the simulation is worth what it catches of these.

Each patches the project's own code in this process; `mutants` runs them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from isthmus import assembly
from isthmus.api.conditions import Phase, Reason
from isthmus.api.slurmjob import SlurmJob
from isthmus.apiserver.election import LeaderElector
from isthmus.backends.base import Load, Worker
from isthmus.backends.kubernetes import observe as pod_observation
from isthmus.backends.slurm import sbatch_answers
from isthmus.backends.slurm import workers as slurm_workers
from isthmus.backends.slurm.states import JobState
from isthmus.engines import ENGINES
from isthmus.engines.metrics import LoadRule
from isthmus.engines.sglang import Sglang
from isthmus.modeldeployment import plan as planner
from isthmus.modeldeployment.actions import ScaleDeployment
from isthmus.modeldeployment.policy import rollout, scaledown
from isthmus.rules.drain import Decision, DrainTimes, Proceed, Wait
from isthmus.slurmcluster import view as cluster_view
from isthmus.slurmcluster.policy import orphans
from isthmus.slurmcluster.state import ClusterState
from isthmus.slurmjob import attempt_keys, plan, submit
from isthmus.slurmjob import reconciler as reconcile
from isthmus.slurmjob import start_gate as startgate
from isthmus.slurmjob.actions import EnsureSlice
from isthmus.slurmjob.attempt_keys import AttemptKeys
from isthmus.slurmjob.ownership import Ownership
from isthmus.slurmjob.policy import absence, blame, degraded, identity, stopping, submission
from isthmus.tunnels import supervisor as supervisors
from isthmus.tunnels.rules import Health, View
from isthmus.tunnels.supervisor import Supervisor
from isthmus.turns import Turns
from tests.simulation.slurm import Slurm

Patches = list[Any]


@dataclass(frozen=True, slots=True)
class Mutation:
    """One broken rule.

    Attributes:
        make: the patches that break it.
        needs: happenings without which a run cannot show it; seeds without them are passed over.
    """

    make: Callable[[], Patches]
    needs: frozenset[str]


MUTATIONS: dict[str, Mutation] = {}


def mutation(*needs: str) -> Callable[[Callable[[], Patches]], Callable[[], Patches]]:
    def register(make: Callable[[], Patches]) -> Callable[[], Patches]:
        MUTATIONS[make.__name__] = Mutation(make, frozenset(needs))
        return make

    return register


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
def one_absence_is_gone() -> Patches:
    proved = lambda observed: absence.Absence.GONE  # noqa: E731
    gone = lambda observed, *, now: plan.SlurmJobPlan(  # noqa: E731
        status=replace(
            observed.status, phase=Phase.FINISHED, reason=Reason.JOB_VANISHED, healthy=False
        )
    )
    return [
        patch.object(absence, "judge", proved),
        patch.object(plan, "_missing", gone),
        patch.object(
            stopping,
            "_without_record",
            lambda o, *, now: stopping._done(o, now=now, close_gate=False),
        ),
    ]


@mutation()
def publish_before_identity() -> Patches:
    original = plan.with_membership

    def early(observed: Any, found: Any) -> Any:
        status = found.status
        place = (status.host, status.port)
        if status.phase == Phase.STARTING and all(place) and observed.slice_target != place:
            action = EnsureSlice(address=status.host, port=status.port)
            return replace(found, actions=(action, *found.actions))
        return original(observed, found)

    return [patch.object(plan, "with_membership", early)]


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


@mutation("pause")
def forget_the_lease() -> Patches:
    return [patch.object(LeaderElector, "check", lambda self: None)]


@mutation()
def a_stale_snapshot_is_good_enough() -> Patches:
    fresh = lambda self, *, now: self.snapshot is not None  # noqa: E731
    return [patch.object(ClusterState, "fresh", fresh)]


@mutation()
def terminate_before_the_nodes_have_heard() -> Patches:
    original = assembly.limits_of

    def hasty(settings: Any) -> Any:
        limits = original(settings)
        return lambda cluster: replace(limits(cluster), deregister_delay=0.0)

    return [patch.object(assembly, "limits_of", hasty)]


@mutation()
def count_workers_that_are_ending() -> Patches:
    return [patch.object(Worker, "live", property(lambda self: not self.failed))]


@mutation()
def let_go_without_looking() -> Patches:
    def hasty(observed: Any, *, now: float) -> Any:
        return stopping._done(observed, now=now, close_gate=False)

    return [patch.object(stopping, "_stop", hasty)]


@mutation()
def cancel_all_but_the_lowest_id() -> Patches:
    def lowest(*, records: Any, attempt: str, bound: int | None) -> identity.Choice:
        ordered = sorted(records, key=lambda record: -record.job_id)
        return identity.Choice(ordered[0], tuple(ordered[1:])) if ordered else identity.Choice(None)

    return [
        patch.object(plan, "choose", lowest),
        patch.object(stopping, "choose", lowest),
    ]


@mutation()
def take_away_without_a_budget() -> Patches:
    return [patch.object(rollout._Budget, "takes", lambda self, worker, *, displaced: True)]


def _without_waiting(*, out_since: float, now: float, load: Load, times: DrainTimes) -> Decision:
    """Only the floor is kept."""
    left = out_since + times.floor - now
    return Wait(left) if left > 0 else Proceed(cut=0)


@mutation()
def terminate_a_busy_job() -> Patches:
    return [patch.object(stopping, "decide", _without_waiting)]


@mutation()
def release_a_busy_pod() -> Patches:
    return [patch.object(scaledown, "decide", _without_waiting)]


@mutation()
def scale_pods_away_in_rotation() -> Patches:
    def at_once(group: Any, *, count: int, **_: Any) -> scaledown.Steps:
        if count == group.wanted:
            return scaledown.Steps()
        scale = ScaleDeployment(pool=group.pool, revision=group.revision, replicas=count)
        return scaledown.Steps(actions=(scale,))

    return [patch.object(planner, "steps", at_once)]


@mutation()
def drain_by_the_gauges_of_the_scheduler() -> Patches:
    """Where a request in prefill is not seen."""
    sglang = ENGINES["sglang"]
    assert isinstance(sglang, Sglang)
    gauges = replace(sglang, load=LoadRule(gauges=sglang.load.gauges, proof=0.0))
    return [patch.dict(ENGINES, {"sglang": gauges})]


@mutation()
def surge_without_a_limit() -> Patches:
    return [patch.object(planner, "STRATEGY", rollout.Strategy(surge=4))]


@mutation()
def leave_the_gate_open() -> Patches:
    async def closed(self: Any, job: Any, cluster: Any) -> startgate.Closing:
        return startgate.Closing.CLOSED

    return [patch.object(startgate.StartGate, "close", closed)]


@mutation()
def a_failed_probe_makes_a_worker_worthless() -> Patches:
    original = slurm_workers.worker

    def worker(job: Any, **others: Any) -> Worker:
        found = original(job, **others)
        return replace(found, serving=found.ready, failed=found.failed or found.phase == "Degraded")

    return [patch.object(slurm_workers, "worker", worker)]


@mutation()
def adopt_by_prefix() -> Patches:
    def records(self: Any, name: str) -> Any:
        prefix = name.rpartition("-")[0]
        every = [r for records in self._by_name.values() for r in records]
        return tuple(record for record in every if record.name.startswith(prefix))

    return [patch.object(ClusterState, "records", records)]


@mutation()
def completing_is_gone() -> Patches:
    live = property(lambda self: self is not JobState.Completing and self not in _OVER)
    return [patch.object(JobState, "live", live)]


_OVER = frozenset(state for state in JobState if not state.live)


@mutation()
def count_pods_that_are_terminating() -> Patches:
    return [patch.object(pod_observation, "deletion_timestamp", lambda pod: None)]


@mutation()
def end_orphans_of_other_installations() -> Patches:
    original = orphans.parse_slurm_job_name

    def ours(name: str) -> Any:
        found = original(name)
        return None if found is None else replace(found, installation_id="isthmus0")

    return [patch.object(orphans, "parse_slurm_job_name", ours)]


@mutation()
def leave_orphans_alone() -> Patches:
    return [patch.object(orphans, "find", lambda jobs, **others: ())]


@mutation("network_to_the_nodes_is_down")
def replace_what_only_we_cannot_see() -> Patches:
    return [patch.object(degraded, "_is_sure", lambda seen, status: seen.probe_healthy is False)]


@mutation()
def cancel_within_the_grace() -> Patches:
    original = assembly.limits_of

    def hasty(settings: Any) -> Any:
        limits = original(settings)
        return lambda cluster: replace(limits(cluster), termination_grace=1.0)

    return [patch.object(assembly, "limits_of", hasty)]


@mutation("clock_jumps")
def believe_moments_of_the_future() -> Patches:
    return [patch.object(plan, "not_in_the_future", lambda status, *, now: status)]


@mutation("snapshot_fault", "delete_slurm_job")
def believe_that_a_started_job_waits() -> Patches:
    never = lambda status, record: False  # noqa: E731
    return [
        patch.object(plan, "start_forgotten", never),
        patch.object(stopping, "start_forgotten", never),
    ]


@mutation("wipe_status", "edit_cluster")
def submit_through_the_folder_of_today() -> Patches:
    return [patch.object(SlurmJob, "work_directory", None)]


@mutation("node_goes_bad")
def go_to_a_bad_node_again_and_again() -> Patches:
    return [patch.object(blame, "excluded", lambda attempts, **others: ())]


@mutation("node_is_drained")
def a_displaced_worker_goes_at_once() -> Patches:
    original = rollout._Budget.takes

    def takes(self: Any, worker: Any, *, displaced: bool) -> bool:
        return displaced or original(self, worker, displaced=displaced)

    return [patch.object(rollout._Budget, "takes", takes)]


@mutation("record_unreadable")
def an_unreadable_record_is_an_end() -> Patches:
    def ended(seen: Any, *, now: float) -> plan.SlurmJobPlan:
        over = replace(seen.status, phase=Phase.FINISHED, reason=Reason.JOB_VANISHED, healthy=False)
        return plan.SlurmJobPlan(status=over)

    return [
        patch.object(plan, "_unread", ended),
        patch.object(
            stopping,
            "_stop_unreadable",
            lambda seen, *, now: stopping._done(seen, now=now, close_gate=False),
        ),
    ]


@mutation("new_records_unreadable")
def an_unreadable_record_counts_as_absent() -> Patches:
    original = ClusterState.take
    return [
        patch.object(
            ClusterState,
            "take",
            lambda self, seen: original(self, replace(seen, unreadable=(), nameless=())),
        )
    ]


@mutation()
def the_deployments_key_is_given_to_jobs() -> Patches:
    async def none(self: AttemptKeys, desired: Any, *, job_name: str) -> None:
        return

    return [patch.object(AttemptKeys, "digest", none)]


@mutation()
def all_attempts_have_one_key() -> Patches:
    original = attempt_keys.attempt_key

    def same(key: str, *, job_name: str, seed: str) -> str:
        return original(key, job_name="", seed=seed)

    return [patch.object(attempt_keys, "attempt_key", same)]


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
    async def nothing(self: Supervisor) -> None:
        return

    return [patch.object(Supervisor, "_bury", nothing)]


@mutation("supervisor_lost", "scale")
def a_deletion_waits_for_a_dead_supervisor() -> Patches:
    return [patch.object(stopping, "_withdrawn", lambda observed, *, now: ())]


@mutation("slurm_job_of_a_stranger")
def owner_is_not_checked() -> Patches:
    return [patch.object(reconcile, "ownership", lambda raw, **_: Ownership())]


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
