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
from isthmus.telemetry.transitions import Status, transitions

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


def deployment(*conditions: Any, desired: int = 1) -> ModelDeploymentStatus:
    pools = [{"name": "p", "desired": desired}]
    return ModelDeploymentStatus.model_validate({"conditions": conditions, "pools": pools})


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
FAILING = job(condition("ActionsSucceed", "False", "ActionFailed"), phase="Pending", jobId=7)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((PENDING, DRAINING, CUT, CUT), ["DrainTimeout!"]),
        ((PENDING, FAILING, FAILING, PENDING), ["ActionFailed!"]),
        ((WAITING, job(phase="Submitting", excludedNodes=["n1"])), ["NodesExcluded!"]),
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
    cut=st.none() | st.integers(0, 3),
    terminatedAt=st.sampled_from([None, THEN]),
    everReady=st.booleans(),
)
_DEPLOYMENTS = st.builds(
    lambda conditions, desired: deployment(*conditions, desired=desired),
    _CONDITIONS,
    st.integers(0, 3),
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
    assert all(isinstance(one.reason, Reason) for one in found)
    assert len({one.reason for one in found}) == len(found), "each is told once"
    assert transitions(after, after) == ()
    assert transitions(after, after.model_copy()) == ()
