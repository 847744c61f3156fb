"""Whose a process is, on the machine's own processes: what `make engines` kills and looks for."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from playground.processes import alive, end, identify
from tests.engines import running
from tests.real.world import until

# A starter that has the engine's command line too, the engine, and a child that names nobody.
ENGINE = "import subprocess; subprocess.run(['sleep', '100'])"
STARTER = f'{sys.executable} -c "{ENGINE}" serve model & wait'


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    folder = tmp_path / "job" / "1.0"
    folder.mkdir(parents=True)
    starter = subprocess.Popen(
        ["bash", "-c", STARTER, "starter", "serve", "model"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: len(running.of_job(tmp_path / "job")) == 3, "all three run", timeout=20)
        yield tmp_path, starter.pid
    finally:
        end(running.of_job(tmp_path), grace=0.0)
        starter.wait()


def test_processes_of_a_job_are_those_that_work_in_its_folder(tree: tuple[Path, int]) -> None:
    folder, starter = tree
    found = running.of_job(folder / "job")
    assert identify(starter) in found
    assert all(alive(process) for process in found)
    assert running.of_job(folder / "jo") == set()


def test_the_main_process_is_the_innermost_that_serves(tree: tuple[Path, int]) -> None:
    folder, starter = tree
    found = running.of_job(folder / "job")
    main = running.main_process(found)
    assert main is not None
    assert main.pid != starter
    assert {main, *running.descendants(main)} == found - {identify(starter)}
    assert running.main_process(set()) is None
