"""What is told of changes: a table, and properties over all statuses."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.api.conditions import ConditionType, Phase
from isthmus.api.modeldeployment_status import ModelDeploymentStatus
from isthmus.api.reasons import Reason
from isthmus.api.slurmcluster import SlurmClusterStatus
from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.telemetry.report import report
from isthmus.telemetry.transitions import TOLD, Status, transitions

THEN = "2026-01-01T00:00:00Z"
THROUGH, LOST = "a: through svc@login1", "tunnel of a: login1 does not answer"


def condition(kind: str, status: str, reason: str = "TunnelDown", message: str = "m") -> Any:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": THEN,
    }


def job(*conditions: Any, **fields: Any) -> SlurmJobStatus:
    return SlurmJobStatus.model_validate({"conditions": conditions, **fields})


def deployment(
    *conditions: Any,
    desired: int = 1,
    available: int = 0,
    revision: str = "old",
    rollout: dict[str, str] | None = None,
    deleting: bool = False,
) -> ModelDeploymentStatus:
    pools = [] if deleting else [{"name": "p", "desired": desired, "revision": revision}]
    return ModelDeploymentStatus.model_validate(
        {
            "conditions": conditions,
            "pools": pools,
            "availableReplicas": available,
            "rollout": rollout,
        }
    )


def cluster(status: str, reason: str) -> SlurmClusterStatus:
    made = [condition("SlurmReachable", status, reason)] if status else []
    return SlurmClusterStatus.model_validate({"conditions": made})


def told(*steps: Status) -> list[str]:
    """Reasons over a few passes, a warning with an exclamation mark."""
    return [
        f"{one.reason}{'!' if one.warning else ''}"
        for before, after in itertools.pairwise(steps)
        for one in transitions(before, after)
    ]


def tunnel(status: str, *, ready: bool = False) -> SlurmJobStatus:
    message = THROUGH if status == "True" else LOST
    return job(condition("TunnelUp", status, message=message), everReady=ready)


WAITING, PENDING = job(phase="Waiting"), job(phase="Pending", jobId=7)
DRAINING = job(phase="Draining", jobId=7, reason="Draining")
CUT = job(phase="Draining", jobId=7, reason="Draining", cut=3, terminatedAt=THEN)
SUBMITTING = job(phase="Submitting", submissions=1)
UNCLEAR = job(phase="SubmitUnknown", submissions=1)
SUBMITTED = job(phase="Pending", jobId=7, submissions=1)
QUIET = deployment()
ROLLING = deployment(revision="new", rollout={"startedAt": THEN})
ROLLED = deployment(
    revision="new", rollout={"startedAt": THEN, "finishedAt": "2026-01-01T00:02:05Z"}
)
LATER = "2026-01-01T00:05:00Z"
ROLLING_TO_ANOTHER = deployment(revision="newer", rollout={"startedAt": LATER})
ROLLED_TO_ANOTHER = deployment(
    revision="newer", rollout={"startedAt": LATER, "finishedAt": "2026-01-01T00:06:00Z"}
)
FAILING = job(condition("ActionsSucceed", "False", "ActionFailed"), phase="Pending", jobId=7)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((PENDING, DRAINING, CUT, CUT), ["DrainTimeout!"]),
        ((PENDING, FAILING, FAILING, PENDING), ["ActionFailed!"]),
        ((WAITING, job(phase="Submitting", excludedNodes=["n1"])), ["NodesExcluded!"]),
        ((WAITING, SUBMITTING, SUBMITTED, SUBMITTED), ["JobSubmitted"]),
        ((WAITING, UNCLEAR, SUBMITTED), ["JobSubmitted"]),
        # found again after its status was lost: it was not submitted now
        ((job(), PENDING), []),
        # a number of workers, and each change of it once
        ((deployment(desired=2), deployment(desired=3), deployment(desired=3)), ["ScalingUp"]),
        ((deployment(desired=3), deployment(desired=0)), ["ScalingDown"]),
        ((ModelDeploymentStatus(), deployment(desired=2)), ["ScalingUp"]),
        # a status that was lost while all workers serve
        ((ModelDeploymentStatus(), deployment(desired=2, available=2)), []),
        ((deployment(desired=2), deployment(desired=2, deleting=True)), []),
        # a rollout: its beginning, a change of it, its end
        ((QUIET, ROLLING, ROLLING, ROLLED, ROLLED), ["RolloutStarted", "RolloutComplete"]),
        (
            (QUIET, ROLLING, ROLLING_TO_ANOTHER, ROLLED_TO_ANOTHER),
            ["RolloutStarted", "RolloutStarted", "RolloutComplete"],
        ),
        ((ROLLED, ROLLING_TO_ANOTHER), ["RolloutStarted"]),
        ((QUIET, ROLLED), []),  # a status that was restored
        # tunnels: a break and its end, and nothing of a normal start
        ((job(), tunnel("Unknown"), tunnel("True")), []),
        ((tunnel("True"), tunnel("True", ready=True)), []),
        (
            (tunnel("True", ready=True), tunnel("False", ready=True), tunnel("True", ready=True)),
            ["TunnelDown!", "TunnelRestored"],
        ),
        (
            (tunnel("Unknown"), tunnel("False"), tunnel("True")),
            ["TunnelDown!", "TunnelEstablished"],
        ),
        (
            (
                deployment(condition("TunnelsUp", "True")),
                deployment(condition("TunnelsUp", "False")),
                deployment(condition("TunnelsUp", "True")),
            ),
            ["TunnelDown!", "TunnelRestored"],
        ),
        # a SlurmCluster
        ((cluster("", ""), cluster("True", "SnapshotComplete")), []),
        ((cluster("True", "SnapshotComplete"), cluster("False", "CommandTimeout")), []),
        (
            (cluster("False", "CommandTimeout"), cluster("False", "UnknownFormat")),
            ["UnknownFormat!"],
        ),
        (
            (cluster("True", "SnapshotComplete"), cluster("True", "RecordsUnreadable")),
            ["RecordsUnreadable!"],
        ),
    ],
)
def test_what_is_told(steps: tuple[Status, ...], expected: list[str]) -> None:
    assert told(*steps) == expected


def test_the_number_of_cut_requests_is_told_whatever_the_status_says_by_then() -> None:
    """A job whose record cannot be read says that, and its event said it too."""
    after = CUT.model_copy(update={"message": "SLURM shows job 7 in a form that ..."})
    (one,) = transitions(DRAINING, after)
    assert "3 requests" in one.message
    assert "SLURM shows" not in one.message


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (deployment(desired=1), deployment(desired=3), "scaling up from 1 to 3 workers"),
        (deployment(desired=3), deployment(desired=1), "scaling down from 3 to 1 worker"),
        (
            QUIET,
            ROLLING,
            "rollout started: pool p runs revision new instead of old",
        ),
        (ROLLING, ROLLED, "rollout complete after 2m5s: pool p runs revision new"),
        (WAITING, SUBMITTED, "submitted to SLURM as job 7"),
    ],
)
def test_what_it_is_in_a_sentence(before: Status, after: Status, message: str) -> None:
    (one,) = transitions(before, after)
    assert (one.message, one.warning) == (message, False)


def test_each_transition_is_one_event() -> None:
    said: list[tuple[str, Reason, str]] = []

    class Events:
        def emit(self, obj: object, *, type: str, reason: Reason, message: str) -> None:
            said.append((type, reason, message))

    report(Events(), {}, before=tunnel("Unknown"), after=tunnel("False"))
    report(Events(), {}, before=tunnel("False"), after=tunnel("True"))
    assert said == [
        ("Warning", Reason.TUNNEL_DOWN, LOST),
        ("Normal", Reason.TUNNEL_ESTABLISHED, f"tunnel established: {THROUGH}"),
    ]


_WORDS = st.sampled_from([*map(str, Reason), "AnotherRelease", ""])
_CONDITIONS = st.lists(
    st.builds(
        condition, st.sampled_from(ConditionType), st.sampled_from(["True", "False"]), _WORDS
    ),
    max_size=3,
    unique_by=lambda one: str(one["type"]),
)
_JOBS = st.builds(
    lambda conditions, **fields: job(*conditions, **fields),
    _CONDITIONS,
    phase=st.none() | st.sampled_from(Phase),
    reason=st.none() | _WORDS,
    jobId=st.none() | st.integers(1, 3),
    submissions=st.none() | st.integers(0, 2),
    cut=st.none() | st.integers(0, 3),
    terminatedAt=st.sampled_from([None, THEN]),
    everReady=st.booleans(),
)
_TIMES = st.sampled_from([THEN, LATER])
_DEPLOYMENTS = st.builds(
    lambda conditions, **fields: deployment(*conditions, **fields),
    _CONDITIONS,
    desired=st.integers(0, 3),
    available=st.integers(0, 3),
    revision=st.sampled_from(["old", "new"]),
    rollout=st.none()
    | st.fixed_dictionaries({"startedAt": _TIMES}, optional={"finishedAt": _TIMES}),
    deleting=st.booleans(),
)
_CLUSTERS = st.builds(
    lambda conditions: SlurmClusterStatus.model_validate({"conditions": conditions}), _CONDITIONS
)
_PAIRS: Any = st.one_of(*(st.tuples(kind, kind) for kind in (_JOBS, _DEPLOYMENTS, _CLUSTERS)))


@settings(max_examples=300)
@given(_PAIRS)
def test_every_transition_has_a_reason_and_equal_statuses_have_none(pair: Any) -> None:
    before, after = pair
    found = transitions(before, after)
    assert {one.reason for one in found} <= TOLD[type(after).__name__.removesuffix("Status")]
    assert len({one.reason for one in found}) == len(found), "each is told once"
    assert transitions(after, after) == ()
    assert transitions(after, after.model_copy()) == ()
