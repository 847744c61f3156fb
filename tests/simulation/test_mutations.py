"""Would the simulation notice? Each rule is broken on purpose, and some seed has to fail."""

import pytest

from tests.simulation import mutants, mutations

SEEDS = 2000
QUICK = (
    "sbatch_without_an_acknowledged_intent",
    "publish_before_identity",
    "let_go_without_looking",
    "take_away_without_a_budget",
)


@pytest.mark.parametrize("name", QUICK)
def test_a_broken_rule_is_noticed_soon(name: str) -> None:
    assert mutants.caught_by(name, seeds=40) is not None


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", sorted(mutations.MUTATIONS))
def test_every_broken_rule_is_noticed(name: str) -> None:
    assert mutants.caught_by(name, seeds=SEEDS) is not None
