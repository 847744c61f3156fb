"""The Debian packages that the playground needs, installed without starting any service.

Debian starts a packaged daemon when it is installed, unless /usr/sbin/policy-rc.d says no (exit
101); one is put there for the time of the installation if the machine has none.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from playground.commands import clean_environment, run, succeeds
from playground.config import Config
from playground.errors import PlaygroundError
from playground.files import locked
from playground.progress import Progress

POLICY = Path("/usr/sbin/policy-rc.d")
INSTALLED = "installed-packages"
DPKG_LOCK = Path("/var/lib/dpkg/lock-frontend")
POLICY_MARK = "isthmus playground: no service starts while packages are installed"
BASE = {
    "iproute2": "network namespaces and bridges",
    "iptables": "nothing of the playground leaves the machine",
    "util-linux": "nsenter, unshare, setpriv",
    "mount": "mounts of the nodes",
    "openssl": "key of the service accounts",
    "python3": "runs the operator as the job user",
}
KUBERNETES = {
    "runc": "starts the containers",
    "conntrack": "kube-proxy clears its connections with it",
    "socat": "kubectl port-forward",
}
LOGIN = {
    "openssh-server": "the login node",
    "openssh-client": "ssh and ssh-keygen",
    "munge": "SLURM's authentication",
}
SLURM = {
    "slurmctld": "SLURM's controller",
    "slurmd": "SLURM's nodes",
    "slurm-client": "sbatch, squeue, scancel",
    "slurm-wlm-basic-plugins": "SLURM's plug-ins",
    "slurmrestd": "SLURM's REST interface",
    "slurm-wlm-jwt-plugin": "tokens of the REST interface",
}


def needed(config: Config) -> dict[str, str]:
    """Package → what it is for."""
    wanted = dict(BASE)
    if "kubernetes" in config.parts:
        wanted |= KUBERNETES
    if "slurm" in config.parts:
        wanted |= LOGIN | ({} if config.slurm_prefix else SLURM)
    return wanted


def missing(wanted: Mapping[str, str]) -> dict[str, str]:
    """Those that are not installed."""
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *wanted]
    lines = run(query, check=False).stdout.splitlines()
    there = {line.split()[0] for line in lines if line.endswith(" installed")}
    return {name: why for name, why in wanted.items() if name not in there}


def install(config: Config, progress: Progress) -> None:
    """Install what a playground needs and is missing; raises PlaygroundError."""
    require(needed(config), cache=config.cache, progress=progress)


def require(wanted: Mapping[str, str], *, cache: Path, progress: Progress) -> None:
    """Install what is missing and say so; raises PlaygroundError.

    Args:
        wanted: package → what it is for.
        cache: holds the lock, and the record of what was installed.
        progress: where it is said.
    """
    absent = missing(wanted)
    if not absent:
        return
    with locked(cache / "packages.lock"):
        absent = missing(wanted)
        if not absent:
            return
        progress.say(f"installing {len(absent)} Debian packages (they stay when it stops):")
        for name, why in absent.items():
            progress.note(f"          {name}: {why}")
        apt = ["apt-get", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Use-Pty=0"]
        options = ["install", "-y", "--no-install-recommends", *absent]
        with progress.step("packages installed, no service started"):
            if not succeeds([*apt, "--simulate", *options], timeout=60):
                run([*apt, "update"], timeout=300)
            with services_forbidden():
                run([*apt, *options], timeout=900, environment=_apt_environment())
            with (cache / INSTALLED).open("a", encoding="utf-8") as record:
                record.writelines(f"{name}\n" for name in absent)


def installed_by_us(cache: Path) -> list[str]:
    """What playgrounds have installed on this machine, so that `down` can name it."""
    try:
        return sorted(set((cache / INSTALLED).read_text(encoding="utf-8").split()))
    except OSError:
        return []


def _apt_environment() -> dict[str, str]:
    # without the playground's mark: `down` must never end a half-done installation
    quiet = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    return clean_environment(extra=quiet)


@contextmanager
def services_forbidden() -> Iterator[None]:
    """No packaged service starts inside this context."""
    ours = not POLICY.exists()
    if ours:
        handle = os.open(POLICY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
        with os.fdopen(handle, "w") as file:
            file.write(f"#!/bin/sh\n# {POLICY_MARK}\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            remove_policy()


def remove_policy() -> None:
    """Remove our policy-rc.d, also one that a killed start left behind; never somebody else's."""
    try:
        if POLICY_MARK not in POLICY.read_text(encoding="utf-8", errors="replace"):
            return
        with DPKG_LOCK.open("r+") as file:  # an installation whose starter was killed goes on
            fcntl.lockf(file, fcntl.LOCK_EX)
            POLICY.unlink(missing_ok=True)
    except OSError:
        return


def download(names: list[str], folder: Path) -> list[Path]:
    """Fetch packages without installing them; returns the archives in the order of names.

    Raises:
        PlaygroundError: apt does not know one of them or cannot reach its mirror.
    """
    folder.mkdir(parents=True, exist_ok=True)
    versions = candidate_versions(names)

    def archives(name: str) -> list[Path]:
        return list(folder.glob(f"{name}_{versions[name].replace(':', '%3a')}_*.deb"))

    absent = [name for name in names if not archives(name)]
    if absent:
        # as root in a folder that the user _apt cannot write: no sandbox
        fetch = ["apt-get", "-o", "APT::Sandbox::User=root", "download", *absent]
        run(fetch, timeout=300, folder=folder)
    for name in names:
        if not archives(name):
            raise PlaygroundError(f"apt-get did not fetch {name} {versions[name]} into {folder}")
    return [archives(name)[0] for name in names]


def candidate_versions(names: list[str]) -> dict[str, str]:
    """The versions that apt would install; raises PlaygroundError for an unknown package."""
    versions = _policy(names)
    if set(names) - set(versions):
        run(["apt-get", "update"], timeout=300)
        versions = _policy(names)
    unknown = sorted(set(names) - set(versions))
    if unknown:
        raise PlaygroundError(f"apt on this machine knows no package {', '.join(unknown)}")
    return versions


def _policy(names: list[str]) -> dict[str, str]:
    versions, current = {}, ""
    for line in run(["apt-cache", "policy", *names], check=False).stdout.splitlines():
        if not line.startswith(" "):
            current = line.rstrip(":")
        elif line.strip().startswith("Candidate:") and "(none)" not in line:
            versions[current] = line.split()[1]
    return versions


def has_apt() -> bool:
    """Whether this is a Debian (or a relative)."""
    return shutil.which("apt-get") is not None and shutil.which("dpkg-query") is not None
