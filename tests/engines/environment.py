"""Real vLLM and SGLang as a folder of packages: installed once into the cache, linked into a world.

    PLACE/packages   both engines and what they need, at the versions of requirements.txt
    PLACE/stubs      for SGLang alone
    PLACE/model      the model that both serve
    PLACE/bin        `vllm` and `sglang`; they find the rest from where they are

A folder and no virtual environment, because the cache may lie in /root, which the job user cannot
traverse, and a virtual environment cannot be moved. Jobs and pods see the same files.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from playground.commands import run
from playground.errors import PlaygroundError
from playground.progress import Progress
from playground.python_environment import PYTHON, debian_python, link_tree
from tests.engines import model

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
FORMAT = "1"  # change it when the installing changes
PYTHON_VERSION = (3, 11)  # the list of versions is for it
NEEDED_GIB = 14  # what is fetched, while it is unpacked, and what becomes of it
INSTALL_TIMEOUT = 3600.0

# Everything that makes an engine run on a processor and is no option of its command line. One
# thread for each, because several engines share this machine.
VARIABLES = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "SGLANG_CPU_OMP_THREADS_BIND": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCHDYNAMO_DISABLE": "1",  # it wants a C++ compiler, which the pods' image has not
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}
COMMAND = """\
#!/bin/sh
# {name} as released, on processors.
here=$(dirname "$(dirname "$(readlink -f "$0")")")
{variables}
export PYTHONPATH="{path}"
exec {python} -P -c 'import sys; from {module} import main; sys.exit(main())' "$@"
"""
MODULES = {"vllm": "vllm.entrypoints.cli.main", "sglang": "sglang.cli.main"}


def versions() -> dict[str, str]:
    """What of the list tells a reader which engines these are: package to version."""
    pins = dict(line.split("==") for line in _pins())
    return {"vllm": pins["vllm-cpu"], "sglang": pins["sglang"], "torch": pins["torch"]}


def _pins() -> list[str]:
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def place(cache: Path, target: Path, progress: Progress) -> None:
    """Make the whole in a folder, installing what is not in the cache yet.

    Raises:
        PlaygroundError: no room, another Python than the list is for, or pip failed.
    """
    packages = installed(cache, progress)
    target.mkdir(parents=True, exist_ok=True)
    target.chmod(0o755)
    if not (target / "packages").exists():
        with progress.step("the engines linked into the playground"):
            link_tree(packages, target / "packages")
    model.write(target / "model")
    stub = target / "stubs" / "sitecustomize.py"
    _write(stub, (HERE / "stubs" / "sitecustomize.py").read_text(encoding="utf-8"))
    stub.parent.chmod(0o755)
    for name, module in MODULES.items():
        path = "$here/packages" if name == "vllm" else "$here/stubs:$here/packages"
        variables = "\n".join(f'export {n}="${{{n}:-{v}}}"' for n, v in VARIABLES.items())
        text = COMMAND.format(
            name=name, variables=variables, path=path, python=PYTHON, module=module
        )
        _write(target / "bin" / name, text, mode=0o755)
        (target / "bin").chmod(0o755)


def installed(cache: Path, progress: Progress) -> Path:
    """The folder of packages in the cache, filled if the list of versions is new.

    Raises:
        PlaygroundError: no room, another Python than the list is for, or pip failed.
    """
    key = hashlib.sha256(FORMAT.encode() + REQUIREMENTS.read_bytes()).hexdigest()
    target = cache / f"engines-{key[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "engines.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        _check(cache)
        # Several GB: another list's (who uses it has links of its own), and what a kill left.
        for old in [*cache.glob("engines-*/"), *cache.glob(".engines-*/")]:
            shutil.rmtree(old)
        progress.say("vLLM and SGLang are fetched once: 2.5 GB, 6 GB when unpacked")
        with tempfile.TemporaryDirectory(dir=cache, prefix=".engines-") as scratch:
            fresh = Path(scratch) / "packages"
            _install(fresh, progress)
            fresh.rename(target)
    return target


def _check(cache: Path) -> None:
    version = debian_python()
    if version != PYTHON_VERSION:
        raise PlaygroundError(
            f"{PYTHON} is {version[0]}.{version[1]}; {REQUIREMENTS.name} is for 3.11"
        )
    free = shutil.disk_usage(cache).free / 2**30
    if free < NEEDED_GIB:
        raise PlaygroundError(f"{cache} has {free:.0f} GiB left; the engines need {NEEDED_GIB}")


def _install(target: Path, progress: Progress) -> None:
    options = ["--only-binary=:all:", "--python-version=3.11", "--no-deps", "--no-compile"]
    options += ["--no-cache-dir", f"--target={target}", f"--requirement={REQUIREMENTS}"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    with progress.step(f"{len(_pins())} packages installed"):
        # Unpacked beside the target, so that it is renamed and not copied.
        environment = {**os.environ, "TMPDIR": str(target.parent)}
        run([*pip, *options], timeout=INSTALL_TIMEOUT, environment=environment)
    _pretend_vllm(target)
    with progress.step("packages compiled"):
        # Some hold templates that do not compile; what is missing is compiled at each start.
        run([PYTHON, "-m", "compileall", "-q", "-j0", target], timeout=INSTALL_TIMEOUT, check=False)
    for path in [target, *target.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if path.is_dir() or mode & 0o100 else 0o444))


def _pretend_vllm(target: Path) -> None:
    """`vllm serve` asks for the version of a distribution `vllm`; this one is called vllm-cpu."""
    version = versions()["vllm"]
    folder = target / f"vllm-{version}+cpu.dist-info"
    _write(folder / "METADATA", f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    for name in ("RECORD", "INSTALLER"):
        _write(folder / name, "")


def _write(path: Path, text: str, *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
