"""Other releases of SLURM than the machine's, unpacked beside it: what `SLURM_PREFIX` names.

Another Debian suite's packages are fetched with an apt that knows nothing of the machine's state,
and unpacked into a folder of their own, down to their libc: nothing is installed but patchelf, no
source is added, nothing of the machine is replaced. Every package is fixed by a lock file (version
and sha256). Unstable moves on: where the archive has lost a locked package the release that it has
now is taken instead, and its name is told; the archives are kept, so that this happens once.
"""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playground import packages
from playground.commands import clean_environment, run
from playground.errors import PlaygroundError
from playground.progress import Progress

SUITES = {"24.11": "trixie", "newest": "sid"}
"""Release, as people name it → the suite of Debian that has it."""
LOCKS = Path(__file__).parent / "locks"
PUBLIC = Path("/var/cache/isthmus")  # where the cache is closed to the job user, as below /root
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
FORMAT = "1"  # of the unpacked prefix; another number unpacks anew
DONE = "release"  # written last, with the release that the prefix is of
INSTEAD = "instead-of-lock"
TOOLS = {"patchelf": "lets another suite's programs find their own libc"}
ROOTS = (
    "slurmctld",
    "slurmd",
    "slurm-client",
    "slurmrestd",
    "slurm-wlm-basic-plugins",
    "slurm-wlm-jwt-plugin",
    "munge",
)
PROGRAMS = re.compile(
    r"s(batch|queue|cancel|control|info|acct|acctmgr|run|alloc|attach|bcast|diag"
    r"|prio|report|share|stat|trigger|lurm(ctld|d|stepd|restd))|(un)?munged?"
)
LIBRARIES = Path("usr/lib/x86_64-linux-gnu")
INTERPRETER = "ld-linux-x86-64.so.2"


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One archive of Debian, by its content."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A SLURM that is there.

    Attributes:
        wanted: what was asked for, a key of `SUITES`.
        version: what it is, such as 24.11.5.
        prefix: its folder, for `Config.slurm_prefix`.
        locked: whether it is what the lock file names.
    """

    wanted: str
    version: str
    prefix: Path
    locked: bool


def ensure(wanted: str, *, cache: Path, progress: Progress) -> Release:
    """Fetch and unpack a release unless it is there; returns it.

    Raises:
        PlaygroundError: no such release, or the archive cannot be reached or is not as signed.
    """
    if wanted not in SUITES:
        raise PlaygroundError(f"SLURM release {wanted!r}: write one of {', '.join(SUITES)}")
    locked = read_lock(wanted)
    home = _folder(cache, wanted, locked)
    with _lock(home, progress):
        chosen = _chosen(home, locked)
        prefix = _prefix(cache, wanted, chosen)
        if not (prefix / DONE).exists():
            packages.require(TOOLS, cache=cache, progress=progress)
            chosen = _fetch(home, wanted=wanted, chosen=chosen, progress=progress)
            prefix = _prefix(cache, wanted, chosen)
            with progress.step(f"SLURM {wanted} ({SUITES[wanted]}) unpacked into {prefix}"):
                _unpack(_archives(home, chosen), prefix=prefix)
        version = (prefix / DONE).read_text(encoding="utf-8").strip()
    return Release(wanted=wanted, version=version, prefix=prefix, locked=chosen == locked)


def resolve(text: str, *, cache: Path, progress: Progress) -> Path:
    """What `SLURM_PREFIX` says: a folder, or a release that is made if need be."""
    if text in SUITES:
        return ensure(text, cache=cache, progress=progress).prefix
    return Path(text).absolute()


def renew_lock(wanted: str, *, cache: Path, progress: Progress) -> Path:
    """Write the lock of what the archive has today; returns the file. Raises PlaygroundError."""
    home = cache / f"slurm-{wanted}-archive"
    with _lock(home, progress):
        found = Archive(home, wanted).closure(progress)
        shutil.rmtree(home)
    slurm = next(p.version for p in found if p.name == "slurmctld")
    text = f"# SLURM {slurm} of Debian {SUITES[wanted]}: package, version, sha256\n"
    path = LOCKS / f"slurm-{wanted}.lock"
    path.write_text(text + _as_text(found), encoding="utf-8")
    return path


# -- locks and folders


def read_lock(wanted: str) -> tuple[Package, ...]:
    """The packages that a release is made of; raises PlaygroundError for a damaged file."""
    path = LOCKS / f"slurm-{wanted}.lock"
    try:
        return _from_text(path.read_text(encoding="utf-8"))
    except (OSError, TypeError) as error:
        raise PlaygroundError(f"{path} cannot be read: {error}") from error


def _as_text(found: Iterable[Package]) -> str:
    return "".join(f"{p.name} {p.version} {p.sha256}\n" for p in sorted(found))


def _from_text(text: str) -> tuple[Package, ...]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return tuple(sorted(Package(*line.split()) for line in lines))


def _key(found: Iterable[Package]) -> str:
    return hashlib.sha256((FORMAT + _as_text(found)).encode()).hexdigest()[:12]


def _folder(cache: Path, wanted: str, found: Iterable[Package]) -> Path:
    return cache / f"slurm-{wanted}-{_key(found)}"


def _prefix(cache: Path, wanted: str, found: Iterable[Package]) -> Path:
    """Where the job user can go: its programs are started by jobs and by ssh."""
    home = _folder(cache, wanted, found)
    below = [home, *home.parents]
    if all(path.stat().st_mode & 0o001 for path in below if path.exists()):
        return home / "prefix"
    return PUBLIC / home.name


def _chosen(home: Path, locked: tuple[Package, ...]) -> tuple[Package, ...]:
    """The packages of the lock, or those that an earlier run had to take instead."""
    try:
        return _from_text((home / INSTEAD).read_text(encoding="utf-8"))
    except OSError:
        return locked


def _archives(home: Path, found: Iterable[Package]) -> list[Path]:
    """The file of each package in the cache, whether it is there or not."""
    return [home / "packages" / f"{p.sha256[:16]}-{p.name}.deb" for p in found]


@contextmanager
def _lock(home: Path, progress: Progress) -> Iterator[None]:
    """One at a time; the folder itself is what is locked, and a killed holder lets go."""
    home.mkdir(parents=True, exist_ok=True)
    handle = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say(f"another start makes {home.name}: waiting for it ...")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


# -- the archive


class Archive:
    """One suite of Debian's archive, read by an apt with configuration and state of its own."""

    def __init__(self, home: Path, wanted: str) -> None:
        self.suite = SUITES[wanted]
        self.root = home / "apt"

    def update(self, progress: Progress) -> None:
        """Fetch and verify the index; raises PlaygroundError."""
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "status").write_text("", encoding="utf-8")  # nothing is installed there
        source = f"deb [signed-by={KEYRING}] {mirror()} {self.suite} main\n"
        (self.root / "sources.list").write_text(source, encoding="utf-8")
        with progress.step(f"index of Debian {self.suite} fetched"):
            self._run("apt-get", "update", "-o", "APT::Update::Error-Mode=any", timeout=300)

    def closure(self, progress: Progress) -> tuple[Package, ...]:
        """Everything that SLURM needs there, down to libc; raises PlaygroundError."""
        self.update(progress)
        said = self._run("apt-get", "install", "--yes", "--print-uris", *ROOTS, timeout=60)
        files = re.findall(r"^'\S+' (\S+?)_(\S+)_\w+\.deb \d+", said, re.MULTILINE)
        versions = {name: version.replace("%3a", ":") for name, version in files}
        found = {p for p in self.known(list(versions)) if p.version == versions[p.name]}
        if len(found) != len(versions):
            raise PlaygroundError(f"the index of Debian {self.suite} contradicts itself")
        return tuple(sorted(found))

    def known(self, names: Sequence[str]) -> list[Package]:
        """Every version of these that the signed index has."""
        said = self._run("apt-cache", "show", *names, timeout=60, check=False)
        found = []
        for record in said.split("\n\n"):
            fields = dict(re.findall(r"^(Package|Version|SHA256): (\S+)", record, re.MULTILINE))
            if len(fields) == 3:
                found.append(Package(fields["Package"], fields["Version"], fields["SHA256"]))
        return found

    def download(self, wanted: Sequence[Package]) -> Path:
        """Fetch archives, verified against the signed index; returns their folder."""
        folder = self.root / "download"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        named = [f"{package.name}={package.version}" for package in wanted]
        self._run("apt-get", "download", *named, timeout=900, folder=folder)
        return folder

    def _run(
        self, *argv: str, timeout: float, folder: Path | None = None, check: bool = True
    ) -> str:
        program, verb, *rest = argv
        own = {
            "Dir::Etc::sourcelist": self.root / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State": self.root / "state",
            "Dir::State::status": self.root / "status",
            "Dir::Cache": self.root / "cache",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",  # whom the folder belongs to
            "APT::Architecture": "amd64",
            "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "Acquire::Retries": "3",
        }
        options = [word for name, value in own.items() for word in ("-o", f"{name}={value}")]
        command = [program, "-q", *options, verb, *rest]
        environment = clean_environment(extra=_proxies() | {"LC_ALL": "C"})
        done = run(command, timeout=timeout, folder=folder, check=check, environment=environment)
        return done.stdout


