"""Forwards: which one a worker wants, when it is in traffic, and what a broken way means."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.api.conditions import Phase, Reason
from isthmus.api.times import rfc3339
from isthmus.routing.tunnel_slice import TunnelSlice
from isthmus.slurmjob.actions import (
    Cancel,
    DeleteSlice,
    EnsureSlice,
    Submit,
    Terminate,
    WithdrawTunnels,
)
from isthmus.slurmjob.observation import Network, SlurmJobPlan
from isthmus.slurmjob.plan import plan_slurm_job
from isthmus.slurmjob.policy.forwarding import best_tunnel, choose_port, detours
from isthmus.slurmjob.record import AttemptStatus, Forward
from tests.unit.builders import (
    MEMBER,
    NOW,
    PUBLISHED,
    STALE,
    cluster,
    job,
    record,
    status,
)

URL = "http://10.9.0.1:20007"


def tunnel(**changes: Any) -> TunnelSlice:
    made = TunnelSlice(host="a", address="10.9.0.1", port=20007, ready=True, up=True)
    return replace(made, **changes)


def network(*tunnels: TunnelSlice, mode: str = "Tunnel", free: int | None = 20007) -> Network:
    return Network(mode=mode, service="llama", free_port=free, tunnels=tunnels)


def forward(*, in_traffic: bool = True, port: int = 20007) -> Forward:
    return Forward(mode="Tunnel", port=port, in_traffic=in_traffic, service="llama")


def serving(*, phase: Phase = Phase.READY, traffic: bool = True, **changes: Any) -> AttemptStatus:
    found = status(phase, **{"url": URL, **changes})
    return replace(found, forward=forward(in_traffic=traffic))


def draining(status: AttemptStatus, *, since: float | None) -> AttemptStatus:
    return replace(status, ending=replace(status.ending, draining_since=since))


def planned(
    *tunnels: TunnelSlice, before: AttemptStatus | None = None, **changes: Any
) -> SlurmJobPlan:
    values: dict[str, Any] = {"probe_healthy": True, "network": network(*tunnels), **changes}
    found = job(record(comment=PUBLISHED), status=before or serving(), **values)
    return plan_slurm_job(found, now=NOW)


def up(plan: SlurmJobPlan) -> str:
    return next((c.status for c in plan.status.conditions if c.type == "TunnelUp"), "")


class TestPort:
    def test_it_is_told_before_the_job_is_submitted(self) -> None:
        """A job that calls a bastion has to know it."""
        found = job(network=network(free=20123), status=AttemptStatus())
        plan = plan_slurm_job(found, now=NOW)
        (submit,) = [action for action in plan.actions if isinstance(action, Submit)]
        assert submit.before.forward is not None
        assert submit.before.forward.port == 20123
        assert submit.before.forward.in_traffic is False
        assert plan.status.forward is None  # not before it is submitted

    def test_it_is_kept(self) -> None:
        assert planned(tunnel(), network=network(tunnel(), free=29999)).status.forward == forward()

    def test_a_wiped_status_finds_it_in_the_slice(self) -> None:
        plan = planned(before=AttemptStatus(), network=network(tunnel(port=20055), free=29999))
        assert plan.status.forward is not None
        assert plan.status.forward.port == 20055
        assert plan.status.forward.in_traffic
        assert plan.status.phase == Phase.READY

    def test_a_wiped_status_finds_its_engine_in_the_slice(self) -> None:
        """Also where the site has rewritten the job's comment."""
        held = network(tunnel(target=MEMBER), free=29999)
        found = job(record(comment="account=proj"), status=AttemptStatus(), network=held)
        plan = plan_slurm_job(found, now=NOW)
        assert (plan.status.host, plan.status.port) == MEMBER
        assert plan.status.phase == Phase.READY
        elsewhere = network(tunnel(target=("10.99.0.1", MEMBER[1])))
        plan = plan_slurm_job(replace(found, network=elsewhere), now=NOW)
        assert plan.status.host is None

    def test_one_that_another_worker_has_is_changed(self) -> None:
        lost = replace(network(tunnel(), free=29999), port_lost=True)
        assert planned(network=lost).status.forward == forward(port=29999)
        full = replace(network(tunnel(), free=None), port_lost=True)
        assert planned(network=full).status.forward == forward()

    def test_an_ended_attempt_wants_none(self) -> None:
        assert planned(before=serving(phase=Phase.FAILED)).status.forward is None

    def test_a_worker_that_is_reached_directly_wants_none(self) -> None:
        plan = planned(before=status(Phase.READY), network=network(mode="Direct"))
        assert plan.status.forward is None
        assert plan.actions == (EnsureSlice(*MEMBER),)

    def test_the_mode_of_a_running_attempt_stays(self) -> None:
        """An administrator who changes the mode changes the next attempts."""
        plan = planned(tunnel(), network=network(tunnel(), mode="Direct"))
        assert plan.status.forward == forward()
        assert plan.actions == ()

    @given(
        seed=st.integers(0, 2**32), taken=st.frozensets(st.integers(20000, 20009)), size=st.just(10)
    )
    def test_one_that_is_free(self, seed: int, taken: frozenset[int], size: int) -> None:
        port = choose_port(seed=seed, taken=taken, first=20000, last=20000 + size - 1)
        if len(taken) == size:
            assert port is None
        else:
            assert port is not None
            assert 20000 <= port < 20000 + size
            assert port not in taken


