"""The promises of the architecture under seeded faults: many short lives of a whole world.

A failing seed is shrunk and printed with its trace; `make simulate SEED=…` replays it.
"""

import functools
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from tests.simulation import corpus, memory, rolledback, runner
from tests.simulation.scenarios import (
    claimed_port,
    drained_node,
    failing_actions,
    lone_worker,
    time_limits,
)
from tests.simulation.shape import Shape
from tests.simulation.shapes import SHAPES

Record = Callable[[str, object], None]

ACCEPTANCE_SEEDS = range(2000)
SOAK_SEEDS = range(2000, 102_000)
SHAPED_SEEDS, MANY_SHAPED_SEEDS = range(31, 34), range(100)


def simulate(seeds: Sequence[int], record: Record, *, shape: Shape | None = None) -> None:
    """Run seeds on all cores; a failure is told in its shortest form."""
    record("seeds", len(seeds))
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        found = pool.imap_unordered(functools.partial(runner.run, shape=shape), seeds, chunksize=10)
        failed = [result for result in found if result.failure]
    if failed:
        worst = runner.shrink(min(failed, key=lambda result: len(result.happenings)))
        told = ", ".join(str(result.seed) for result in failed[:20])
        pytest.fail(f"{len(failed)} of {len(seeds)} seeds fail: {told}\n{runner.report(worst)}")


@pytest.mark.timeout(3600)
def test_what_is_promised_holds_under_faults(record_property: Record) -> None:
    simulate(corpus.seeds(), record_property)


@pytest.mark.soak
@pytest.mark.acceptance
@pytest.mark.timeout(0)
def test_what_is_promised_holds_for_many_seeds(record_property: Record) -> None:
    simulate(ACCEPTANCE_SEEDS, record_property)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_what_is_promised_holds_for_long(record_property: Record) -> None:
    simulate(SOAK_SEEDS, record_property)


def test_a_seed_replays_exactly() -> None:
    """In another process with another hash seed too, or no failure could be looked into.

    Its clock runs mad: nothing may read the real one. Seed 102 tells more events than the recorder
    takes at once.
    """
    here = runner.run(102)
    assert here.trace
    command = (
        "import itertools, time; numbers = itertools.count(0, 1000); "
        "time.monotonic = lambda: next(numbers); time.time = lambda: next(numbers); "
        "from tests.simulation import runner; print(runner.run(102).fingerprint)"
    )
    path = os.pathsep.join(sys.path)
    for hash_seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", command],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=600,  # its lane gets the processor time that others leave
            check=True,
        )
        assert there.stdout.strip() == here.fingerprint


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_promised_holds_in_a_world_of_a_given_shape(name: str) -> None:
    for seed in SHAPED_SEEDS:
        assert runner.run(seed, shape=SHAPES[name]).failure == ""


@pytest.mark.soak
@pytest.mark.acceptance
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", SHAPES)
def test_what_is_promised_holds_in_many_worlds_of_a_given_shape(
    name: str, record_property: Record
) -> None:
    simulate(MANY_SHAPED_SEEDS, record_property, shape=SHAPES[name])


def test_seed_63_of_two_clusters_nothing_is_submitted_to_one_that_went_away_meanwhile() -> None:
    """It waited a minute behind others' sbatch; the last look at its cluster had failed by then."""
    assert runner.run(63, shape=SHAPES["two clusters"]).failure == ""


def test_an_empty_plan_of_faults_settles_at_once() -> None:
    result = runner.run(3, ())
    assert result.failure == ""
    assert result.settled_after < 60


def test_b9_nothing_is_remembered_of_what_is_gone() -> None:
    """Deployments come and go: no container of any part may be larger after each round.

    Each other one loses its finalizers by somebody's hand, so that no last pass cleans up.
    """
    grown = memory.remembered(rounds=6)
    assert not grown, grown


@pytest.mark.parametrize("name", rolledback.NEWER)
def test_b5_what_a_newer_release_has_stored_loses_nothing_and_can_be_deleted(name: str) -> None:
    wrong = rolledback.rolled_back(rolledback.NEWER[name])
    assert not wrong, wrong


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_workers_of_a_drained_node_move_and_none_is_missing_meanwhile(replicas: int) -> None:
    """A drained node kept its workers until their time limit: whoever drained it waited."""
    found = drained_node.emptied(replicas=replicas)
    assert found["nodes"] == set()
    assert found["running"] == replicas
    assert found["least"] == replicas
    assert {name for name, _, _ in found["told"]} == set(found["left"])
    assert {reason for _, reason, _ in found["told"]} == {"NodeDraining"}
    assert all(drained_node.REASON in message for _, _, message in found["told"])
    assert sorted(found["replaces"]) == sorted(found["left"])
    assert found["events"].count("NodeDraining") >= 1


@pytest.mark.parametrize("replicas", [1, 3])
def test_jobs_that_end_at_the_same_moment_hand_over_before_that(replicas: int) -> None:
    """At a common time limit all workers were gone at once, until their next jobs had started."""
    found = time_limits.handed_over(replicas=replicas)
    assert found["least"] == replicas
    assert sorted(found["replaces"]) == sorted(found["before"])
    assert found["timeouts"] == 0
    assert {reason for _, reason in found["told"]} == {"TimeLimitNear"}
    assert found["events"].count("TimeLimitNear") >= 1


@pytest.mark.parametrize("command", ["terminate", "cancel"])
def test_b8_an_action_that_fails_is_told_at_the_job_and_at_its_pool(command: str) -> None:
    """TERM was sent again and again, and the status went on to say what it had said before."""
    found = failing_actions.told_of(command)
    said = found["job"]
    assert (said["status"], said["reason"]) == ("False", "ActionFailed")
    assert failing_actions.WORDS in said["message"]
    assert "times or more" in said["message"]
    assert failing_actions.WORDS in found["pools"][0]["why"]
    assert said["lastTransitionTime"] in found["pools"][0]["why"]
    assert found["events"].count("ActionFailed") == 1
    assert found["writes"] < 10, "each try would be a write"
    assert not found["left"], "it goes on once the command works again"


@pytest.mark.parametrize("name", claimed_port.SEEDS)
def test_seed_9919_nobody_leaves_the_rotation_for_a_port_that_somebody_claims(name: str) -> None:
    """The claimant's Service was emptied, or the one that lost its port."""
    result = claimed_port.claimed(name)
    assert any(" claims port " in line for line in result.trace)
    assert result.failure == ""


def test_a_worker_at_whose_port_nobody_listens_is_replaced_if_another_one_answers() -> None:
    assert lone_worker.ready_again(replicas=2) == 2


def test_seed_9875_the_only_worker_at_whose_port_nobody_listens_is_replaced() -> None:
    """It may be our own view that fails: a successor beside it shows whose fault it is."""
    assert lone_worker.ready_again(replicas=1) == 1
