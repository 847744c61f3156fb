"""The Dockerfile built by Debian's buildah, as any user would build it, without a network.

Apart from images.py, which puts the code of the moment into what is made here: the builder needs
half a minute even for a changed line. The base is an archive made of Debian packages (image.py),
for no public one can be fetched, and so is the image with Envoy; wheels come from a folder that is
filled once, and only such that the lock files name by hash.
"""

import fcntl
import hashlib
import io
import os
import shutil
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from playground import image, packages, routers
from playground.commands import clean_environment, run
from playground.lockfiles import BUILD_REQUIREMENTS, REQUIREMENTS
from playground.progress import Progress
from playground.python_environment import REPOSITORY, debian_python

OPERATOR = REPOSITORY / "operator"
TARGETS = ("isthmus", "isthmus-front")
FORMAT = "2"  # change it when the making changes
KEPT = 2  # results of former Dockerfiles and dependencies
BASE = "localhost/isthmus-base"
ENVOY = "localhost/isthmus-envoy"
BUILD_TIMEOUT = 900.0
LOCKS = (REQUIREMENTS, BUILD_REQUIREMENTS)
CONTEXT = ("Dockerfile", "pyproject.toml", "README.md", "LICENSE", *LOCKS)
# What ssh, sshd and the wheels with code in Rust and C++ link, beside the engines' base.
DEBIAN = [
    *image.DEBIAN,
    "libgcc-s1",
    "libstdc++6",
    "openssh-client",
    "libselinux1",
    "libpcre2-8-0",
    "libgssapi-krb5-2",
    "libkrb5-3",
    "libk5crypto3",
    "libkrb5support0",
    "libcom-err2",
    "libkeyutils1",
    "openssh-server",
    "libaudit1",
    "libcap-ng0",
    "libcap2",
    "libgcrypt20",
    "libgpg-error0",
    "liblz4-1",
    "libnsl2",
    "libpam0g",
    "libsystemd0",
    "libtirpc3",
    "libwrap0",
    "libzstd1",
]


def ensure(cache: Path, progress: Progress, *, state: Path | None = None) -> Path:
    """Build both targets, if the Dockerfile or a dependency is new.

    Args:
        cache: keeps the result by a digest of the Dockerfile, the dependencies and the base.
        progress: where each step is said.
        state: the playground whose `down` ends the builder too, if it is one that builds.

    Returns:
        A folder that holds one folder for each target: `manifest.json` and blobs named by their
        digest, the layers uncompressed. The last layer is the package, of the time of the build.

    Raises:
        PlaygroundError: a package or a wheel could not be fetched, or a step failed.
    """
    folder = cache / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with image.locked(folder):
        base = image.base_layer_file(folder, progress, debian=DEBIAN, name="python-sshd")
    wheels = ensure_wheels(cache, progress)
    envoy = routers.envoy_binary(cache, progress)
    parts = f"{FORMAT} {base.name} {wheels.name} {routers.ENVOY} {_commands()}"
    digest = hashlib.sha256(parts.encode())
    digest.update((REPOSITORY / "Dockerfile").read_bytes())
    result = folder / f"dockerfile-{digest.hexdigest()[:12]}"
    with (folder / "buildah.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            packages.require(
                {"buildah": "builds the images of the Dockerfile"}, cache=cache, progress=progress
            )
            what = f"images {' and '.join(TARGETS)} built from the Dockerfile by buildah"
            with progress.step(what), tempfile.TemporaryDirectory(dir=folder, prefix=".b-") as tmp:
                _Build(scratch=Path(tmp), state=state).make(
                    base, wheels=wheels, envoy=envoy, result=result
                )
        os.utime(result)
        made = sorted(folder.glob("dockerfile-*"), key=lambda path: path.stat().st_mtime)
        for old in made[:-KEPT]:
            shutil.rmtree(old)
    return result


