"""Building Kubernetes, containerd and helm from their Go modules, once, into the cache folder.

`go/controlplane`, `go/noderuntime` and `go/chart` hold no code: a go.mod whose `tool` lines name
the programs, and a go.sum that fixes every byte. (Several, because they want other versions of
what they share.) A cache folder is named after a hash of such files: a changed module builds anew.
"""

import fcntl
import hashlib
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playground import gotool
from playground.commands import clean_environment
from playground.errors import PlaygroundError
from playground.progress import Progress

MODULES = Path(__file__).parent / "go"
BUILD_FLAGS = ["-trimpath", "-buildvcs=false"]
CONTAINERD_TAGS = "no_btrfs no_devmapper no_zfs no_aufs"  # what needs C libraries or is not used
TIME_LIMIT = 3600.0
APISERVER = ("etcd", "kube-apiserver", "kubectl")
CLUSTER = (*APISERVER, "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
CNI = ("bridge", "loopback", "host-local", "portmap")
NODE = ("containerd", "containerd-shim-runc-v2", "ctr", *CNI)
CLUSTER_MODULES = ("controlplane", "noderuntime")
CHART_MODULES = ("chart",)


@dataclass(frozen=True, slots=True)
class Module:
    """One Go module and what its tool lines name: program → package."""

    folder: Path
    programs: dict[str, str]
    text: str


def read_module(folder: Path) -> Module:
    """Read the tool lines of a go.mod."""
    text = (folder / "go.mod").read_text(encoding="utf-8")
    block = re.search(r"^tool \((.*?)^\)", text, re.MULTILINE | re.DOTALL)
    packages = block[1].split() if block else []
    return Module(folder=folder, programs={program_of(p): p for p in packages}, text=text)


def program_of(package: str) -> str:
    """The name of a package's program: its last part, less a version; etcd's is called server."""
    parts = [part for part in package.split("/") if not re.fullmatch(r"v\d+", part)]
    return "etcd" if parts[-1] == "server" else parts[-1]


def key(modules: tuple[str, ...] = CLUSTER_MODULES) -> str:
    """Twelve hexadecimal digits that change with any file of these modules."""
    digest = hashlib.sha256(CONTAINERD_TAGS.encode())
    for module in sorted(modules):
        for path in sorted((MODULES / module).glob("go.*")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def folder(cache: Path) -> Path:
    """Where the programs of the clusters are, or will be."""
    return cache / f"kubernetes-{key()}"


def ensure_helm(cache: Path, progress: Progress, *, state: Path | None = None) -> Path:
    """Build helm if it is not there yet; returns the program. Raises PlaygroundError."""
    target = cache / f"helm-{key(CHART_MODULES)}"
    if not (target / "helm").exists():
        target.mkdir(parents=True, exist_ok=True)
        with _build_lock(target, progress):
            if not (target / "helm").exists():
                go = gotool.get(cache, progress)
                progress.say("building helm from source, once: two minutes or more on 2 cores")
                with progress.step("helm built"):
                    _build("helm", target=target, go=go, state=state, progress=progress)
    return target / "helm"


def kubernetes_version() -> str:
    """Such as v1.36.3, from the module file."""
    text = read_module(MODULES / "controlplane").text
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", text, re.MULTILINE)
    if found is None:
        raise PlaygroundError(f"{MODULES}/controlplane/go.mod does not require k8s.io/kubernetes")
    return found[1]


def ensure(
    names: tuple[str, ...], *, cache: Path, progress: Progress, state: Path | None = None
) -> Path:
    """Build those of the named programs that are not there yet; returns their folder.

    `KUBEBUILDER_ASSETS` may name a folder with etcd and kube-apiserver, which are then used.

    Raises:
        PlaygroundError: a build failed, with the end of what Go said.
    """
    target = folder(cache)
    for name in names:
        if own := asset(name):
            progress.say(f"{name} from KUBEBUILDER_ASSETS ({own})")
    absent = _absent(names, target)
    if not absent:
        return target
    target.mkdir(parents=True, exist_ok=True)
    with _build_lock(target, progress):
        absent = _absent(names, target)
        if not absent:
            return target
        go = gotool.get(cache, progress)
        progress.say(
            f"building Kubernetes {kubernetes_version()} and containerd from source: "
            f"{len(absent)} programs, about 8 minutes the first time on 2 cores"
        )
        begin = time.monotonic()
        for number, name in enumerate(absent, start=1):
            progress.say(f"  {number} of {len(absent)}: {name} ...")
            _build(name, target=target, go=go, state=state, progress=progress)
        progress.say(f"built in {time.monotonic() - begin:.0f} s; kept in {target}")
    return target


def _absent(names: tuple[str, ...], target: Path) -> list[str]:
    return [n for n in names if asset(n) is None and not (target / n).exists()]


def asset(name: str) -> Path | None:
    """A program of the user's own folder KUBEBUILDER_ASSETS: etcd and kube-apiserver only."""
    assets = os.environ.get("KUBEBUILDER_ASSETS", "")
    if not assets or name not in ("etcd", "kube-apiserver"):
        return None
    path = Path(assets).absolute() / name
    return path if os.access(path, os.X_OK) else None


def program(name: str, *, cache: Path) -> Path:
    """The path of a program after `ensure`."""
    return asset(name) or folder(cache) / name


@contextmanager
def _build_lock(target: Path, progress: Progress) -> Iterator[None]:
    """Two starts at once must not build twice; the lock ends with the process that holds it."""
    handle = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say("another start is building the same: waiting for it ...")
            with progress.heartbeat(lambda: "waiting for the other start that builds"):
                fcntl.flock(handle, fcntl.LOCK_EX)
        for leftover in target.glob(".new-*"):
            leftover.unlink()
        yield
    finally:
        os.close(handle)


def _build(name: str, *, target: Path, go: str, state: Path | None, progress: Progress) -> None:
    modules = [read_module(MODULES / part) for part in (*CLUSTER_MODULES, *CHART_MODULES)]
    module = next((m for m in modules if name in m.programs), None)
    if module is None:
        raise PlaygroundError(f"no go.mod below {MODULES} has a tool line for {name}")
    fresh, said = target / f".new-{name}", target / f".new-{name}.log"
    flags = ["-v", *BUILD_FLAGS, f"-ldflags={_linker_flags(module)}", *_tags(module)]

    def compiled() -> str:
        count = said.read_bytes().count(b"\n")  # with -v a line for each package
        return f"{name}, {count} packages compiled" if count else name

    with said.open("wb") as output, progress.heartbeat(compiled):
        done = subprocess.run(
            [go, "build", *flags, "-o", str(fresh), module.programs[name]],
            cwd=module.folder,
            env=os.environ
            | clean_environment(state, path=os.environ["PATH"])
            | {"CGO_ENABLED": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            timeout=TIME_LIMIT,
            check=False,
        )
    text = said.read_text(encoding="utf-8", errors="replace")
    said.unlink()
    if done.returncode != 0:
        raise PlaygroundError(f"building {name} failed:\n{text[-2000:]}")
    fresh.chmod(0o755)
    fresh.rename(target / name)


def _tags(module: Module) -> list[str]:
    return [f"-tags={CONTAINERD_TAGS}"] if "containerd" in module.programs else []


def _linker_flags(module: Module) -> str:
    """Without the version in it, every component would report v0.0.0."""
    if "kubelet" not in module.programs:
        return "-s -w"
    version = kubernetes_version()
    major, minor = version.removeprefix("v").split(".")[:2]
    where = "k8s.io/component-base/version"
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X {where}.{k}={v}" for k, v in values.items())])
