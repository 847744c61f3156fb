"""The built wheel works in a clean environment; the source tree never hides Python's `operator`."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from playground.config import default_cache
from playground.dockerfile import wheels_folder
from playground.python_environment import debian_python

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*argv: str | Path, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in argv],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_operator_folder_is_no_package() -> None:
    assert not (REPOSITORY / "operator" / "__init__.py").exists()
    assert not (REPOSITORY / "operator.py").exists()
    said = run(sys.executable, "-c", "import operator; print(operator.__file__)", cwd=REPOSITORY)
    assert "/operator/isthmus" not in said
    assert said.strip().endswith("operator.py")


def where_from() -> list[str | Path]:
    """The wheels that the images are built of, if they are there; else the package registry."""
    kept = wheels_folder(default_cache())
    usable = kept.exists() and debian_python() == sys.version_info[:2]
    return ["--no-index", "--find-links", kept] if usable else []


@pytest.mark.timeout(300)
def test_wheel_starts_in_a_clean_environment(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path]
    run(*build, REPOSITORY, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    source = REPOSITORY / "operator"
    ours = {path.relative_to(source) for path in source.glob("isthmus/**/*.*") if path.is_file()}
    ours = {path for path in ours if path.parent.name != "__pycache__"}
    assert Path("isthmus/backends/slurm/batch/gate.sh") in ours
    assert ours <= {Path(name) for name in names}, "also what is not Python"
    assert not [name for name in names if name.startswith(("operator/", "playground", "tests"))]

    environment = tmp_path / "clean"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=tmp_path)
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python"]
    options = ["--quiet", "--disable-pip-version-check", "--no-compile", *where_from()]
    constraints = ["--constraint", REPOSITORY / "constraints.txt"]
    run(*pip, "install", *options, *constraints, wheel, cwd=tmp_path)
    said = run(environment / "bin" / "isthmus", "--help", cwd=tmp_path)
    for command in ("run", "validate", "render", "crds"):
        assert command in said
    assert "CustomResourceDefinition" in run(environment / "bin" / "isthmus", "crds", cwd=tmp_path)
