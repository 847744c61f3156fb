"""What comes before the first test: dead runs are removed, and what takes long is told."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from playground import files, owners, preflight, prepare
from playground.commands import MARKER
from playground.config import Config
from playground.errors import PlaygroundError
from playground.processes import Process, identify
from playground.progress import Progress

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="removing a playground needs root")


def folder(name: str) -> Path:
    path = Path(f"/var/tmp/isthmus-test-{os.getpid()}-{name}")
    path.mkdir()
    return path


@pytest.fixture
def daemon() -> Iterator["subprocess.Popen[bytes]"]:
    """A process of the playground in the folder `dead`, as a killed run leaves it."""
    state = folder("dead")
    environment = {"PATH": os.environ["PATH"], MARKER: str(state)}
    process = subprocess.Popen(["sleep", "3600"], env=environment, start_new_session=True)
    yield process
    process.kill()
    process.wait()


def ended() -> Process:
    process = subprocess.Popen(["sleep", "3600"])
    found = identify(process.pid)
    process.kill()
    process.wait()
    assert found is not None
    return found


@needs_root
def test_playgrounds_of_dead_runs_are_removed_and_no_others(
    daemon: "subprocess.Popen[bytes]", capsys: pytest.CaptureFixture[str]
) -> None:
    dead = Path(f"/var/tmp/isthmus-test-{os.getpid()}-dead")
    owner = ended()
    (dead / "owner").write_text(f"{owner.pid} {owner.started}\n")
    living, of_a_person = folder("living"), folder("person")
    try:
        owners.record(living, owned=True)
        (of_a_person / "playground.json").write_text("{}")
        owners.remove_dead(Config(), Progress())
        assert not dead.exists()
        assert daemon.wait(timeout=10) == -9
        assert living.exists()
        assert of_a_person.exists()
        assert str(dead) in capsys.readouterr().out
        assert living in owners.owned_by({os.getpid()})
    finally:
        for path in (living, of_a_person):
            owners.remove(path, config=Config())


@needs_root
def test_a_playground_that_its_run_takes_down_just_now_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`make test` right after a run that was interrupted failed: it was busy with its own end."""
    dead, now = folder("busy"), 0.0
    owner = ended()
    (dead / "owner").write_text(f"{owner.pid} {owner.started}\n")
    held = os.open(dead, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_EX)

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if now > 60.0:
            fcntl.flock(held, fcntl.LOCK_UN)

    monkeypatch.setattr(files, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    try:
        owners.remove_dead(Config(), Progress(silent=True))
        assert not dead.exists()
        assert now > 60.0
    finally:
        os.close(held)
        shutil.rmtree(dead, ignore_errors=True)


def test_all_that_is_missing_is_said_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preflight.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(preflight.packages, "has_apt", lambda: False)
    monkeypatch.setattr(preflight.gotool, "problems", lambda cache: ["there is no Go"])
    with pytest.raises(PlaygroundError) as error:
        prepare.prepare(Config(), Progress(silent=True))
    for said in ("must run as root", "there is no apt-get: use Debian 12", "there is no Go"):
        assert said in str(error.value)


def test_steps_are_told_while_they_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    def slow(config: Config, progress: Progress) -> None:
        with progress.heartbeat(lambda: "helm, 412 packages compiled", every=0.01):
            while "412 packages" not in "".join(seen):
                seen.append(capsys.readouterr().out)

    steps = prepare.Step("quick", lambda config, progress: None), prepare.Step("slow", slow)
    monkeypatch.setattr(prepare, "STEPS", steps)
    monkeypatch.setattr(preflight, "check", lambda config: None)
    prepare.prepare(Config(), Progress())
    said = "".join(seen) + capsys.readouterr().out
    assert "[1/2] quick: there" in said
    assert "... helm, 412 packages compiled: 0 s so far" in said
    assert "[2/2] slow: there" in said
    assert "prepared in" in said
