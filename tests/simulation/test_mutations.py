"""Would the simulation notice? Each rule is broken on purpose, and some seed has to fail."""

import re
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from isthmus.modeldeployment import plan as planner
from tests.simulation import mutants, mutations

SEEDS = 2000
QUICK = (
    "sbatch_without_an_acknowledged_intent",
    "publish_before_identity",
    "let_go_without_looking",
    "take_away_without_a_budget",
    "the_deployments_key_is_given_to_jobs",
)


@pytest.mark.parametrize("name", QUICK)
def test_a_broken_rule_is_noticed_soon(name: str) -> None:
    assert mutants.caught_by(name, seeds=40) is not None


@pytest.mark.parametrize("name", sorted(mutations.MUTATIONS))
def test_every_rule_can_be_broken(name: str) -> None:
    """A patch of something that is gone would be noticed by the long run alone."""
    with mutants.broken(name) as crashes:
        assert crashes == []


@pytest.mark.soak
@pytest.mark.acceptance
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", sorted(mutations.MUTATIONS))
def test_every_broken_rule_is_noticed(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    found = mutants.caught_by(name, seeds=SEEDS)
    assert found is not None
    record_property("first seed", found.seed)


def test_a_patch_that_fails_itself_is_no_broken_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a patch of ours")

    patched = mutations.Mutation(lambda: [patch.object(planner, "steps", fails)], frozenset())
    monkeypatch.setitem(mutations.MUTATIONS, "fails", patched)
    assert mutants.run(("fails", 1)).failure
    monkeypatch.setattr(mutants, "PATCHES", __file__)
    assert mutants.run(("fails", 1)).failure == ""


def test_the_table_has_a_row_for_each() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| (.+?) \| \d+ \| .+ \|$", mutants.written(page), re.MULTILINE))
    assert rows == {name.replace("_", " ") for name in mutations.MUTATIONS}