def _proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}


def mirror() -> str:
    """Of Debian's archive, as the machine's own sources have it; raises PlaygroundError."""
    wanted = "$(REPO_URI) $(LABEL) $(COMPONENT)"
    for attempt in range(2):
        said = run(["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"]).stdout
        found = [line.split()[0] for line in said.splitlines() if line.endswith(" Debian main")]
        if found:
            return found[0]
        if attempt == 0:  # a machine whose lists were never fetched
            run(["apt-get", "update"], timeout=300)
    raise PlaygroundError("apt on this machine has no source of Debian's archive (main)")


def _fetch(
    home: Path, *, wanted: str, chosen: tuple[Package, ...], progress: Progress
) -> tuple[Package, ...]:
    """Have every archive of the release in the cache; returns of which packages it is made."""
    if not _absent(home, chosen):
        return chosen
    archive = Archive(home, wanted)
    archive.update(progress)
    lost = sorted(set(_absent(home, chosen)) - set(archive.known([p.name for p in chosen])))
    if lost:
        progress.say(
            f"Debian {archive.suite} has lost {len(lost)} of {len(chosen)} locked packages "
            f"({', '.join(p.name for p in lost[:5])}{' ...' if len(lost) > 5 else ''}): "
            "taking what it has now"
        )
        chosen = archive.closure(progress)
        slurm = next(p.version for p in chosen if p.name == "slurmctld")
        progress.say(f"it has SLURM {slurm}; a new lock: playground slurm-prefix --renew-lock")
    absent = _absent(home, chosen)
    with progress.step(f"{len(absent)} packages of SLURM {wanted} fetched (they are kept)"):
        _keep(archive.download(absent), absent, home=home)
    if lost:
        (home / INSTEAD).write_text(_as_text(chosen), encoding="utf-8")
    shutil.rmtree(archive.root)
    return chosen


