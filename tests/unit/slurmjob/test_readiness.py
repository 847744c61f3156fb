"""When a worker outside the cluster is ready, and when its time to start is over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isthmus.address_rules import parse_address
from isthmus.api.conditions import Phase, Reason
from isthmus.slurmjob.actions import Cancel
from isthmus.slurmjob.plan import plan_slurm_job
from isthmus.slurmjob.policy.readiness import judged, located
from tests.unit.builders import ATTEMPT, COMMENT, NOW, PUBLISHED, job, node, record, status


class TestLocated:
    def test_the_host_comes_from_slurm_and_the_port_from_the_job(self) -> None:
        one = record(comment=PUBLISHED)
        found = located(job(one), status=status(Phase.PENDING), record=one)
        assert (found.host, found.port) == ("10.10.0.1", 41000)

    @pytest.mark.parametrize(
        "comment",
        [COMMENT, "", "noise", PUBLISHED.replace(ATTEMPT, "abcdef"), f"{COMMENT}:port=99999"],
    )
    def test_nothing_published_for_us(self, comment: str) -> None:
        one = record(comment=comment)
        assert located(job(one), status=status(Phase.PENDING), record=one).port is None

    def test_a_node_that_slurm_does_not_list(self) -> None:
        one = record(comment=PUBLISHED, batch_host="gpu77")
        assert located(job(one), status=status(Phase.PENDING), record=one).port is None

    @pytest.mark.parametrize("port", [22, 6443, 40999, 42000])
    def test_a_port_out_of_range_is_refused_and_told(self, port: int) -> None:
        one = record(comment=f"{COMMENT}:port={port}")
        found = plan_slurm_job(job(one, status=status(Phase.PENDING)), now=NOW).status
        assert (found.port, found.phase) == (None, Phase.STARTING)
        assert found.reason == Reason.ADDRESS_REFUSED
        assert str(port) in (found.message or "")
        # And it is taken back when the job corrects itself.
        good = record(comment=PUBLISHED)
        found = plan_slurm_job(job(good, status=found), now=NOW).status
        assert (found.port, found.reason) == (41000, Reason.JOB_STARTING)

    def test_l6_an_address_with_a_scope_id_is_refused(self) -> None:
        one = record(comment=PUBLISHED)
        nodes = {"gpu01": replace(node(), address="fe80::1%$(id)")}
        observed = job(one, status=status(Phase.PENDING))
        assert observed.cluster.snapshot is not None
        seen = replace(observed.cluster, snapshot=replace(observed.cluster.snapshot, nodes=nodes))
        found = located(replace(observed, cluster=seen), status=observed.status, record=one)
        assert (found.host, found.reason) == (None, Reason.ADDRESS_REFUSED)
        assert "scope id" in (found.message or "")
        assert parse_address("fe80::1%$(id)") is None

    @pytest.mark.parametrize(("networks", "taken"), [((), False), (("127.0.0.0/8",), True)])
    def test_h4_a_node_on_loopback_is_one_only_where_it_is_declared(
        self, networks: tuple[str, ...], taken: bool
    ) -> None:
        one = record(comment=PUBLISHED)
        observed = job(one, status=status(Phase.PENDING))
        assert observed.cluster.snapshot is not None
        nodes = {"gpu01": replace(node(), address="127.0.0.1")}
        seen = replace(observed.cluster, snapshot=replace(observed.cluster.snapshot, nodes=nodes))
        rules = replace(observed.endpoint, networks=networks)
        observed = replace(observed, cluster=seen, endpoint=rules)
        found = located(observed, status=observed.status, record=one)
        assert (found.host == "127.0.0.1") is taken

    def test_other_rules_are_for_those_that_come(self) -> None:
        """A job that was submitted under the old ones is not waited for in vain."""
        one = record(comment=PUBLISHED)
        found = located(job(one), status=status(Phase.PENDING), record=one)
        observed = job(one, status=found)
        rules = replace(observed.endpoint, port_from=50000, networks=("192.168.0.0/24",))
        after = located(replace(observed, endpoint=rules), status=found, record=one)
        assert (after.host, after.port) == ("10.10.0.1", 41000)

    def test_a_comment_that_is_rewritten_takes_no_place_away(self) -> None:
        one = record(comment=PUBLISHED)
        found = located(job(one), status=status(Phase.PENDING), record=one)
        forged = record(comment=f"{COMMENT}:port=22")
        after = located(job(forged, status=found), status=found, record=forged)
        assert (after.host, after.port) == ("10.10.0.1", 41000)

    def test_the_first_node_of_several_is_the_batch_host(self) -> None:
        one = record(comment=PUBLISHED, nodes="gpu[01-02]", batch_host="gpu02")
        observed = job(one)
        assert observed.cluster.snapshot is not None
        nodes = {"gpu02": node("gpu02", "10.10.0.2")}
        seen = replace(observed.cluster, snapshot=replace(observed.cluster.snapshot, nodes=nodes))
        found = located(replace(observed, cluster=seen), status=status(Phase.PENDING), record=one)
        assert found.host == "10.10.0.2"


@pytest.mark.parametrize(
    ("before", "healthy", "why", "phase", "reason"),
    [
        (Phase.STARTING, None, "", Phase.STARTING, Reason.JOB_STARTING),
        (Phase.STARTING, False, "NotReady", Phase.STARTING, Reason.JOB_STARTING),
        (Phase.STARTING, False, "WrongAttempt", Phase.STARTING, Reason.IDENTITY_MISMATCH),
        (Phase.STARTING, True, "Healthy", Phase.READY, Reason.HEALTHY),
        (Phase.READY, True, "Healthy", Phase.READY, Reason.HEALTHY),
        (Phase.READY, False, "Timeout", Phase.DEGRADED, Reason.PROBE_FAILED),
        (Phase.READY, False, "WrongModel", Phase.DEGRADED, Reason.IDENTITY_MISMATCH),
        (Phase.DEGRADED, True, "Healthy", Phase.READY, Reason.HEALTHY),
        (Phase.DEGRADED, False, "Refused", Phase.DEGRADED, Reason.PROBE_FAILED),
    ],
)
def test_verdicts(
    before: Phase, healthy: bool | None, why: str, phase: Phase, reason: Reason
) -> None:
    observed = job(probe_healthy=healthy, probe_reason=why, probe_message="the answer")
    found = judged(observed, status=status(before), now=NOW)
    assert (found.phase, found.reason) == (phase, reason)
    assert found.healthy is (phase is Phase.READY)
    assert bool(found.ever_ready) is (before is not Phase.STARTING or phase is Phase.READY)


@pytest.mark.parametrize("before", [Phase.READY, Phase.DEGRADED])
def test_no_verdict_changes_nothing(before: Phase) -> None:
    assert judged(job(), status=status(before), now=NOW) == status(before)


class TestStartupTimeout:
    def test_the_time_that_is_left_is_when_to_look_again(self) -> None:
        """No change of the job would tell of it."""
        young = record(start_time=int(NOW) - 5 - 1000)
        found = plan_slurm_job(job(young, status=status(Phase.STARTING)), now=NOW)
        assert found.actions == ()
        assert found.requeue_after == pytest.approx(800)

    def test_it_ends_the_attempt(self) -> None:
        late = record(start_time=int(NOW) - 5 - 1801)
        starting = status(Phase.STARTING)
        found = plan_slurm_job(job(late, status=starting, probe_healthy=False), now=NOW)
        assert found.actions == (Cancel(job_id=101),)
        assert found.status.reason == Reason.STARTUP_TIMEOUT
        assert "startupTimeout" in (found.status.message or "")
        over = plan_slurm_job(job(record("CANCELLED"), status=found.status), now=NOW + 30).status
        assert (over.phase, over.reason) == (Phase.FAILED, Reason.STARTUP_TIMEOUT)

    @pytest.mark.parametrize("before", [Phase.READY, Phase.DEGRADED])
    def test_not_one_that_was_ready_once(self, before: Phase) -> None:
        late = record(start_time=int(NOW) - 90000)
        found = plan_slurm_job(
            job(late, status=status(before), probe_healthy=False, probe_reason="Timeout"), now=NOW
        )
        assert found.status.phase == Phase.DEGRADED
        assert found.actions == ()

    def test_the_operators_own_clock_does_not_matter(self) -> None:
        young = record(start_time=int(NOW) - 100)
        found = plan_slurm_job(job(young, status=status(Phase.STARTING)), now=NOW + 1e6)
        assert found.actions == ()


class TestNetworks:
    @pytest.mark.parametrize(
        ("networks", "admitted"),
        [
            ((), True),
            (("10.10.0.0/16",), True),
            (("192.168.0.0/24", "10.10.0.1/32"), True),
            (("10.11.0.0/16",), False),
            (("fd00::/8",), False),
        ],
    )
    def test_only_addresses_of_the_sites_networks(
        self, networks: tuple[str, ...], admitted: bool
    ) -> None:
        observed = job(
            record(comment=PUBLISHED), status=status(Phase.STARTING, host=None, port=None)
        )
        rules = replace(observed.endpoint, networks=networks)
        found = located(
            replace(observed, endpoint=rules), status=observed.status, record=observed.records[0]
        )
        assert (found.host == "10.10.0.1") is admitted
        if not admitted:
            assert found.reason == Reason.ADDRESS_REFUSED
            assert "network.nodeCIDRs" in (found.message or "")
