"""The promises of the architecture under seeded faults: many short lives of a whole world.

A failing seed is shrunk and printed with its trace; `make simulate SEED=…` replays it.
"""

import multiprocessing
import os
import subprocess
import sys

import pytest

from tests.simulation import runner

SEEDS = 2000
"""Some minutes on two cores, and all known to pass; the soak runs many more."""
SOAK_SEEDS = 100_000


def simulate(first: int, count: int) -> None:
    """Run seeds on all cores; a failure is told in its shortest form."""
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        found = pool.imap_unordered(runner.run, range(first, first + count), chunksize=10)
        failed = [result for result in found if result.failure]
    if failed:
        worst = runner.shrink(min(failed, key=lambda result: len(result.happenings)))
        seeds = ", ".join(str(result.seed) for result in failed[:20])
        pytest.fail(f"{len(failed)} of {count} seeds fail: {seeds}\n{runner.report(worst)}")


@pytest.mark.timeout(1800)
def test_what_is_promised_holds_under_faults() -> None:
    simulate(0, SEEDS)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_what_is_promised_holds_for_long() -> None:
    simulate(SEEDS, SOAK_SEEDS)


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
            timeout=60,
            check=True,
        )
        assert there.stdout.strip() == here.fingerprint


def test_an_empty_plan_of_faults_settles_at_once() -> None:
    result = runner.run(3, ())
    assert result.failure == ""
    assert result.settled_after < 60
