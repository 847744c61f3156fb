"""When a worker that is out of rotation may be told to end."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.backends.base import Load
from isthmus.rules.drain import (
    LOOK,
    SILENCE,
    UNREADABLE,
    Decision,
    DrainTimes,
    Proceed,
    Wait,
    decide,
    told,
)

OUT = 1_800_000_000.0
TIMES = DrainTimes(floor=5.0, budget=300.0)
IDLE = Load(requests=0)
BUSY = Load(requests=3)


def after(seconds: float, load: Load, times: DrainTimes = TIMES) -> Decision:
    return decide(out_since=OUT, now=OUT + seconds, load=load, times=times)


@pytest.mark.parametrize("load", [IDLE, BUSY, UNREADABLE])
def test_nothing_happens_before_every_node_has_heard_of_it(load: Load) -> None:
    assert after(4.0, load) == Wait(1.0)


def test_an_idle_engine_may_end() -> None:
    assert after(5.0, IDLE) == Proceed(cut=0)


def test_idle_before_the_floor_shows_nothing() -> None:
    """A request may have come after that reading."""
    assert isinstance(after(6.0, Load(requests=0, age=1.5)), Wait)
    assert after(6.0, Load(requests=0, age=0.5)) == Proceed(cut=0)


def test_idleness_must_have_stood_for_as_long_as_metrics_are_late() -> None:
    late = Load(requests=0, proof=30.0)
    assert isinstance(after(40.0, late), Wait), "one reading"
    assert isinstance(after(40.0, replace(late, idle_for=29.0)), Wait)
    assert after(40.0, replace(late, idle_for=30.0)) == Proceed(cut=0)


def test_of_a_row_of_idle_readings_the_part_after_the_floor_counts() -> None:
    """A request may have come just before it, and be on no gauge yet."""
    row = Load(requests=0, idle_for=3600.0, proof=2.0)
    assert isinstance(after(6.9, row), Wait)
    assert after(7.0, row) == Proceed(cut=0)
    assert isinstance(after(7.5, replace(row, age=1.0)), Wait)


def test_running_requests_are_waited_for_until_the_budget_ends() -> None:
    assert after(304.0, BUSY) == Wait(1.0)
    assert after(305.0, BUSY) == Proceed(cut=3, over=True)


def test_silent_metrics_are_waited_for_a_while_only() -> None:
    assert isinstance(after(20.0, Load(requests=None, silent_for=SILENCE - 1)), Wait)
    assert after(20.0, Load(requests=None, silent_for=SILENCE)) == Proceed(cut=None)
    assert after(5.0, UNREADABLE) == Proceed(cut=None)


def test_nothing_asked_yet_is_not_silence() -> None:
    """After a restart of the operator."""
    assert isinstance(after(100.0, Load(requests=None)), Wait)


def test_an_idle_reading_that_has_grown_silent_is_not_believed() -> None:
    assert isinstance(after(100.0, Load(requests=0, age=2.0, silent_for=1.0)), Wait)


def test_without_a_budget_only_the_floor_is_kept() -> None:
    none = DrainTimes(floor=5.0, budget=0.0)
    assert after(4.0, BUSY, none) == Wait(1.0)
    assert after(5.0, BUSY, none) == Proceed(cut=3, over=True)


@pytest.mark.parametrize(
    ("decision", "sentence"),
    [
        (Proceed(cut=0), ""),
        (Proceed(cut=0, over=True), ""),
        (Proceed(cut=1, over=True), "1 request interrupted after drain.timeout 5m"),
        (Proceed(cut=3, over=True), "3 requests interrupted after drain.timeout 5m"),
        (
            Proceed(cut=None),
            "cannot read the number of open requests; relying on the engine's graceful shutdown",
        ),
    ],
)
def test_what_is_told(decision: Proceed, sentence: str) -> None:
    assert told(decision, budget=300.0) == sentence


loads = st.builds(
    Load,
    requests=st.none() | st.integers(0, 50),
    age=st.floats(0, 400),
    silent_for=st.just(0.0) | st.floats(0, 400),
    idle_for=st.just(0.0) | st.floats(0, 400),
    proof=st.sampled_from([0.0, 0.5, 30.0]),
)
moments = st.floats(-100, 1000)
times = st.builds(DrainTimes, floor=st.floats(0, 60), budget=st.floats(0, 600))


@given(seconds=moments, load=loads, times=times)
def test_no_known_request_is_cut_before_its_budget(
    seconds: float, load: Load, times: DrainTimes
) -> None:
    decision = after(seconds, load, times)
    if isinstance(decision, Proceed):
        now = OUT + seconds
        assert now >= OUT + times.floor
        if decision.cut:
            assert now >= OUT + times.floor + times.budget


@given(seconds=moments, load=loads, times=times)
def test_a_wait_ends(seconds: float, load: Load, times: DrainTimes) -> None:
    decision = after(seconds, load, times)
    if isinstance(decision, Wait):
        assert 0 < decision.seconds <= max(LOOK, times.floor)
    over = times.floor + times.budget + 1
    assert isinstance(after(max(seconds, over), load, times), Proceed)
