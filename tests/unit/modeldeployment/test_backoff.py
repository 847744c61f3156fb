"""How long a failed attempt keeps its replacement waiting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.api.conditions import Phase
from isthmus.backends.base import Worker
from isthmus.modeldeployment.policy.backoff import retry_at
from tests.unit.builders import NOW, slurm_worker


def ended(*phases: Phase, at: float = NOW) -> list[Worker]:
    return [
        slurm_worker(f"j-{index}", state="failed", phase=phase, finished_at=at - 10.0 * index)
        for index, phase in enumerate(phases)
    ]


@pytest.mark.parametrize(
    ("phases", "delay"),
    [
        ((), None),
        ((Phase.FAILED,), 10.0),
        ((Phase.FINISHED,), 10.0),
        ((Phase.FAILED, Phase.FAILED), 20.0),
        ((Phase.FAILED,) * 4, 80.0),
        ((Phase.FAILED,) * 9, 300.0),
        ((Phase.FAILED,) * 90, 300.0),
        ((Phase.EXPIRED,), None),
        ((Phase.PREEMPTED, Phase.NODE_FAULT), None),
        ((Phase.EXPIRED, Phase.FAILED), 0.0),
    ],
)
def test_delays(phases: tuple[Phase, ...], delay: float | None) -> None:
    found = retry_at(ended=ended(*phases), base=10.0, cap=300.0)
    # In the last case the failed one ended 10 s before NOW.
    assert found == (None if delay is None else NOW + delay)


def test_an_attempt_without_an_end_is_no_reason_to_wait() -> None:
    one = slurm_worker(state="failed", finished_at=None)
    assert retry_at(ended=[one], base=10.0, cap=300.0) is None


@given(count=st.integers(1, 2000), base=st.floats(0.1, 60), cap=st.floats(60, 900))
def test_never_longer_than_the_cap(count: int, base: float, cap: float) -> None:
    found = retry_at(ended=ended(*[Phase.FAILED] * count), base=base, cap=cap)
    assert found is not None
    assert NOW < found <= NOW + cap