def _absent(home: Path, found: Sequence[Package]) -> list[Package]:
    pairs = zip(found, _archives(home, found), strict=True)
    return [package for package, path in pairs if not path.exists()]


def _keep(folder: Path, found: Sequence[Package], *, home: Path) -> None:
    """Take the downloaded archives whose content is what was asked for."""
    by_content = {_sha256(path): path for path in folder.glob("*.deb")}
    wrong = [package.name for package in found if package.sha256 not in by_content]
    if wrong:
        raise PlaygroundError(f"the archives of {', '.join(wrong)} have another content: not used")
    (home / "packages").mkdir(exist_ok=True)
    for package, target in zip(found, _archives(home, found), strict=True):
        by_content[package.sha256].rename(target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- the prefix


def _unpack(archives: Sequence[Path], *, prefix: Path) -> None:
    """Make the layout that `SLURM_PREFIX` wants; raises PlaygroundError."""
    shutil.rmtree(prefix, ignore_errors=True)
    root = prefix / "root"
    root.mkdir(parents=True)
    for path in archives:
        run(["dpkg-deb", "--extract", path, root], timeout=120)
    (root / LIBRARIES).rename(prefix / "lib")
    binaries = prefix / "bin"
    binaries.mkdir()
    rpath = f"{prefix}/lib:{prefix}/lib/slurm-wlm"
    for path in sorted([*root.glob("usr/bin/*"), *root.glob("usr/sbin/*")]):
        name = path.name.removesuffix("-wlm")  # Debian's alternatives are slurmctld-wlm and so on
        if PROGRAMS.fullmatch(name) and path.is_file() and not path.is_symlink():
            target = Path(shutil.copy2(path, binaries / name))
            own: list[str | Path] = ["--set-interpreter", prefix / "lib" / INTERPRETER]
            run(["patchelf", *own, "--force-rpath", "--set-rpath", rpath, target])
    shutil.rmtree(root)
    (prefix / "sbin").symlink_to("bin")
    (prefix / "lib" / "slurm").symlink_to("slurm-wlm")
    for folder in (prefix.parent, prefix, binaries, prefix / "lib"):
        folder.chmod(folder.stat().st_mode | 0o055)  # whatever the umask is
    said = run([binaries / "slurmctld", "-V"]).stdout.split()
    if len(said) != 2:
        raise PlaygroundError(f"{binaries}/slurmctld does not say which release it is: {said}")
    (prefix / DONE).write_text(f"{said[1]}\n", encoding="utf-8")
