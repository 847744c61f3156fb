"""What two trees say to the same questions."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from playground.config import default_cache
from playground.progress import Progress
from playground.routers import envoy_binary
from tests.before.findings import Finding
from tests.before.front import ENVOY
from tests.before.questions import QUESTIONS
from tests.workers import REPOSITORY

FOUND_IN: Final = "4eab8ed"
"""The commit that was attacked, read and used."""
THERE: Final = "there"
NOT_THERE: Final = "not there"
_LIMIT: Final = 60.0
"""Seconds for one question."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What both trees say to one question: `THERE`, `NOT_THERE`, or why there is no answer."""

    finding: Finding
    before: str
    here: str


@cache
def _envoy() -> str:
    return str(envoy_binary(default_cache(), Progress(silent=True)))


def answer(tree: Path, finding: Finding) -> str:
    """Ask one tree, in a process of its own: some faults end it."""
    question = finding.question.__name__
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.before.ask", finding.module, question],
            env=os.environ | {"PYTHONPATH": f"{tree / 'operator'}:{REPOSITORY}", ENVOY: _envoy()},
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_LIMIT:g} s"
    if done.returncode != 0:
        return (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
    return THERE if json.loads(done.stdout.splitlines()[-1]) else NOT_THERE


def answers(tree: Path, *, only: Iterable[str] = ()) -> list[Answers]:
    """What another tree and this one say; `only` these ids, if there are any."""
    ids = frozenset(only)
    asked = [one for one in QUESTIONS if not ids or one.id in ids]
    with ThreadPoolExecutor(max_workers=2) as pool:
        before = pool.map(lambda one: answer(tree, one), asked)
        here = pool.map(lambda one: answer(REPOSITORY, one), asked)
        return [Answers(*row) for row in zip(asked, before, here, strict=True)]


def problems(found: Sequence[Answers]) -> list[str]:
    """A line for each answer that is not as it should be."""
    wrong = []
    for one in found:
        if one.before != THERE:
            wrong.append(f"{one.finding.id}, {one.finding.fault}: before: {one.before}")
        if one.here != NOT_THERE:
            wrong.append(f"{one.finding.id}, {one.finding.fault}: here: {one.here}")
    return wrong
