"""Which of several jobs with an attempt's name is the attempt."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.backends.slurm.records import JobRecord
from isthmus.backends.slurm.states import JobState, observe
from isthmus.slurmjob.policy.identity import choose, passed_gate
from tests.unit.builders import ATTEMPT, COMMENT, PUBLISHED, record

GATE = {"state": "FAILED", "exit_code": 75 << 8}
REFUSED = {"state": "FAILED", "reason": "BadConstraints"}


def chosen(*records: JobRecord, bound: int | None = None) -> tuple[int | None, set[int]]:
    found = choose(records=records, attempt=ATTEMPT, bound=bound)
    primary = None if found.primary is None else found.primary.job_id
    return primary, {one.job_id for one in found.surplus}


@pytest.mark.parametrize(
    ("records", "bound", "primary", "surplus"),
    [
        pytest.param([], None, None, set(), id="nothing"),
        pytest.param([record(job_id=1)], None, 1, set(), id="the only one"),
        pytest.param(
            [record("COMPLETED", job_id=1), record("PENDING", job_id=2)], None, 2, set(), id="live"
        ),
        pytest.param(
            [record("PENDING", job_id=1), record(job_id=2)], 1, 2, {1}, id="started before pending"
        ),
        pytest.param(
            [record(job_id=1), record(job_id=2, comment=PUBLISHED)],
            1,
            2,
            {1},
            id="behind the gate before all",
        ),
        pytest.param(
            [record("PENDING", job_id=1), record("PENDING", job_id=2)],
            None,
            1,
            {2},
            id="lowest id",
        ),
        pytest.param(
            [record("PENDING", job_id=1), record("PENDING", job_id=2)], 2, 2, {1}, id="known one"
        ),
        pytest.param(
            [record(job_id=1), record("CONFIGURING", job_id=2)],
            None,
            1,
            set(),
            id="started ones are left to the gate",
        ),
        pytest.param(
            [record(**GATE, job_id=3), record("COMPLETED", job_id=1)],
            None,
            1,
            set(),
            id="the gate's refusal says least",
        ),
        pytest.param(
            [record(**REFUSED, job_id=3), record(**GATE, job_id=1)],
            None,
            1,
            set(),
            id="and SLURM's refusal less",
        ),
        pytest.param(
            [record("FAILED", job_id=1), record("COMPLETED", job_id=2)],
            None,
            2,
            set(),
            id="the latest of the ended",
        ),
    ],
)
def test_choice(
    records: list[JobRecord], bound: int | None, primary: int | None, surplus: set[int]
) -> None:
    for order in permutations(records):
        assert chosen(*order, bound=bound) == (primary, surplus)


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        (PUBLISHED, True),
        (COMMENT, False),
        ("", False),
        (PUBLISHED.replace(ATTEMPT, "abcdef"), False),
        (f"{PUBLISHED} approved", False),
    ],
)
def test_passed_gate(comment: str, expected: bool) -> None:
    assert passed_gate(record(comment=comment), attempt=ATTEMPT) is expected


STATES = st.sampled_from(
    ["PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "COMPLETED", "FAILED", "NEVER_HEARD_OF"]
)


@given(
    found=st.lists(st.tuples(STATES, st.sampled_from([COMMENT, PUBLISHED])), max_size=4),
    bound=st.none() | st.integers(0, 4),
)
def test_what_always_holds(found: list[tuple[str, str]], bound: int | None) -> None:
    records = [
        record(state, comment=comment, job_id=index) for index, (state, comment) in enumerate(found)
    ]
    choice = choose(records=records, attempt=ATTEMPT, bound=bound)
    if choice.primary is None:
        assert all(not observe(one).live for one in records)
    assert choice.primary not in choice.surplus
    for extra in choice.surplus:
        assert observe(extra).live
        assert choice.primary is not None
        # Nobody is cancelled for one that might turn out to be the wrong one.
        assert passed_gate(choice.primary, attempt=ATTEMPT) or (observe(extra) is JobState.Pending)
    started = [one for one in records if observe(one).live and observe(one) is not JobState.Pending]
    if started and choice.primary not in started:
        assert choice.primary is not None
        assert passed_gate(choice.primary, attempt=ATTEMPT)
    for one in records:
        # No live job is overlooked: followed, cancelled, or ended by the gate.
        assert not observe(one).live or one in {choice.primary, *choice.surplus, *started}


class TestGhostsOfAFollowedJob:
    def test_one_turned_away_does_not_end_the_attempt(self) -> None:
        """The followed job is missing from this snapshot: that needs more than a ghost's word."""
        ghost = record("FAILED", job_id=105, exit_code=75 << 8)
        assert choose(records=[ghost], attempt=ATTEMPT, bound=101).primary is None
        assert choose(records=[ghost], attempt=ATTEMPT, bound=None).primary == ghost
        assert choose(records=[ghost], attempt=ATTEMPT, bound=105).primary == ghost

    def test_one_that_still_waits_does_not_revive_it(self) -> None:
        over = record("FAILED", job_id=101, exit_code=1 << 8)
        ghost = record("PENDING", job_id=105)
        found = choose(records=[ghost, over], attempt=ATTEMPT, bound=101)
        assert (found.primary, found.surplus) == (over, (ghost,))

    def test_the_one_behind_the_gate_is_the_attempt(self) -> None:
        over = record("CANCELLED", job_id=101)
        engine = record("RUNNING", job_id=105, comment=PUBLISHED)
        found = choose(records=[over, engine], attempt=ATTEMPT, bound=101)
        assert found.primary == engine