class TestReached:
    def test_through_the_tunnel_and_by_no_slice_of_ours(self) -> None:
        plan = planned(tunnel())
        assert (plan.status.phase, plan.status.url) == (Phase.READY, URL)
        assert plan.actions == ()
        assert up(plan) == "True"

    def test_a_slice_from_when_it_was_reached_directly_goes(self) -> None:
        assert planned(tunnel(), slice_target=MEMBER).actions == (DeleteSlice(),)

    def test_traffic_only_when_healthy(self) -> None:
        starting = serving(phase=Phase.STARTING, traffic=False, ever_ready=None)
        plan = planned(tunnel(ready=False), before=starting, probe_healthy=False)
        assert plan.status.forward == forward(in_traffic=False)
        assert plan.status.reason == Reason.JOB_STARTING
        plan = planned(tunnel(ready=False), before=starting)
        assert plan.status.forward == forward(in_traffic=True)

    def test_a_sick_engine_leaves_the_traffic(self) -> None:
        plan = planned(tunnel(), probe_healthy=False, probe_reason="NotReady")
        assert plan.status.reason == Reason.PROBE_FAILED
        assert plan.status.forward == forward(in_traffic=False)

    def test_another_tunnel_host_does_not_make_it_another_worker(self) -> None:
        """A supervisor that replaces another one has another address."""
        other = tunnel(host="b", address="10.9.0.2")
        plan = planned(other, probe_healthy=None)
        assert plan.status.url == "http://10.9.0.2:20007"
        assert plan.status.phase == Phase.READY
        assert plan.status.forward == forward(in_traffic=True)

    @pytest.mark.parametrize(
        ("tunnels", "host"),
        [
            ((tunnel(host="a"), tunnel(host="b", address="10.9.0.2")), "a"),
            ((tunnel(host="0", address="10.9.0.2"), tunnel(host="a")), "a"),  # in use already
            ((tunnel(host="a", up=False), tunnel(host="b", address="10.9.0.2")), "b"),
            ((tunnel(host="b", up=False), tunnel(host="a", up=False)), "a"),
            # the one in use goes out of rotation, because it ends
            ((tunnel(host="a", ready=False), tunnel(host="b", address="10.9.0.2")), "b"),
        ],
    )
    def test_which_one_is_probed(self, tunnels: tuple[TunnelSlice, ...], host: str) -> None:
        found = best_tunnel(job(network=network(*tunnels)), url=URL)
        assert found is not None
        assert found.host == host

    def test_the_others_that_are_up_are_detours(self) -> None:
        observed = job(
            network=network(
                tunnel(host="a"),
                tunnel(host="b", address="10.9.0.2"),
                tunnel(host="c", address="10.9.0.3", up=False),
            )
        )
        assert detours(observed, replace(observed.status, url=URL)) == ("http://10.9.0.2:20007",)


