"""When the latest rollout began and ended."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.api.modeldeployment_status import (
    ModelDeploymentStatus,
    PoolStatus,
    RolloutStatus,
)
from isthmus.api.reasons import Reason
from isthmus.api.times import rfc3339
from isthmus.modeldeployment.plan import plan_model_deployment
from isthmus.modeldeployment.policy.rollout_times import rollout_times
from isthmus.telemetry.transitions import transitions
from tests.unit.builders import NOW, deployment, desired, slurm_group, slurm_pool

THEN = rfc3339(NOW - 90)
HERE = rfc3339(NOW)
LASTS, OVER = RolloutStatus(started_at=THEN), RolloutStatus(started_at=THEN, finished_at=THEN)


@pytest.mark.parametrize(
    ("before", "changed", "outdated", "complete", "after"),
    [
        (None, False, False, True, None),
        (None, False, False, False, None),  # a deployment that starts
        (None, False, True, False, RolloutStatus(started_at=HERE)),
        (None, True, False, False, RolloutStatus(started_at=HERE)),  # what was there did not serve
        (None, True, False, True, None),  # nothing to be rolled out
        (LASTS, False, True, False, LASTS),
        (LASTS, False, False, False, LASTS),  # the last of them is not ready yet
        (LASTS, True, True, False, RolloutStatus(started_at=HERE)),
        (LASTS, False, False, True, RolloutStatus(started_at=THEN, finished_at=HERE)),
        (OVER, False, False, False, OVER),  # a worker failed: no rollout
        (OVER, False, True, False, RolloutStatus(started_at=HERE)),
    ],
)
def test_it_begins_and_ends(
    before: RolloutStatus | None,
    changed: bool,
    outdated: bool,
    complete: bool,
    after: RolloutStatus | None,
) -> None:
    found = rollout_times(before, changed=changed, outdated=outdated, complete=complete, now=NOW)
    assert found == after


_LOOKS = st.lists(st.sampled_from(["rests", "changes", "old ones", "lacks"]), max_size=30)


@given(_LOOKS)
def test_each_beginning_and_each_end_is_told_once(looks: list[str]) -> None:
    """Whatever the looks find: an end is told only of what was told to begin."""
    statuses = [ModelDeploymentStatus()]
    for number, look in enumerate(looks):
        rollout = rollout_times(
            statuses[-1].rollout,
            changed=look == "changes",
            outdated=look in {"changes", "old ones"},
            complete=look == "rests",
            now=NOW + 10 * number,
        )
        statuses.append(ModelDeploymentStatus(rollout=rollout))
        again = rollout_times(
            rollout,
            changed=False,
            outdated=look in {"changes", "old ones"},
            complete=look == "rests",
            now=NOW + 10 * number + 5,
        )
        assert again == rollout, "a second look from there changes nothing"
    told = [one.reason for pair in pairwise(statuses) for one in transitions(*pair)]
    for before, after in pairwise([Reason.ROLLOUT_COMPLETE, *told]):
        if after is Reason.ROLLOUT_COMPLETE:
            assert before is Reason.ROLLOUT_STARTED


def test_the_plan_records_it_from_the_first_look_to_the_last() -> None:
    """The old one does not serve and goes in the same pass: there is no look with an old worker."""
    before = ModelDeploymentStatus(
        replicas=1, pools=(PoolStatus(name="hpc", desired=1, revision="old"),)
    )
    wanted = desired(slurm_pool(), replicas=1)
    starts = deployment(wanted, slurm_group("starting"), current={"hpc": "new"})
    status = plan_model_deployment(replace(starts, status=before), now=NOW).status
    assert status.rollout == RolloutStatus(started_at=HERE)
    serves = deployment(wanted, slurm_group("ready"), current={"hpc": "new"})
    after = plan_model_deployment(replace(serves, status=status), now=NOW + 125).status
    assert after.rollout is not None
    assert after.rollout.finished_at == rfc3339(NOW + 125)
    (told,) = (t for t in transitions(status, after) if t.reason is Reason.ROLLOUT_COMPLETE)
    assert "2m5s" in told.message
