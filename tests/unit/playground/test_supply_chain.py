"""M7: what the images install is fixed, by hash where Python installs it, by digest elsewhere."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from playground.lockfiles import BUILD, BUILD_REQUIREMENTS, REQUIREMENTS, locked, unhashed

REPOSITORY = Path(__file__).resolve().parents[3]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
LOCKS = {
    name: (REPOSITORY / name).read_text(encoding="utf-8")
    for name in (REQUIREMENTS, BUILD_REQUIREMENTS)
}


def instructions(text: str = DOCKERFILE) -> list[str]:
    """The Dockerfile's, each on one line, without comments."""
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    return [line for line in kept.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.mark.parametrize("name", sorted(LOCKS))
def test_m7_what_is_installed_is_what_constraints_say(name: str) -> None:
    """The development environment has the same versions: what is tested is what runs."""
    constraints = locked((REPOSITORY / "constraints.txt").read_text(encoding="utf-8"))
    found = locked(LOCKS[name])
    assert {key: constraints.get(key) for key in found} == found, "run `make lock`"


def test_m7_every_line_has_a_hash() -> None:
    for text in LOCKS.values():
        assert unhashed(text) == []
    assert unhashed("a==1 \\\n    --hash=sha256:00\nb==2\n") == ["b==2"]


def test_m7_all_that_is_asked_for_is_locked() -> None:
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    asked = {re.split(r"[<>=]", line)[0] for line in project["project"]["dependencies"]}
    assert asked <= locked(LOCKS[REQUIREMENTS]).keys(), "run `make lock`"
    built = {re.split(r"[<>=]", line)[0] for line in project["build-system"]["requires"]}
    assert built <= set(BUILD) <= locked(LOCKS[BUILD_REQUIREMENTS]).keys()


def test_m7_pip_installs_nothing_else() -> None:
    """Of the index only what a lock names; our own package without any index, nor isolation."""
    pips = [line for line in instructions() if line.startswith("RUN") and "pip" in line]
    assert "PIP_REQUIRE_HASHES=1" in DOCKERFILE
    for line in pips:
        assert "--upgrade" not in line
        for call in re.findall(r"(?:pip|\$pip)\b[^&;]*\b(?:install|wheel) [^&;]*", line):
            from_lock = re.search(r"--requirement /build/[a-z-]*requirements\.lock", call)
            our_own = "--no-index" in call or "--no-build-isolation" in call
            assert from_lock or (our_own and "--no-deps" in call), call


def test_m7_base_images_come_from_the_lock() -> None:
    """The defaults are those of images.lock, so that a plain build takes the same tags."""
    text = (REPOSITORY / "images.lock").read_text(encoding="utf-8")
    pairs = [line.split("=", 1) for line in text.splitlines() if line and line[0] != "#"]
    named = {name: image.partition("@")[0] for name, image in pairs}
    assert named == dict(re.findall(r"^ARG (BASE|ENVOY)=(\S+)$", DOCKERFILE, re.MULTILINE))
    stages = [line.split()[1] for line in instructions() if line.startswith("FROM")]
    foreign = {stage for stage in stages if "/" in stage or ":" in stage or "$" in stage}
    assert foreign == {"${BASE}", "${ENVOY}"}
    for image in named.values():
        assert not image.endswith(":latest")
    assert "images.lock has no digest for $image" in DOCKERFILE, "the build says so"


DIGEST = "0123456789abcdef" * 4


def digests(tmp_path: Path, lock: Path, *, program: str) -> subprocess.CompletedProcess[str]:
    """The script with a stand-in for skopeo."""
    (tmp_path / "skopeo").write_text(f"#!/bin/sh\n{program}\n", encoding="utf-8")
    (tmp_path / "skopeo").chmod(0o755)
    return subprocess.run(
        [REPOSITORY / "deploy" / "digests.sh", lock],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_m7_digests_are_written_and_renewed(tmp_path: Path) -> None:
    lock = tmp_path / "images.lock"
    lock.write_text(f"# note\n\nBASE=a/b:1\nENVOY=c/d:2@sha256:{DIGEST}\n", encoding="utf-8")
    done = digests(tmp_path, lock, program='printf %s "$4"')
    assert done.returncode == 0, done.stderr
    lines = lock.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["# note", ""]
    assert re.fullmatch(r"BASE=a/b:1@sha256:[0-9a-f]{64}", lines[2])
    assert re.fullmatch(r"ENVOY=c/d:2@sha256:[0-9a-f]{64}", lines[3])
    assert DIGEST not in lines[3], "asked for by its tag"


def test_m7_no_digest_is_made_up(tmp_path: Path) -> None:
    lock = tmp_path / "images.lock"
    lock.write_text("BASE=a/b:1\n", encoding="utf-8")
    assert digests(tmp_path, lock, program="echo no such image >&2; exit 1").returncode != 0
    assert lock.read_text(encoding="utf-8") == "BASE=a/b:1\n"
