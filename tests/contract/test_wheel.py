"""The built wheel works in a clean environment; the source tree never hides Python's `operator`."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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


@pytest.mark.timeout(300)
def test_wheel_starts_in_a_clean_environment(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path]
    run(*build, REPOSITORY, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "isthmus/__init__.py" in names
    assert "isthmus/backends/slurm/batch.sh" in names
    assert not [name for name in names if name.startswith(("operator/", "playground", "tests"))]

    environment = tmp_path / "clean"
    run(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    pip = [environment / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(*pip, "--constraint", REPOSITORY / "constraints.txt", wheel, cwd=tmp_path)
    said = run(environment / "bin" / "isthmus", "--help", cwd=tmp_path)
    for command in ("run", "validate", "render", "crds"):
        assert command in said
    assert "CustomResourceDefinition" in run(environment / "bin" / "isthmus", "crds", cwd=tmp_path)