class TestBroken:
    def test_the_worker_stays_and_keeps_its_place(self) -> None:
        plan = planned(tunnel(up=False, message="login1 does not answer"), probe_healthy=False)
        assert plan.status.phase == Phase.DEGRADED
        assert plan.status.reason == Reason.TUNNEL_DOWN
        assert "login1 does not answer" in (plan.status.message or "")
        assert plan.status.healthy is None
        assert plan.status.forward == forward(in_traffic=True)
        assert plan.actions == ()
        assert up(plan) == "False"

    def test_nobody_holds_it(self) -> None:
        plan = planned()
        assert plan.status.reason == Reason.TUNNEL_AWAITED
        assert plan.status.url is None
        assert plan.status.forward == forward(in_traffic=True)

    def test_a_refused_probe_is_a_tunnel_host_that_is_gone(self) -> None:
        """ssh takes connections for a dead engine too, so the engine cannot refuse one."""
        plan = planned(tunnel(), probe_healthy=False, probe_reason="Refused")
        assert plan.status.reason == Reason.TUNNEL_DOWN
        assert plan.status.forward == forward(in_traffic=True)

    def test_another_supervisor_holds_it_too(self) -> None:
        """The slices of one that was killed stay until its successor finds it dead."""
        both = tunnel(), tunnel(host="b", address="10.9.0.2")
        plan = planned(*both, probe_healthy=False, probe_reason="Refused")
        assert plan.status.url == "http://10.9.0.2:20007"
        assert plan.status.phase == Phase.READY  # what was said of the other way does not count
        assert plan.status.forward == forward(in_traffic=True)

    def test_it_comes_back_by_itself(self) -> None:
        down = planned(tunnel(up=False), probe_healthy=False).status
        again = planned(tunnel(), before=down, probe_healthy=True)
        assert again.status.phase == Phase.READY
        assert up(again) == "True"

    def test_one_that_was_not_in_traffic_does_not_get_in(self) -> None:
        plan = planned(tunnel(up=False), before=serving(traffic=False))
        assert plan.status.forward == forward(in_traffic=False)

    def test_it_is_never_given_up_for_it(self) -> None:
        """Other workers of the cluster answer through ways of their own."""
        values: dict[str, Any] = {
            "probe_healthy": False,
            "probe_reason": "Refused",
            "others_answer": True,
        }
        first = planned(tunnel(), **values)
        assert first.status.reason == Reason.TUNNEL_DOWN
        assert first.status.degraded_since is None
        before = replace(first.status, degraded_since=NOW - 99_999)
        later = planned(tunnel(), before=before, **values)
        assert later.status.phase == Phase.DEGRADED
        assert later.actions == ()

    def test_its_time_to_start_does_not_run_out(self) -> None:
        late = record(comment=PUBLISHED, start_time=int(NOW) - 4000)
        before = serving(phase=Phase.STARTING, traffic=False, ever_ready=None)
        found = job(late, status=before, network=network(tunnel(up=False, ready=False)))
        plan = plan_slurm_job(found, now=NOW)
        assert plan.status.phase == Phase.STARTING
        assert plan.actions == ()

    def test_nor_by_what_probes_said_before_the_way_was_back(self) -> None:
        late = record(comment=PUBLISHED, start_time=int(NOW) - 4000)
        before = serving(phase=Phase.STARTING, traffic=False, ever_ready=None)
        way = network(tunnel(ready=False))
        values: dict[str, Any] = {"probe_healthy": False, "probe_reason": "HttpError"}
        found = job(late, status=before, network=way, **values)
        first = plan_slurm_job(found, now=NOW)
        assert first.actions == ()
        again = replace(found, status=first.status)
        assert plan_slurm_job(again, now=NOW + 30).actions == ()
        assert plan_slurm_job(again, now=NOW + 61).actions == (Cancel(job_id=101),)
        silent = replace(again, probe_reason="Timeout")  # the supervisor's machine is gone
        assert plan_slurm_job(silent, now=NOW + 61).actions == ()

    def test_also_while_slurm_cannot_be_seen(self) -> None:
        found = job(
            status=serving(),
            network=network(tunnel(up=False)),
            cluster_changes=STALE,
            probe_healthy=None,
        )
        plan = plan_slurm_job(found, now=NOW)
        assert plan.status.reason == Reason.TUNNEL_DOWN
        assert plan.status.forward == forward(in_traffic=True)

    @pytest.mark.parametrize("reason", [STALE["reason"], Reason.NOT_OBSERVED_YET])
    def test_a_wiped_status_takes_nobody_out_while_slurm_cannot_be_seen(self, reason: str) -> None:
        """Nor before it has been seen for the first time."""
        unseen = cluster(**{**STALE, "reason": reason})
        found = replace(job(status=AttemptStatus(), network=network(tunnel())), cluster=unseen)
        plan = plan_slurm_job(found, now=NOW)
        assert plan.status.forward == forward(in_traffic=True)


class TestBeginning:
    """Every start goes through it: the job has a port, and the way to it was never made."""

    STARTING = serving(phase=Phase.STARTING, traffic=False, ever_ready=None)

    @pytest.mark.parametrize("tunnels", [(), (tunnel(up=False, ready=False, message="not yet"),)])
    def test_the_worker_says_that_it_starts(self, tunnels: tuple[TunnelSlice, ...]) -> None:
        plan = planned(*tunnels, before=self.STARTING, probe_healthy=None)
        assert (plan.status.phase, plan.status.reason) == (Phase.STARTING, Reason.JOB_STARTING)
        assert "forward is being established" in (plan.status.message or "")
        assert up(plan) == "Unknown"

    def test_after_a_minute_the_way_is_called_broken(self) -> None:
        found = job(record(comment=PUBLISHED), status=self.STARTING, network=network())
        first = plan_slurm_job(found, now=NOW)
        assert first.requeue_after is not None
        assert first.requeue_after <= 60
        found = replace(found, status=first.status)
        assert up(plan_slurm_job(found, now=NOW + 59)) == "Unknown"
        later = plan_slurm_job(found, now=NOW + 60)
        assert later.status.reason == Reason.TUNNEL_AWAITED
        assert up(later) == "False"

    def test_one_that_broke_is_not_beginning_again(self) -> None:
        """It was up for a moment, and its worker not ready yet."""
        once = planned(tunnel(ready=False), before=self.STARTING, probe_healthy=None)
        assert up(once) == "True"
        lost = planned(tunnel(ready=False, up=False), before=once.status, probe_healthy=None)
        assert lost.status.reason == Reason.TUNNEL_DOWN
        assert up(lost) == "False"

    def test_one_whose_status_was_wiped_is_not_beginning(self) -> None:
        """A supervisor still lets requests through to it."""
        away = tunnel(up=False, message="login1 does not answer")
        plan = planned(away, before=AttemptStatus(), network=network(away), probe_healthy=False)
        assert plan.status.reason == Reason.TUNNEL_DOWN


