"""What is known of a job, and when it is ended."""

from dataclasses import replace
from typing import Any
from unittest.mock import patch

from isthmus import assembly
from isthmus.api.conditions import Phase, Reason
from isthmus.backends.slurm.states import JobState
from isthmus.engines import ENGINES
from isthmus.engines.metrics import LoadRule
from isthmus.engines.sglang import Sglang
from isthmus.slurmcluster.policy import orphans
from isthmus.slurmcluster.state import ClusterState
from isthmus.slurmjob import plan
from isthmus.slurmjob import reconciler as reconcile
from isthmus.slurmjob.actions import EnsureSlice
from isthmus.slurmjob.ownership import Ownership
from isthmus.slurmjob.policy import absence, degraded, identity, stopping
from tests.simulation.mutations.register import Patches, mutation, without_waiting


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
def terminate_before_the_nodes_have_heard() -> Patches:
    original = assembly.limits_of

    def hasty(settings: Any) -> Any:
        limits = original(settings)
        return lambda cluster: replace(limits(cluster), deregister_delay=0.0)

    return [patch.object(assembly, "limits_of", hasty)]


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
def terminate_a_busy_job() -> Patches:
    return [patch.object(stopping, "decide", without_waiting)]


@mutation()
def drain_by_the_gauges_of_the_scheduler() -> Patches:
    """Where a request in prefill is not seen."""
    sglang = ENGINES["sglang"]
    assert isinstance(sglang, Sglang)
    gauges = replace(sglang, load=LoadRule(gauges=sglang.load.gauges, proof=0.0))
    return [patch.dict(ENGINES, {"sglang": gauges})]


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


@mutation("queue_from_before_the_start", shape="old copies of the queue")
def believe_that_a_started_job_waits() -> Patches:
    never = lambda status, record: False  # noqa: E731
    return [
        patch.object(plan, "start_forgotten", never),
        patch.object(stopping, "start_forgotten", never),
    ]


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


@mutation("slurm_job_of_a_stranger")
def owner_is_not_checked() -> Patches:
    return [patch.object(reconcile, "ownership", lambda raw, **_: Ownership())]
