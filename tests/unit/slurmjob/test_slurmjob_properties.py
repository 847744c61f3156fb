"""One attempt on a cluster that accepts late, forgets, hides and purges: what may never happen.

The world below keeps one promise of SLURM: what sbatch made is shown by a snapshot that begins
`submit_unknown_wait` after it, if ever. Everything else is up to hypothesis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.api.conditions import Phase
from isthmus.api.times import rfc3339
from isthmus.backends.slurm.records import (
    JobRecord,
    SubmitOutcome,
    Submitted,
    Unclear,
    UnreadableJob,
)
from isthmus.backends.slurm.states import observe
from isthmus.errors import SlurmUnavailableError
from isthmus.rules.actions import AddFinalizer, RemoveFinalizer
from isthmus.slurmcluster.observation import ClusterObservation
from isthmus.slurmcluster.state import ClusterState
from isthmus.slurmjob.actions import (
    Cancel,
    CloseGate,
    ConfirmGone,
    DeleteSlice,
    EnsureSlice,
    Submit,
    Terminate,
)
from isthmus.slurmjob.observation import SlurmJobPlan
from isthmus.slurmjob.plan import plan_slurm_job
from isthmus.slurmjob.record import AttemptStatus
from isthmus.slurmjob.submitting import after_submission
from tests.unit.builders import (
    JOB_NAME,
    LIMITS,
    MEMBER,
    NOW,
    PUBLISHED,
    STALE,
    job,
    record,
    snapshot,
    status,
)

HARMLESS = (AddFinalizer, EnsureSlice, DeleteSlice)
LIVE = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "SIGNALING")
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
WORDS = st.sampled_from([*LIVE, *OVER, "REQUEUE_HOLD", "NEVER_HEARD_OF"])


@st.composite
def some_records(draw: st.DrawFn) -> tuple[JobRecord, ...]:
    return tuple(
        record(
            draw(WORDS),
            job_id=101 + index,
            comment=draw(st.sampled_from(["", PUBLISHED, PUBLISHED.replace("41000", "22")])),
            reason=draw(st.sampled_from(["None", "BadConstraints", "InvalidQOS", "Priority"])),
            exit_code=draw(st.sampled_from([0, 256, 75 << 8])),
            restart_count=draw(st.sampled_from([0, 0, 1])),
            start_time=draw(st.sampled_from([None, int(NOW) - 100, int(NOW) - 4000])),
        )
        for index in range(draw(st.integers(0, 3)))
    )


@st.composite
def some_status(draw: st.DrawFn) -> AttemptStatus:
    phase = draw(st.none() | st.sampled_from(Phase))
    changes: dict[str, Any] = {}
    if draw(st.booleans()):
        changes["cancelled_at"] = rfc3339(NOW - draw(st.integers(0, 60)))
    if draw(st.booleans()):
        changes["unknown_since"] = rfc3339(NOW - draw(st.integers(0, 600)))
    if draw(st.booleans()):
        changes["job_id"] = draw(st.integers(100, 103))
    return status(phase, **changes)


@settings(max_examples=400)
@given(
    records=some_records(),
    before=some_status(),
    starts=st.lists(st.integers(1, 600), max_size=4),
    how=st.sampled_from([{}, {}, STALE, {**STALE, "usable": False}, {"unresolved": 16}]),
    deleting=st.booleans(),
    healthy=st.none() | st.booleans(),
    member=st.sampled_from([None, MEMBER, ("10.10.0.9", 41001)]),
    confirmed=st.booleans(),
    strange=st.sampled_from(["", "", "unreadable", "nameless"]),
)
def test_one_pass_over_anything(
    records: tuple[JobRecord, ...],
    before: AttemptStatus,
    starts: list[int],
    how: dict[str, Any],
    deleting: bool,
    healthy: bool | None,
    member: tuple[str, int] | None,
    confirmed: bool,
    strange: str,
) -> None:
    begun = tuple(sorted(NOW - start for start in starts)) or (NOW - 5,)
    observed = job(
        *records,
        status=before,
        starts=begun,
        cluster_changes=how,
        deleting=deleting,
        probe_healthy=healthy,
        slice_target=member,
        confirmed_gone=confirmed,
        unreadable=(STRANGE,) if strange == "unreadable" else (),
    )
    if strange == "nameless" and observed.cluster.snapshot is not None:
        seen = replace(observed.cluster.snapshot, nameless=NAMELESS)
        observed = replace(observed, cluster=replace(observed.cluster, snapshot=seen))
    plan = plan_slurm_job(observed, now=NOW)
    submits = [action for action in plan.actions if isinstance(action, Submit)]
    over = before.phase is not None and Phase(before.phase).terminal
    if "fresh" in how:
        allowed = (*HARMLESS, RemoveFinalizer) if over and deleting else HARMLESS
        assert all(isinstance(action, allowed) for action in plan.actions)
    if submits:
        assert not strange
        assert not deleting
        assert not over
        assert not records
        assert before.phase != Phase.SUBMITTING
        if before.submission.unknown_since is not None or before.phase == Phase.SUBMIT_UNKNOWN:
            assert before.submission.unknown_since is not None
            since = observed.cluster.complete_since((before.submission.unknown_since or 0.0) + 120)
            assert since >= 2
    if any(isinstance(action, RemoveFinalizer) for action in plan.actions):
        assert deleting
        assert over or not any(observe(one).live for one in records)
        assert strange != "unreadable"
        assert strange != "nameless" or over or records
    member_after = _member_after(plan, member)
    unseen_and_wiped = ("fresh" in how or strange) and plan.status.phase == Phase.WAITING
    if member_after is not None and not deleting and not unseen_and_wiped:
        assert plan.status.phase == Phase.READY
        assert member_after == (plan.status.host, plan.status.port)
    if deleting:
        assert member_after is None
    if plan.requeue_after is not None:
        assert 0 <= plan.requeue_after <= 3600
    assert len(set(plan.actions)) == len(plan.actions)
    _second_pass_is_quiet(observed, plan)


def _member_after(plan: SlurmJobPlan, member: tuple[str, int] | None) -> tuple[str, int] | None:
    for action in plan.actions:
        if isinstance(action, EnsureSlice):
            member = action.address, action.port
        if isinstance(action, DeleteSlice):
            member = None
    return member


def _second_pass_is_quiet(observed: Any, plan: SlurmJobPlan) -> None:
    """With its status written, and nothing else changed, a pass asks for nothing more."""
    if any(isinstance(action, Submit | RemoveFinalizer | ConfirmGone) for action in plan.actions):
        return
    again = plan_slurm_job(
        replace(
            observed,
            status=plan.status,
            slice_target=_member_after(plan, observed.slice_target),
        ),
        now=NOW,
    )
    surplus = {a for a in plan.actions if isinstance(a, Cancel)}
    fresh = [a for a in again.actions if a not in surplus and not isinstance(a, EnsureSlice)]
    assert not [a for a in fresh if isinstance(a, Submit | Terminate | DeleteSlice | CloseGate)]


STRANGE = UnreadableJob(101, JOB_NAME, "State is '?'")
NAMELESS = ("JobID is '1+0'",)


# ---- a world in which time passes


@dataclass
class WorldJob:
    job_id: int
    visible_from: float
    state: str = "PENDING"
    comment: str = ""
    exit_code: int = 0

    @property
    def live(self) -> bool:
        return observe(self.shown()).live

    def shown(self) -> JobRecord:
        return record(
            self.state, job_id=self.job_id, comment=self.comment, exit_code=self.exit_code
        )


@dataclass
class World:
    now: float = NOW
    jobs: list[WorldJob] = field(default_factory=list)
    status: AttemptStatus = field(default_factory=AttemptStatus)
    state: ClusterState = field(default_factory=lambda: ClusterState(stale_after=90.0))
    claimed: int | None = None
    member: tuple[str, int] | None = None
    verdict: bool | None = None
    deleting: bool = False
    gone: bool = False
    gate_closed: bool = False
    submissions: int = 0

    def do(self, what: str, number: int) -> None:
        getattr(self, f"do_{what}")(number)
        live = [one for one in self.jobs if one.live]
        assert len(live) <= 1, "two jobs of one attempt"

    def do_wait(self, number: int) -> None:
        self.now += 1 + number * 7

    def do_look(self, number: int) -> None:
        seen = [one.shown() for one in self.jobs if one.visible_from <= self.now]
        self.state.take(snapshot(*seen, at=self.now))
        self.now += 1

    def do_strange(self, number: int) -> None:
        """A look at which no record can be read, or not even id and name of one."""
        jobs = [one for one in self.jobs if one.visible_from <= self.now]
        aside = [UnreadableJob(one.job_id, JOB_NAME, "State is '?'") for one in jobs]
        if number % 2:
            found = snapshot(nameless=NAMELESS, at=self.now)
        else:
            found = snapshot(unreadable=tuple(aside), at=self.now)
        self.state.take(found)
        self.now += 1

    def do_fail(self, number: int) -> None:
        self.state.fail(SlurmUnavailableError("no answer", reason="ControllerUnreachable"))

    def do_restart(self, number: int) -> None:
        self.state = ClusterState(stale_after=90.0)
        self.verdict = None

    def do_wipe(self, number: int) -> None:
        if any(observe(one).live for one in self.state.records(JOB_NAME)):
            self.status = AttemptStatus()

    def do_run(self, number: int) -> None:
        for one in self.jobs:
            if one.state == "PENDING" and one.visible_from <= self.now:
                won = self.claimed is None and not self.gate_closed
                one.state = "RUNNING" if won else "FAILED"
                one.comment = PUBLISHED if won else ""
                one.exit_code = 0 if won else 75 << 8
                self.claimed = one.job_id if won else self.claimed

    def do_end(self, number: int) -> None:
        for one in self.jobs:
            if one.state == "RUNNING":
                one.state = ("COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL")[number % 4]

    def do_purge(self, number: int) -> None:
        self.jobs = [one for one in self.jobs if one.live]

    def do_probe(self, number: int) -> None:
        runs = any(one.state == "RUNNING" and one.comment for one in self.jobs)
        self.verdict = runs if self.status.url else None

    def do_delete(self, number: int) -> None:
        self.deleting = True

    def do_pass(self, number: int) -> None:
        if self.gone:
            return
        observed = job(
            status=self.status,
            records=self.state.records(JOB_NAME),
            unreadable=self.state.unreadable(JOB_NAME),
            last_seen=self.state.last_seen(JOB_NAME),
            confirmed_gone=(self.status.job.job_id, JOB_NAME) in self.state.confirmed_gone,
            slice_target=self.member,
            probe_healthy=self.verdict,
            deleting=self.deleting,
        )
        fresh = self.state.fresh(now=self.now)
        seen = ClusterObservation(
            usable=True,
            fresh=fresh,
            reason="" if fresh else "NotObservedYet",
            snapshot=self.state.snapshot,
            snapshot_starts=self.state.snapshot_starts,
        )
        observed, member = replace(observed, cluster=seen), self.member
        plan = plan_slurm_job(observed, now=self.now)
        result = plan.status
        for action in plan.actions:
            if isinstance(action, Submit):
                result = self.submit(action, number)
            else:
                self.execute(action)
        self.status = result
        if fresh and not observed.clear and not self.deleting and self.verdict:
            assert self.member == member or member is None, "what cannot be read left the rotation"
        if not fresh and not any(isinstance(a, RemoveFinalizer) for a in plan.actions):
            assert all(isinstance(action, HARMLESS) for action in plan.actions)

    def submit(self, action: Submit, number: int) -> AttemptStatus:
        assert not self.deleting
        assert not any(one.live for one in self.jobs), "submitted while a job is live"
        self.submissions += 1
        new = WorldJob(job_id=100 + self.submissions, visible_from=self.now)
        kind = number % 5
        if kind == 3:
            new.visible_from = self.now + LIMITS.submit_unknown_wait * (number + 1) / 20
        if kind in {0, 1, 3}:
            self.jobs.append(new)
        outcome: SubmitOutcome = Unclear("timed out")
        if kind in {0, 4}:  # 4: acknowledged, and forgotten by a slurmctld that was killed
            outcome = Submitted(new.job_id)
        if kind == 2 and number % 2:  # the operator was killed before it could write the outcome
            return action.before
        return after_submission(action.before, outcome=outcome, limits=LIMITS, now=self.now)

    def execute(self, action: object) -> None:
        if isinstance(action, Cancel | Terminate):
            for one in self.jobs:
                if one.job_id == action.job_id and one.live:
                    one.state = "CANCELLED" if isinstance(action, Cancel) else "COMPLETED"
        elif isinstance(action, ConfirmGone):
            if not any(one.job_id == action.job_id for one in self.jobs):
                self.state.confirmed_gone.add((action.job_id, JOB_NAME))
        elif isinstance(action, CloseGate):
            self.gate_closed = True
        elif isinstance(action, EnsureSlice):
            assert self.verdict, "joined without a good probe"
            self.member = action.address, action.port
        elif isinstance(action, DeleteSlice):
            self.member = None
        elif isinstance(action, RemoveFinalizer):
            assert self.deleting
            assert self.member is None
            assert self.gate_closed or not any(one.live for one in self.jobs)
            self.gone = True


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["pass"] * 6
            + ["look"] * 5
            + ["wait"] * 3
            + [
                "strange",
                "strange",
                "fail",
                "restart",
                "wipe",
                "run",
                "run",
                "end",
                "purge",
                "probe",
                "probe",
                "delete",
            ]
        ),
        st.integers(0, 19),
    ),
    min_size=10,
    max_size=80,
)


@settings(max_examples=400)
@given(STEPS)
def test_a_life_of_an_attempt(steps: Sequence[tuple[str, int]]) -> None:
    world = World()
    for what, number in steps:
        world.do(what, number)


@settings(max_examples=150)
@given(STEPS)
def test_every_deleted_attempt_comes_to_its_end(steps: Sequence[tuple[str, int]]) -> None:
    """Once the cluster answers again, whatever went before."""
    world = World()
    for what, number in steps:
        world.do(what, number)
    world.do("delete", 0)
    for _ in range(60):
        world.do("look", 0)
        world.do("pass", 0)
        world.do("wait", 4)
    assert world.gone
    assert not any(one.live for one in world.jobs)


@settings(max_examples=150)
@given(STEPS)
def test_every_wanted_attempt_serves_or_is_over(steps: Sequence[tuple[str, int]]) -> None:
    world = World()
    for what, number in steps:
        if what != "delete":
            world.do(what, number)
    for _ in range(30):
        for what in ("look", "pass", "run", "probe", "pass"):
            world.do(what, 0)
        world.do("wait", 4)
    assert world.status.phase is not None
    assert world.status.phase == Phase.READY or Phase(world.status.phase).terminal
    assert (world.member is not None) == (world.status.phase == Phase.READY)
