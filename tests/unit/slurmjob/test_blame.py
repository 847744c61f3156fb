"""Which nodes the next attempt of a revision leaves out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.api.conditions import Phase, Reason
from isthmus.backends.slurm.records import NodeRecord
from isthmus.slurmjob.policy.blame import LASTS, WITHIN, Attempt, blamed, excluded, told
from tests.unit.builders import NOW, node


def failure(name: str = "gpu01", *, ago: float, reason: str = Reason.JOB_FAILED) -> Attempt:
    return Attempt(node=name, phase=Phase.FAILED, reason=reason, finished_at=NOW - ago)


def nodes(*names: str) -> list[NodeRecord]:
    return [node(name) for name in names]


def left_out(
    *attempts: Attempt,
    of: list[NodeRecord] | None = None,
    partitions: frozenset[str] = frozenset({"gpu"}),
    options: tuple[str, ...] = (),
) -> tuple[str, ...]:
    known = nodes("gpu01", "gpu02", "gpu03") if of is None else of
    return excluded(attempts, nodes=known, partitions=partitions, options=options, now=NOW)


TWICE = (failure(ago=400), failure(ago=100))


def test_f7_two_failures_within_minutes_leave_a_node_out() -> None:
    assert left_out(*TWICE) == ("gpu01",)
    assert left_out(failure(ago=100)) == ()
    assert left_out(failure(ago=100), failure("gpu02", ago=50)) == ()
    assert "gpu01" in told(("gpu01",))


def test_f7_it_expires() -> None:
    assert left_out(failure(ago=100 + WITHIN + 1), failure(ago=100)) == ()
    assert left_out(failure(ago=LASTS + 100), failure(ago=LASTS - 1)) == ("gpu01",)
    assert left_out(failure(ago=LASTS + 100), failure(ago=LASTS)) == ()


@pytest.mark.parametrize(
    "reason",
    [Reason.SUBMIT_REFUSED, Reason.JOB_REQUEUED, Reason.JOB_OUT_OF_MEMORY, Reason.JOB_PREEMPTED],
)
def test_f7_what_is_no_fault_of_a_node_is_not_held_against_it(reason: Reason) -> None:
    assert left_out(*(replace(one, reason=reason) for one in TWICE)) == ()


def test_f7_a_node_on_which_the_revision_serves_is_not_blamed() -> None:
    well = Attempt(node="gpu01", phase=Phase.READY, reason=Reason.HEALTHY, finished_at=None)
    assert left_out(*TWICE, well) == ()


def test_f7_the_users_own_choice_of_nodes_stands() -> None:
    assert left_out(*TWICE, options=("--nodelist=gpu01",)) == ()
    assert left_out(*TWICE, options=("--exclude=gpu[02-03]",)) == (), "nothing may be left"
    assert left_out(*TWICE, options=("--exclude=gpu02",)) == ("gpu01",)
    assert left_out(*TWICE, options=("--exclude=gpu02,gpu03",)) == ()


def test_f7_only_nodes_that_take_jobs_count_as_left() -> None:
    down = replace(node("gpu02"), states=frozenset({"DOWN"}))
    assert left_out(*TWICE, of=[node("gpu01"), down]) == ()
    assert left_out(*TWICE, of=nodes("gpu02", "gpu03")) == (), (
        "sbatch refuses names it does not know"
    )
    assert left_out(*TWICE, of=[]) == (), "a site that hides its nodes"


def test_f7_one_is_left_in_each_partition_that_it_may_get() -> None:
    alone = replace(node("gpu01"), partitions=frozenset({"small"}))
    assert left_out(*TWICE, of=[alone, *nodes("gpu02", "gpu03")], partitions=frozenset()) == ()


def test_f7_what_is_refused_without_a_node_is_tried_with_it() -> None:
    """An option of the user, or a kind of GPU, may leave no other node."""
    refused = replace(failure("", ago=10, reason=Reason.SUBMIT_REFUSED), without=True)
    assert left_out(*TWICE, refused) == ()


NAMES = st.sampled_from([f"gpu0{n}" for n in range(1, 6)])
ATTEMPTS = st.lists(
    st.builds(
        Attempt,
        node=NAMES | st.just(""),
        phase=st.sampled_from([Phase.FAILED, Phase.NODE_FAULT, Phase.READY, None]),
        reason=st.sampled_from([Reason.JOB_FAILED, Reason.STARTUP_TIMEOUT, Reason.JOB_NODE_FAILED]),
        finished_at=st.none() | st.floats(NOW - 4000, NOW),
    ),
    max_size=30,
)
KNOWN = st.lists(
    st.builds(
        lambda name, parts, state: replace(
            node(name), partitions=frozenset(parts), states=frozenset({state})
        ),
        NAMES,
        st.sets(st.sampled_from(["gpu", "long", "debug"]), min_size=1),
        st.sampled_from(["IDLE", "MIXED", "ALLOCATED", "DOWN", "DRAIN", "MAINT"]),
    ),
    unique_by=lambda one: one.name,
)


@given(attempts=ATTEMPTS, known=KNOWN, wanted=st.sets(st.sampled_from(["gpu", "long"])))
def test_f7_never_all_nodes_and_only_blamed_ones_that_slurm_has_named(
    attempts: list[Attempt], known: list[NodeRecord], wanted: set[str]
) -> None:
    found = excluded(attempts, nodes=known, partitions=frozenset(wanted), options=(), now=NOW)
    assert set(found) <= {one.name for one in known} & set(blamed(attempts, now=NOW))
    for partition in wanted or {p for one in known for p in one.partitions}:
        before = {
            one.name
            for one in known
            if partition in one.partitions and not one.states & {"DOWN", "DRAIN", "MAINT"}
        }
        assert not before or before - set(found), "no node of the partition is left"
