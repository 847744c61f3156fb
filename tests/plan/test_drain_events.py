"""What is told where requests are cut."""

from typing import Any

from isthmus.api.conditions import Phase
from isthmus.reconcile.drain_events import tell_of_cut_job
from tests.plan.builders import NOW, status


class Events:
    def __init__(self) -> None:
        self.said: list[str] = []

    def emit(self, raw: Any, *, type: str, reason: str, message: str) -> None:
        self.said.append(f"{type} {reason} {message}")


def test_the_number_is_told_whatever_the_status_says_by_then() -> None:
    """A job whose record cannot be read says that, and its event said it too."""
    before = status(Phase.DRAINING)
    after = before.model_copy(
        update={"terminated_at": NOW, "cut": 3, "message": "SLURM shows job 101 in a form that ..."}
    )
    events: Any = Events()
    tell_of_cut_job(events, {}, before=before, after=after, budget=60.0)
    (said,) = events.said
    assert said.startswith("Warning DrainTimeout")
    assert "3 requests" in said
    assert "SLURM shows" not in said
