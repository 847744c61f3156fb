"""Oracles over drawn specs: what a deployment ends as does not depend on how it came there.

A failing seed is replayed by `differential.differs(seed)` or `recovery.recovers(seed, slip)`.
"""

from collections.abc import Callable, Iterable
from random import Random

import pytest

from tests.simulation import differential, neighbours, recovery, rough_hands
from tests.simulation.world import World

Record = Callable[[str, object], None]

SEEDS = (*range(10), 12, 47)
RECOVERY_SEEDS = range(3)
TURNS_SEEDS = range(6)
ROUGH_SEEDS = range(1, 4)
ACCEPTANCE_SEEDS = range(600)
ACCEPTANCE_RECOVERY_SEEDS = range(100)


def told(failed: Iterable[tuple[object, list[str]]]) -> str:
    return "\n".join(f"{which}: {line[:2000]}" for which, lines in failed for line in lines[:4])


def differing(seeds: Iterable[int]) -> list[tuple[object, list[str]]]:
    return [(seed, found) for seed in seeds if (found := differential.differs(seed))]


def turning(seeds: Iterable[int]) -> list[tuple[object, list[str]]]:
    return [(seed, found) for seed in seeds if (found := differential.turns_matter(seed))]


def unmended(seeds: Iterable[int], hands: Iterable[str]) -> list[tuple[object, list[str]]]:
    cases = [(seed, name) for seed in seeds for name in hands]
    return [(case, found) for case in cases if (found := rough_hands.mends(*case))]


def unrecovered(seeds: Iterable[int], slips: Iterable[str]) -> list[tuple[object, list[str]]]:
    cases = [(seed, slip) for seed in seeds for slip in slips]
    found: list[tuple[object, list[str]]] = []
    for check in (recovery.recovers, recovery.leaves):
        found += [((check.__name__, *case), lines) for case in cases if (lines := check(*case))]
    return found


@pytest.mark.timeout(600)
def test_a_deployment_that_was_changed_ends_as_a_fresh_one(record_property: Record) -> None:
    record_property("seeds", len(SEEDS))
    failed = differing(SEEDS)
    assert not failed, told(failed)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("slip", recovery.SLIPS)
def test_a_slip_that_is_taken_back_or_deleted_costs_nothing(slip: str) -> None:
    failed = unrecovered(RECOVERY_SEEDS, [slip])
    assert not failed, told(failed)


@pytest.mark.timeout(600)
def test_whoever_takes_the_first_turn_the_end_is_the_same() -> None:
    failed = turning(TURNS_SEEDS)
    assert not failed, told(failed)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", rough_hands.HANDS)
def test_what_rough_hands_do_is_mended(name: str) -> None:
    failed = unmended(ROUGH_SEEDS, [name])
    assert not failed, told(failed)


def test_b9_two_installations_of_one_id_are_not_told_apart_where_orphans_are_cancelled() -> None:
    """What is not promised: see `neighbours`. A mechanism that tells them apart fails here."""

    def moves_in(world: World, random: Random) -> None:
        neighbours.moves_in(world, installation=world.installation, orphan_policy="Cancel")

    hand = rough_hands.Hand(moves_in, seconds=neighbours.SECONDS)
    with pytest.raises(differential.NotSettledError, match=r"scancel to job .*, which is not ours"):
        rough_hands.mended(1, "one id", hand)


@pytest.mark.soak
@pytest.mark.acceptance
@pytest.mark.timeout(0)
def test_many_deployments_that_were_changed_end_as_fresh_ones(record_property: Record) -> None:
    record_property("seeds", len(ACCEPTANCE_SEEDS))
    failed = differing(ACCEPTANCE_SEEDS) + turning(ACCEPTANCE_SEEDS[::3])
    assert not failed, told(failed)


@pytest.mark.soak
@pytest.mark.acceptance
@pytest.mark.timeout(0)
def test_many_slips_and_rough_hands_cost_nothing(record_property: Record) -> None:
    record_property("seeds", len(ACCEPTANCE_RECOVERY_SEEDS))
    failed = unrecovered(ACCEPTANCE_RECOVERY_SEEDS, recovery.SLIPS)
    failed += unmended(ACCEPTANCE_RECOVERY_SEEDS, rough_hands.HANDS)
    assert not failed, told(failed)
