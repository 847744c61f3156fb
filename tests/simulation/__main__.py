"""`python -m tests.simulation`: run seeds, or replay one with its shortest trace."""

import argparse
import functools
import multiprocessing
import sys
import time

from tests.simulation import runner
from tests.simulation.shape import Shape
from tests.simulation.shapes import SHAPES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, help="how many [default: 200, or 1 with --seed]")
    parser.add_argument("--seed", type=int, help="the only one, or the first of --seeds")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--trace", action="store_true", help="print the whole trace of --seed")
    parser.add_argument("--all", action="store_true", help="do not stop at the first failure")
    parser.add_argument("--shape", choices=SHAPES, help="a world of this shape, whatever the seed")
    options = parser.parse_args()
    shape = None if options.shape is None else SHAPES[options.shape]
    if options.trace:
        result = runner.run(options.seed or 0, shape=shape)
        print("\n".join(result.trace))
        print(result.failure or f"settled after {result.settled_after:.0f} s", result.fingerprint)
        return bool(result.failure)
    first = options.seed or 0
    count = options.seeds or (200 if options.seed is None else 1)
    seeds = range(first, first + count)
    return _run(seeds, shape=shape, workers=options.workers, go_on=options.all)


def _run(seeds: range, *, shape: Shape | None, workers: int, go_on: bool) -> int:
    started, failed, done = time.monotonic(), [], 0
    with multiprocessing.Pool(workers) as pool:
        for result in pool.imap_unordered(
            functools.partial(runner.run, shape=shape), seeds, chunksize=4
        ):
            done += 1
            if not result.failure:
                continue
            failed.append(result)
            print(f"seed {result.seed}: {result.failure.splitlines()[:2]}", flush=True)
            if not go_on:
                break
        pool.terminate()
    seconds = time.monotonic() - started
    print(f"{done} seeds in {seconds:.0f} s, {len(failed)} failed")
    if failed and not go_on:
        print(runner.report(runner.shrink(failed[0])))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