class TestOver:
    """A status that was wiped and a submission that was refused: the job of before still runs."""

    def test_it_leaves_the_rotation_before_it_is_cancelled(self) -> None:
        over = serving(phase=Phase.FAILED, finished_at=rfc3339(NOW))
        observed = job(record(), status=over, network=network(tunnel()))
        assert plan_slurm_job(observed, now=NOW + 1).actions == ()
        assert plan_slurm_job(observed, now=NOW + 60).actions == (WithdrawTunnels(),)
        out = replace(observed, network=network(tunnel(ready=False)))
        assert plan_slurm_job(out, now=NOW + 1).actions == (Cancel(job_id=101),)


class TestDrain:
    def test_no_scancel_either(self) -> None:
        """An old copy of SLURM's answer may say of a worker in rotation that it waits."""
        waits = job(
            record(state="PENDING"),
            status=serving(job_id=101, ever_ready=False),
            network=network(tunnel()),
            deleting=True,
            deleting_since=NOW,
        )
        held = plan_slurm_job(waits, now=NOW)
        assert held.actions == ()
        assert held.status.ending.cancelled_at is None
        out = replace(waits, network=network(tunnel(ready=False)))
        assert plan_slurm_job(out, now=NOW).actions == (Cancel(job_id=101),)

    def drained(self, *tunnels: TunnelSlice, since: float = 0.0, **changes: Any) -> SlurmJobPlan:
        values: dict[str, Any] = {"deleting": True, "deleting_since": NOW - since, **changes}
        return planned(*tunnels, **values)

    def test_first_out_of_traffic(self) -> None:
        plan = self.drained(tunnel())
        assert plan.status.forward == forward(in_traffic=False)
        assert not [action for action in plan.actions if isinstance(action, Terminate)]
        assert plan.status.ending.draining_since is None  # the wait begins when the slice says so

    def test_term_only_once_every_supervisor_has_followed(self) -> None:
        before = serving(phase=Phase.DRAINING, traffic=False, job_id=101, ever_ready=True)
        both = tunnel(ready=False), tunnel(host="b", ready=True)
        plan = self.drained(*both, before=before, since=60)
        assert not [action for action in plan.actions if isinstance(action, Terminate)]
        out = tunnel(ready=False), tunnel(host="b", ready=False)
        plan = self.drained(*out, before=before, since=60)
        assert plan.status.ending.draining_since is not None
        again = self.drained(
            *out,
            before=draining(plan.status, since=NOW - 3600),
            since=60,
        )
        assert [action for action in again.actions if isinstance(action, Terminate)]
        assert again.status.forward == forward(in_traffic=False)  # streams run through it

    def test_a_dead_supervisor_does_not_hold_it(self) -> None:
        """Nobody else takes the worker out of rotation, and TERM comes after that."""
        before = serving(
            phase=Phase.DRAINING,
            traffic=False,
            job_id=101,
            ever_ready=True,
            draining_since="2027-01-15T07:00:00Z",
        )
        patient = self.drained(tunnel(), before=before, since=14)
        assert patient.actions == ()
        plan = self.drained(tunnel(), before=before, since=16)
        assert plan.actions == (WithdrawTunnels(),)
        assert plan.status.ending.draining_since is None
        gone = self.drained(before=plan.status, since=17)
        assert gone.actions == ()
        assert gone.status.ending.draining_since is not None
        later = draining(gone.status, since=before.ending.draining_since)
        assert self.drained(before=later, since=23).actions == (Terminate(job_id=101),)


def test_a_second_pass_changes_nothing() -> None:
    for tunnels in ((), (tunnel(),), (tunnel(up=False),), (tunnel(ready=False),)):
        first = planned(*tunnels).status
        assert planned(*tunnels, before=first).status == first
