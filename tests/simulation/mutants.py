"""Runs the mutations and writes their table: which seed first noticed each broken rule, and how.

`python -m tests.simulation.mutants`. Only a promise that is broken counts: a run in which a patch
of its own raised an unexpected error says nothing about the simulation.
"""

import argparse
import contextlib
import multiprocessing
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from isthmus.loop.loop import Loop
from tests.simulation import mutations, runner
from tests.simulation.faults.plan import plan
from tests.simulation.shape import Shape
from tests.simulation.shapes import SHAPES

PATCHES = str(Path(mutations.__file__).parent)
"""In a traceback: the error was raised by a patch."""


@contextlib.contextmanager
def broken(name: str) -> Iterator[list[str]]:
    """Break one rule; yields the unexpected errors that the patches themselves raised."""
    crashes: list[str] = []
    complain = Loop._complain

    def noted(self: Loop, key: Any, text: str, delay: float, trace: str = "") -> None:
        if PATCHES in trace:
            crashes.append(text)
        complain(self, key, text, delay, trace)

    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(Loop, "_complain", noted))
        for each in mutations.MUTATIONS[name].make():
            stack.enter_context(each)
        yield crashes


def run(task: tuple[str, int]) -> runner.Result:
    """One seed with one rule broken; without a failure where the patch itself failed."""
    name, seed = task
    with broken(name) as crashes:
        result = runner.run(seed, shape=_shape(name))
    return replace(result, failure="") if crashes else result


def _shape(name: str) -> Shape | None:
    return SHAPES.get(mutations.MUTATIONS[name].shape)


def seeds_for(name: str, *, seeds: int) -> Iterator[int]:
    """The seeds whose runs can show that a rule is broken, in their order."""
    needs = mutations.MUTATIONS[name].needs
    for seed in range(seeds):
        if needs <= {happening.name for happening in plan(seed, _shape(name))}:
            yield seed


def caught_by(name: str, *, seeds: int, workers: int | None = None) -> runner.Result | None:
    """The first failing result among `seeds` seeds, None if the break is not noticed."""
    with multiprocessing.get_context("spawn").Pool(workers or os.cpu_count()) as pool:
        tasks = ((name, seed) for seed in seeds_for(name, seeds=seeds))
        for result in pool.imap(run, tasks, chunksize=2):
            if result.failure:
                pool.terminate()
                return result
    return None


def table(*, seeds: int, workers: int | None) -> tuple[str, bool]:
    """The result of all mutations as markdown, and whether all were noticed."""
    lines = [
        "| the rule that is broken | first seed | what the oracle says |",
        "| --- | ---: | --- |",
    ]
    complete = True
    for name in sorted(mutations.MUTATIONS):
        found = caught_by(name, seeds=seeds, workers=workers)
        complete = complete and found is not None
        said = f"not noticed within {seeds} seeds" if found is None else _said(found.failure)
        seed = "" if found is None else str(found.seed)
        lines.append(f"| {name.replace('_', ' ')} | {seed} | {said} |")
        print(lines[-1], flush=True)
    return "\n".join(lines), complete


def _said(failure: str) -> str:
    """The first words of a failure that say something, without the time."""
    lines = failure.splitlines()
    line = lines[1] if lines[0] == "not settled:" and len(lines) > 1 else lines[0].rstrip(":")
    return line.partition("VIOLATION: ")[2] or line


_BEGIN, _END = "<!-- mutations: written by `make mutations` -->\n", "<!-- end of mutations -->"


def written(page: str) -> str:
    """What stands between the marks of a page."""
    return page.partition(_BEGIN)[2].partition(_END)[0]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants")
    parser.add_argument("--seeds", type=int, default=2000, help="at most, for each")
    parser.add_argument("--workers", type=int, help="processes [default: one per core]")
    parser.add_argument("--into", type=Path, help="file with the marks between which it stands")
    options = parser.parse_args()
    markdown, complete = table(seeds=options.seeds, workers=options.workers)
    if options.into is not None:
        text = options.into.read_text()
        before, _, rest = text.partition(_BEGIN)
        _, _, after = rest.partition(_END)
        today = datetime.now(tz=UTC).date()
        note = f"Run on {today} with seeds below {options.seeds}.\n\n"
        options.into.write_text(f"{before}{_BEGIN}{note}{markdown}\n{_END}{after}")
    return 0 if complete else 1


if __name__ == "__main__":
    # Under this name the functions could not be found by the processes of the pool.
    from tests.simulation import mutants

    sys.exit(mutants.main())
