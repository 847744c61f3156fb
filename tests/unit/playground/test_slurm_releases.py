"""The locks of other SLURM releases, and what is done when Debian's archive has moved on."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from playground import slurm_releases
from playground.errors import PlaygroundError
from playground.progress import Progress
from playground.slurm_releases import LOCKS, PUBLIC, ROOTS, SUITES, Package, read_lock

OLD, NEW = b"libc6 of yesterday", b"libc6 of today"


def package(name: str, version: str, content: bytes) -> Package:
    return Package(name, version, hashlib.sha256(content).hexdigest())


LOCKED = (package("libc6", "1", OLD), package("slurmctld", "26.05.5-1", b"slurm"))
TODAY = (package("libc6", "2", NEW), package("slurmctld", "26.11.0-1", b"newer"))
CONTENT = {"libc6=1": OLD, "libc6=2": NEW, "slurmctld=26.05.5-1": b"slurm"}
CONTENT |= {"slurmctld=26.11.0-1": b"newer"}


class Archive:
    """An archive that has these packages; counts how often it is asked."""

    def __init__(self, has: Sequence[Package], *, altered: bool = False) -> None:
        self.has, self.altered, self.asked = has, altered, 0
        self.suite = "sid"
        self.root = Path()

    def __call__(self, home: Path, wanted: str) -> "Archive":
        self.root = home / "apt"
        self.root.mkdir()
        self.asked += 1
        return self

    def update(self, progress: Progress) -> None: ...

    def known(self, names: Sequence[str]) -> list[Package]:
        return [package for package in self.has if package.name in names]

    def closure(self, progress: Progress) -> tuple[Package, ...]:
        return tuple(sorted(self.has))

    def download(self, wanted: Sequence[Package]) -> Path:
        for number, one in enumerate(wanted):
            content = CONTENT[f"{one.name}={one.version}"] + (b"!" if self.altered else b"")
            (self.root / f"{number}.deb").write_bytes(content)
        return self.root


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Unpacking and installing nothing; returns what is told."""
    told: list[str] = []

    def unpack(archives: Sequence[Path], *, prefix: Path) -> None:
        prefix.mkdir(parents=True)
        (prefix / "release").write_text(archives[-1].read_text())

    monkeypatch.setattr(slurm_releases, "_unpack", unpack)
    monkeypatch.setattr(slurm_releases.packages, "require", lambda *_, **__: None)
    monkeypatch.setattr(slurm_releases, "read_lock", lambda wanted: LOCKED)
    monkeypatch.setattr(slurm_releases, "PUBLIC", tmp_path / "public")
    monkeypatch.setattr(Progress, "say", lambda self, text: told.append(text))
    return told


@pytest.mark.parametrize("wanted", SUITES)
def test_locks_fix_every_package_by_its_content(wanted: str) -> None:
    locked = read_lock(wanted)
    names = [package.name for package in locked]
    assert len(names) == len(set(names))
    assert {*ROOTS, "libc6"} <= set(names)
    assert all(re.fullmatch(r"[0-9a-f]{64}", package.sha256) for package in locked)


def test_locks_name_the_release_that_they_are_for() -> None:
    versions = {w: next(p for p in read_lock(w) if p.name == "slurmctld") for w in SUITES}
    assert versions["24.11"].version.startswith("24.11.")
    assert {path.name for path in LOCKS.iterdir()} == {f"slurm-{w}.lock" for w in SUITES}


def test_locked_packages_are_fetched_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: list[str]
) -> None:
    archive = Archive(LOCKED)
    monkeypatch.setattr(slurm_releases, "Archive", archive)
    for _ in range(2):
        release = slurm_releases.ensure("newest", cache=tmp_path, progress=Progress())
        assert (release.version, release.locked) == ("slurm", True)
    assert archive.asked == 1


def test_lost_package_takes_what_there_is_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: list[str]
) -> None:
    archive = Archive(TODAY)
    monkeypatch.setattr(slurm_releases, "Archive", archive)
    for _ in range(2):
        release = slurm_releases.ensure("newest", cache=tmp_path, progress=Progress())
        assert (release.version, release.locked) == ("newer", False)
    assert archive.asked == 1
    assert any("has lost 2 of 2 locked packages (libc6, slurmctld)" in line for line in said)
    assert any("26.11.0-1" in line for line in said)


def test_archive_with_another_content_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: list[str]
) -> None:
    monkeypatch.setattr(slurm_releases, "Archive", Archive(LOCKED, altered=True))
    with pytest.raises(PlaygroundError, match="have another content"):
        slurm_releases.ensure("newest", cache=tmp_path, progress=Progress())
    assert not list(tmp_path.glob("*/packages/*.deb"))


def test_prefix_lies_where_the_job_user_can_go(tmp_path: Path) -> None:
    """pytest's own folder is closed to others, as /root is."""
    os.chmod(tmp_path, 0o700)
    closed = slurm_releases._prefix(tmp_path, "newest", LOCKED)
    assert closed.parent == PUBLIC
    opened = slurm_releases._prefix(Path("/var/tmp/isthmus-nowhere"), "newest", LOCKED)
    assert opened.parts[:3] == ("/", "var", "tmp")


def test_unknown_release_is_told_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(PlaygroundError, match=r"write one of 24\.11, newest"):
        slurm_releases.ensure("23.02", cache=tmp_path, progress=Progress())
