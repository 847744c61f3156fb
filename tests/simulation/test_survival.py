"""Nothing that one tenant stores, serves or answers ends the operator or delays another one."""

from collections.abc import Callable

import pytest

from tests.simulation.survival import survive

Record = Callable[[str, object], None]


def check(record: Record, *, seed: int, cases: int) -> None:
    result = survive(seed, cases=cases)
    record("cases", result.cases)
    record("slowest change of the honest tenant, virtual s", round(result.slowest))
    assert not result.problems, "\n".join(result.problems)
    assert result.cases == cases


@pytest.mark.timeout(600)
def test_an_operator_survives_a_hostile_tenant(record_property: Record) -> None:
    check(record_property, seed=1, cases=500)


@pytest.mark.soak
@pytest.mark.acceptance
@pytest.mark.timeout(0)
def test_an_operator_survives_ten_thousand_hostile_cases(record_property: Record) -> None:
    check(record_property, seed=2, cases=10_000)