def _commands() -> str:
    """The commands of the package: what else of pyproject.toml the last layer depends on."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    return repr(tomllib.loads(text)["project"]["scripts"])


def sources() -> Iterator[Path]:
    """The files of the package, below `operator/`."""
    for path in sorted(OPERATOR.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def wheels_folder(cache: Path) -> Path:
    """Where the wheels are, once `ensure_wheels` has fetched them."""
    version = "{}.{}".format(*debian_python())
    locks = b"".join((REPOSITORY / name).read_bytes() for name in LOCKS)
    key = hashlib.sha256(repr((FORMAT, version)).encode() + locks).hexdigest()
    return cache / f"wheels-{version}-{key[:12]}"


def ensure_wheels(cache: Path, progress: Progress) -> Path:
    """A folder with pip, the build backend and all dependencies, for Debian's Python."""
    version = "{}.{}".format(*debian_python())
    wanted = [f"--requirement={REPOSITORY / name}" for name in LOCKS]
    target = wheels_folder(cache)
    with (cache / "wheels.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        options = ["--only-binary=:all:", f"--python-version={version}"]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        with (
            progress.step("wheels of the images fetched (once)"),
            tempfile.TemporaryDirectory(dir=cache, prefix=".wheels-") as scratch,
        ):
            fresh = Path(scratch) / "wheels"
            run(
                [*pip, *options, f"--dest={fresh}", "--require-hashes", *wanted],
                timeout=600,
                environment=os.environ,
            )
            fresh.rename(target)
    return target


def _program(name: str, path: Path) -> image.Layer:
    """A layer that holds one program."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        image.add_file(layer, name, path.read_bytes(), mode=0o755)
    return image.Layer(buffer.getvalue())


@dataclass(frozen=True, slots=True)
class _Build:
    """One run of the builder; nothing of it stays but the result.

    Attributes:
        scratch: a folder of this run alone.
        state: marks the builder's processes.
    """

    scratch: Path
    state: Path | None

    def make(self, base: Path, *, wheels: Path, envoy: Path, result: Path) -> None:
        """Build both targets into the folder `result`."""
        base_image, envoy_image = f"{BASE}:{base.stem}", f"{ENVOY}:made"
        self._pull(base_image, image.Layer(base.read_bytes()))
        self._pull(envoy_image, _program("usr/local/bin/envoy", envoy))
        context = self._context(wheels)
        fresh = self.scratch / "result"
        fresh.mkdir()
        for target in reversed(TARGETS):  # the front's steps contain nearly all of the other's
            options = ["--isolation=chroot", "--layers", "--pull-never"]
            options += [f"--build-arg=BASE={base_image}", f"--build-arg=ENVOY={envoy_image}"]
            options += ["--build-arg=WHEELS=wheels"]
            name = f"localhost/{target}"
            self._buildah("build", *options, f"--target={target}", f"--tag={name}", str(context))
            # A folder, and uncompressed: compressing takes longer than the build.
            where = f"dir:{fresh / target}"
            self._buildah("push", "--quiet", "--disable-compression", name, where)
        fresh.rename(result)

    def _pull(self, name: str, layer: image.Layer) -> None:
        """Put an image of one layer into the builder's store."""
        archive = self.scratch / "pulled.tar"
        image.write_archive(archive, layers=[layer], images={name: []})
        self._buildah("pull", "--quiet", f"oci-archive:{archive}")
        archive.unlink()

    def _context(self, wheels: Path) -> Path:
        """What the Dockerfile copies, and the wheels."""
        context = self.scratch / "context"
        for source in [*(REPOSITORY / name for name in CONTEXT), *sources()]:
            copy = context / source.relative_to(REPOSITORY)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            copy.chmod(0o644)
        (context / "wheels").mkdir()
        for wheel in wheels.iterdir():
            os.link(wheel, context / "wheels" / wheel.name)
        return context

    def _buildah(self, *arguments: str) -> str:
        """Run buildah with mounts that end with it, and without a network.

        Its driver is overlay, as containerd's on the nodes is; vfs copies all files for each step.
        """
        store = [f"--root={self.scratch / 'root'}", f"--runroot={self.scratch / 'run'}"]
        command = ["unshare", "--mount", "--net", "buildah", *store, "--storage-driver=overlay"]
        environment = clean_environment(self.state, extra={"TMPDIR": str(self.scratch)})
        done = run([*command, *arguments], timeout=BUILD_TIMEOUT, environment=environment)
        return done.stdout
