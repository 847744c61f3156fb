"""What is told of ways to workers: a break and its end, and nothing of a normal start."""

import itertools
from typing import Any

import pytest

from isthmus.api.conditions import Reason
from isthmus.api.modeldeployment_status import ModelDeploymentStatus
from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.reconcile.tunnel_events import tell_of_tunnel, tell_of_tunnels

JOB: dict[str, Any] = {"metadata": {"name": "j"}}
THROUGH, LOST = "a: through svc@login1", "tunnel of a: login1 does not answer"
MADE = "tunnel of a: not asked yet"


class Events:
    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def emit(self, obj: object, *, type: str, reason: Reason, message: str) -> None:
        self.told.append((type, reason, message))


def condition(kind: str, status: str, message: str) -> dict[str, str]:
    return {
        "type": kind,
        "status": status,
        "reason": "R",
        "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def job(status: str, message: str, *, ready: bool = False) -> SlurmJobStatus:
    conditions = [condition("TunnelUp", status, message)] if status else []
    return SlurmJobStatus.model_validate({"conditions": conditions, "everReady": ready})


def told(*steps: SlurmJobStatus) -> list[tuple[str, str, str]]:
    events = Events()
    for before, after in itertools.pairwise(steps):
        tell_of_tunnel(events, JOB, before=before, after=after)
    return events.told


def test_of_a_normal_start_nothing() -> None:
    assert told(job("", ""), job("Unknown", MADE), job("True", THROUGH)) == []
    assert told(job("", ""), job("True", THROUGH), job("True", THROUGH, ready=True)) == []


def test_of_a_break_and_its_end() -> None:
    up, down = job("True", THROUGH, ready=True), job("False", LOST, ready=True)
    assert told(up, down, down, up) == [
        ("Warning", Reason.TUNNEL_DOWN, LOST),
        ("Normal", Reason.TUNNEL_RESTORED, f"tunnel restored: {THROUGH}"),
    ]


def test_a_way_that_never_worked_is_not_restored() -> None:
    assert told(job("Unknown", MADE), job("False", LOST), job("True", THROUGH)) == [
        ("Warning", Reason.TUNNEL_DOWN, LOST),
        ("Normal", Reason.TUNNEL_ESTABLISHED, f"tunnel established: {THROUGH}"),
    ]


@pytest.mark.parametrize(("first", "second", "count"), [("True", "False", 1), ("False", "True", 1)])
def test_of_a_deployment(first: str, second: str, count: int) -> None:
    def status(word: str) -> ModelDeploymentStatus:
        made = {"conditions": [condition("TunnelsUp", word, "m")]}
        return ModelDeploymentStatus.model_validate(made)

    events = Events()
    tell_of_tunnels(events, JOB, before=status(first), after=status(second))
    tell_of_tunnels(events, JOB, before=ModelDeploymentStatus(), after=status(second))
    assert len(events.told) == count
