"""What a tunnel supervisor concludes: which forwards work, are ready, are half dead, may go."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.api import names
from isthmus.api.slurmjob import ForwardStatus, SlurmJobStatus
from isthmus.tunnels.connections import count_established
from isthmus.tunnels.desired import Wanted, parsed, wanted_forwards
from isthmus.tunnels.rules import (
    Beat,
    Health,
    Outcome,
    View,
    half_dead,
    may_leave,
    ready_forwards,
)

A, C, S, R = Outcome.ANSWERED, Outcome.CLOSED, Outcome.SILENT, Outcome.REFUSED
SERVICE = ("team-a", "llama")


def health(*outcomes: Outcome) -> Health:
    found = Health()
    for outcome in outcomes:
        found = found.after(outcome)
    return found


@pytest.mark.parametrize(
    ("outcomes", "works", "serves"),
    [
        ((), False, False),
        ((A,), True, True),
        ((C,), True, False),  # the engine loads: the way is fine
        ((S,), False, False),  # never a word: nothing proves that it works
        ((R,), False, False),
        ((A, S), True, True),  # one silence alone takes nobody out
        ((A, S, S), False, False),
        ((A, C), True, True),
        ((A, C, C), True, False),  # the engine is gone, the way is not
        ((A, S, S, A), True, True),
        ((A, R), False, True),
    ],
)
def test_health(outcomes: tuple[Outcome, ...], works: bool, serves: bool) -> None:
    found = health(*outcomes)
    assert (found.way_works, found.serves) == (works, serves)


def view(key: str = "a", **changes: Any) -> View:
    values: dict[str, Any] = {
        "key": key,
        "service": SERVICE,
        "in_traffic": True,
        "established": True,
        "health": health(A),
        **changes,
    }
    return View(**values)


class TestReady:
    def ready(self, *views: View, others: int = 0, leaving: bool = False) -> set[str]:
        return set(ready_forwards(views, others={SERVICE: others}, leaving=leaving))

    def test_what_is_wanted_and_answers(self) -> None:
        assert self.ready(view()) == {"a"}
        assert self.ready(view(in_traffic=False)) == set()
        assert self.ready(view(established=False)) == set()
        assert self.ready(view(health=health(C))) == set()

    def test_what_is_down_leaves_while_others_serve(self) -> None:
        down = view("a", established=False, was_ready=True)
        assert self.ready(down, view("b")) == {"b"}
        assert self.ready(down, others=1) == set()

    def test_our_own_failure_never_empties_a_service(self) -> None:
        down = view("a", established=False, was_ready=True)
        silent = view("b", health=health(A, S, S), was_ready=True)
        assert self.ready(down, silent) == {"a", "b"}

    def test_a_dead_engine_is_no_failure_of_ours(self) -> None:
        assert self.ready(view(health=health(A, C, C), was_ready=True)) == set()

    def test_what_drains_leaves_whatever_is_left(self) -> None:
        assert self.ready(view(in_traffic=False, established=False, was_ready=True)) == set()

    def test_other_services_do_not_count(self) -> None:
        down = view("a", established=False, was_ready=True)
        assert self.ready(down, view("b", service=("team-a", "other"))) == {"a", "b"}

    def test_one_that_ends_has_none(self) -> None:
        assert self.ready(view(), leaving=True) == set()


class TestHalfDead:
    def test_all_that_answered_are_silent(self) -> None:
        assert half_dead([health(A, S, S), health(A, S, S, S)])

    @pytest.mark.parametrize(
        "healths",
        [
            [],
            [health(S, S, S)],  # it never answered through this connection: the engine may hang
            [health(A, S, S), health(A)],
            [health(A, S)],
            [health(A, C, C)],  # refused by the other end: that is an answer of sshd
        ],
    )
    def test_not(self, healths: list[Health]) -> None:
        assert not half_dead(healths)


class TestLeaving:
    def test_not_before_a_successor_holds_the_same(self) -> None:
        ours = {"a": True, "b": True, "c": False}
        assert not may_leave(ours=ours, elsewhere={"a"}, waited=1, patience=60)
        assert may_leave(ours=ours, elsewhere={"a", "b"}, waited=1, patience=60)

    def test_not_for_ever(self) -> None:
        assert may_leave(ours={"a": True}, elsewhere=(), waited=60, patience=60)

    def test_nothing_in_rotation(self) -> None:
        assert may_leave(ours={"a": False}, elsewhere=(), waited=0, patience=60)


class TestBeat:
    def test_dead_after_silence_that_was_watched(self) -> None:
        beat = Beat("1", since=0.0)
        for now in (5.0, 10.0, 15.0):
            beat = beat.after("1", now=now)
            assert not beat.dead(now=now, duration=15.0)
        assert beat.dead(now=16.0, duration=15.0)

    def test_never_from_two_looks_over_a_gap(self) -> None:
        assert not Beat("1", since=0.0).after("1", now=1000.0).dead(now=1000.0, duration=15.0)

    def test_a_sign_of_life(self) -> None:
        beat = Beat("1", since=0.0, reads=9).after("2", now=20.0)
        assert not beat.dead(now=20.0, duration=15.0)


def slurm_job(name: str = "j", *, owner_uid: str = "uid-llama", **status: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "phase": "Ready",
        "host": "10.10.0.1",
        "port": 41000,
        "forward": ForwardStatus(mode="Tunnel", port=20001, in_traffic=True, service="llama"),
        **status,
    }
    made = SlurmJobStatus(**values)
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": "ModelDeployment",
        "name": "llama",
        "uid": owner_uid,
        "controller": True,
    }
    return {
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "uid": f"uid-{name}",
            "ownerReferences": [owner],
        },
        "spec": {
            "clusterRef": {"name": "hpc", "namespace": "isthmus-system"},
            "deployment": "llama",
            "pool": "hpc",
            "slot": 0,
            "attempt": "x7k2qp",
            "revision": "abc",
            "jobName": names.slurm_job_name(
                deployment="llama",
                installation_id="isthmus0",
                namespace="team-a",
                uid=owner_uid,
                slot=0,
                attempt="x7k2qp",
            ),
        },
        "status": made.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def wanted(*jobs: dict[str, Any], held: dict[str, Wanted] | None = None) -> tuple[Wanted, ...]:
    return wanted_forwards(map(parsed, jobs), held=held or {})


class TestWanted:
    def test_what_the_status_says(self) -> None:
        (one,) = wanted(slurm_job())
        assert (one.port, one.host, one.engine_port) == (20001, "10.10.0.1", 41000)
        assert one.in_traffic
        assert one.mode == "Tunnel"

    def test_not_before_the_engine_has_a_port(self) -> None:
        assert wanted(slurm_job(host=None, port=None)) == ()

    def test_an_ended_attempt_or_one_without_forward(self) -> None:
        assert wanted(slurm_job(phase="Failed")) == ()
        assert wanted(slurm_job(forward=None)) == ()

    def test_a_wiped_status_takes_nothing_away(self) -> None:
        (one,) = wanted(slurm_job())
        wiped = slurm_job()
        del wiped["status"]
        assert wanted(wiped, held={one.uid: one}) == (one,)

    def test_a_key_is_not_forgotten_with_the_status(self) -> None:
        """The job goes on calling with it."""
        forward = ForwardStatus(mode="Reverse", port=20001, public_key="ssh-ed25519 AAAA")
        (one,) = wanted(slurm_job(forward=forward))
        again = slurm_job(forward=ForwardStatus(mode="Reverse", port=20001))
        assert wanted(again, held={one.uid: one})[0].public_key == "ssh-ed25519 AAAA"

    def test_a_drained_one_runs_on_and_is_out_of_traffic(self) -> None:
        """Its streams run through the forward until its engine has ended."""
        job = slurm_job(phase="Draining")
        job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        (one,) = wanted(job)
        assert not one.in_traffic

    def test_of_two_that_claim_a_port_the_one_that_has_it_keeps_it(self) -> None:
        (first,) = wanted(slurm_job("z"))
        assert wanted(slurm_job("a"), slurm_job("z"), held={first.uid: first}) == (first,)

    def test_one_that_is_held_elsewhere_takes_no_port_of_another_and_stays_there(self) -> None:
        """Seed 9919: both were held, and who came first in the list took the other's port.

        Were it let go, its own Service might have lost the only endpoint.
        """
        (first,) = wanted(slurm_job("z"))
        elsewhere = ForwardStatus(mode="Tunnel", port=20002, in_traffic=True, service="llama")
        (other,) = wanted(slurm_job("a", forward=elsewhere))
        held = {first.uid: first, other.uid: other}
        assert wanted(slurm_job("a"), slurm_job("z"), held=held) == (other, first)
        assert wanted(slurm_job("z"), slurm_job("a"), held=held) == (other, first)
        leaves = ForwardStatus(mode="Tunnel", port=20001, in_traffic=False)
        (found, _) = wanted(slurm_job("a", forward=leaves), slurm_job("z"), held=held)
        assert (found.port, found.in_traffic) == (20002, False)

    def test_nor_does_it_stay_at_a_port_that_is_a_third_ones_by_now(self) -> None:
        (first,) = wanted(slurm_job("z"))
        (other,) = wanted(slurm_job("a", forward=ForwardStatus(mode="Tunnel", port=20002)))
        third = slurm_job("m", forward=ForwardStatus(mode="Tunnel", port=20002))
        held = {first.uid: first, other.uid: other}
        found = wanted(slurm_job("a"), third, slurm_job("z"), held=held)
        assert [one.slurm_job for one in found] == ["m", "z"]

    def test_what_cannot_be_read_is_left_out(self) -> None:
        assert len(wanted({"metadata": {"name": "x"}}, slurm_job())) == 1

    @pytest.mark.parametrize(
        "changes",
        [
            {"status": {"phase": "FromALaterRelease", "everReady": True}},
            {"status": {"conditions": "text", "drained": {"a": 1}}},
            {"spec": {"slot": "first"}},
            {"spec": {"newer": {"a": 1}}},
        ],
    )
    def test_b5_what_a_newer_release_wrote_keeps_nobody_from_its_worker(
        self, changes: dict[str, Any]
    ) -> None:
        """A supervisor that has just started holds nothing yet; one that holds it goes on."""
        job = slurm_job()
        (held,) = wanted(job)
        newer = job | {part: job[part] | more for part, more in changes.items()}
        if changes != {"spec": {"slot": "first"}}:  # without it there is no SlurmJob
            assert wanted(newer) == (held,)
        assert wanted(newer, held={held.uid: held}) == (held,)

    def test_b5_one_that_cannot_be_read_at_all_still_drains_and_ends(self) -> None:
        (held,) = wanted(slurm_job())
        odd: dict[str, Any] = {**slurm_job(phase="Failed"), "spec": "text"}
        assert wanted(odd, held={held.uid: held}) == ()
        odd = {**slurm_job(), "spec": "text"}
        odd["metadata"] = odd["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z"}
        (drained,) = wanted(odd, held={held.uid: held})
        assert (drained.port, drained.in_traffic) == (held.port, False)

    @given(st.lists(st.integers(20001, 20004), max_size=8))
    def test_each_port_once(self, ports: list[int]) -> None:
        jobs = [
            slurm_job(f"j{i}", forward=ForwardStatus(mode="Tunnel", port=port))
            for i, port in enumerate(ports)
        ]
        found = [one.port for one in wanted(*jobs)]
        assert sorted(found) == sorted(set(ports))


def test_connections_of_clients_are_counted_and_nothing_else() -> None:
    # The same port may be another supervisor's on another address.
    table = """  sl  local_address rem_address   st tx_queue
   0: 0100A8C0:4E21 00000000:0000 0A 00000000:00000000
   1: 0100A8C0:4E21 0200A8C0:D431 01 00000000:00000000
   2: 0200A8C0:D431 0100A8C0:4E21 01 00000000:00000000
   3: 0100A8C0:4E21 0200A8C0:D432 06 00000000:00000000
   4: 0500A8C0:4E21 0200A8C0:D433 01 00000000:00000000
"""
    assert count_established(table, address="192.168.0.1", ports={20001}) == 1
    assert count_established(table, address="192.168.0.1", ports={20002}) == 0
    assert count_established(table, address="192.168.0.9", ports={20001}) == 0
