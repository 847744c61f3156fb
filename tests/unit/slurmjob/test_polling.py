"""When a job has its cluster looked at sooner than the poll interval."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.api.conditions import Phase
from isthmus.slurmjob.policy.polling import LEAST, LOOK_EVERY, YOUNG, look_in
from isthmus.slurmjob.record import AttemptStatus, Job, Submission
from tests.unit.builders import NOW
from tests.unit.builders import job as job_observation

STARTED = Submission(started_at=NOW - 5)


@pytest.mark.parametrize(
    ("status", "sooner"),
    [
        (AttemptStatus(phase=Phase.PENDING, submission=STARTED), True),
        (AttemptStatus(phase=Phase.STARTING, submission=STARTED), True),
        (AttemptStatus(phase=Phase.SUBMIT_UNKNOWN, submission=STARTED), True),
        (AttemptStatus(phase=Phase.STARTING, submission=STARTED, port=1), False),
        (AttemptStatus(phase=Phase.READY, submission=STARTED), False),
        (AttemptStatus(phase=Phase.WAITING), False),
        (
            AttemptStatus(phase=Phase.PENDING, submission=Submission(started_at=NOW - YOUNG - 1)),
            False,
        ),
    ],
)
def test_only_awaited_starts_ask_for_more(status: AttemptStatus, sooner: bool) -> None:
    observed = job_observation(status=status)
    assert (look_in(observed, status=status, now=NOW) is not None) is sooner


def test_never_more_often_than_every_ten_seconds() -> None:
    status = AttemptStatus(phase=Phase.PENDING, submission=STARTED)
    observed = job_observation(status=status)
    snapshot = observed.cluster.snapshot
    assert snapshot is not None
    old = replace(snapshot, started_at=NOW - LOOK_EVERY - 1)
    young = replace(snapshot, started_at=NOW - 4)
    for taken, seconds in ((old, 0.0), (young, LOOK_EVERY - 4)):
        cluster = replace(observed.cluster, snapshot=taken)
        assert look_in(replace(observed, cluster=cluster), status=status, now=NOW) == seconds


@given(load=st.floats(1, 3600), submitted=st.floats(0, 3600))
def test_h1_a_port_that_is_published_after_the_load_is_seen_in_good_time(
    load: float, submitted: float
) -> None:
    """Late by at most an eighth of the load (or the least gap), for a bounded number of looks."""
    first = job_observation(
        status=AttemptStatus(
            phase=Phase.STARTING,
            job=Job(start_time=NOW),
            submission=Submission(started_at=NOW - submitted),
        )
    )
    assert first.cluster.snapshot is not None
    now, seen, looks = NOW, NOW, 0
    while now - NOW < load:
        taken = replace(first.cluster.snapshot, started_at=seen, taken_at=seen, cluster_time=seen)
        observed = replace(first, cluster=replace(first.cluster, snapshot=taken))
        left = look_in(observed, status=first.status, now=now)
        if left is None:
            assert now - NOW > 8 * 59
            return
        if left == 0:
            seen, looks = now, looks + 1
        now += left or LEAST
    assert now - NOW - load <= max(LEAST, load / 8) + LEAST
    assert looks <= 30


def test_a_cluster_that_cannot_be_seen_is_left_to_its_poller() -> None:
    status = AttemptStatus(phase=Phase.PENDING, submission=STARTED)
    observed = job_observation(status=status)
    stale = replace(observed, cluster=replace(observed.cluster, fresh=False))
    assert look_in(stale, status=status, now=NOW) is None
