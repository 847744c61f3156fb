"""Durations and quantities as users write them."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from isthmus.api.durations import format_duration, parse_duration
from isthmus.api.quantities import whole_cores, whole_mebibytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("1h30m", 5400), ("8h", 28800), ("1h1s", 3601), ("0s", 0)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "1.5h", "5 m", "m", "1s1h", "-5s", "5m\n", "\u0665s"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="write for example"):
        parse_duration(text)


@given(st.integers(0, 10**7))
def test_durations_come_back(seconds):
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "cores"), [("8", 8), ("7500m", 8), ("1m", 1), ("0.5", 1), ("2.001", 3)]
)
def test_cores_are_rounded_up(text, cores):
    assert whole_cores(text) == cores


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [("64Gi", 65536), ("1Ti", 1048576), ("512M", 489), ("1.5Gi", 1536), ("1Mi", 1), ("1k", 1)],
)
def test_memory_is_rounded_up(text, mebibytes):
    assert whole_mebibytes(text) == mebibytes


@pytest.mark.parametrize("text", ["", "many", "64GB", "-1", "1e3", "64 Gi", "Gi"])
def test_what_is_no_quantity(text):
    with pytest.raises(ValueError, match="write for example"):
        whole_mebibytes(text)
