"""The container images, as one OCI archive made without a container engine.

Three images share two layers: Debian's Python with a small userland (busybox), and the engine
simulators in /opt/engines. The layers are written straight from the Debian packages, so nothing has
to be unpacked and no public image is needed. Everything is kept by a hash of what went into it.
"""

import fcntl
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playground import packages
from playground.errors import PlaygroundError
from playground.kubernetes_files import PAUSE_IMAGE
from playground.progress import Progress

VLLM_IMAGE = "localhost/vllm-simulator:1"
SGLANG_IMAGE = "localhost/sglang-simulator:1"
ENGINES = "opt/engines"
PATH = "/opt/engines/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KEPT = 4  # archives in the cache: another start may be importing one
FORMAT = "4"  # change it when the making of the archive changes
MEDIA = "application/vnd.oci.image"
OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'

PYTHON = "python3.11"
DEBIAN = [
    "libc6",
    "libcrypt1",
    "zlib1g",
    "libexpat1",
    "libssl3",
    "libffi8",
    "libbz2-1.0",
    "liblzma5",
    "libuuid1",
    "media-types",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "python3.11-minimal",
    PYTHON,
    "busybox",
]
# Not needed at run time; without them the image is a third smaller.
LEFT_OUT = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/applications",
    "usr/share/pixmaps",
    "usr/lib/x86_64-linux-gnu/gconv",
)
MERGED = ("bin", "sbin", "lib", "lib64")  # Debian keeps these below /usr
APPLETS = """
ash awk basename cat chmod chown clear cp cut date dd df dirname du echo env expr false find
free grep gunzip gzip head hostname id ifconfig ip kill killall ln ls mkdir mktemp more mv
nc netstat nslookup od ping printf ps pwd readlink rm rmdir sed seq sh sleep sort stat stty
sync tail tar tee telnet test timeout top touch tr true tty uname uniq uptime vi wc wget
which whoami xargs yes
"""
# A pod's first process: sleeps, reaps, and ends at once when told to.
PAUSE = ["/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 2147483647 & wait $!; done"]
# vLLM's image has an entry point as the real one has (only arguments are given), SGLang's none.
ENGINE_IMAGES: dict[str, list[str]] = {
    VLLM_IMAGE: ["vllm", "serve"],
    SGLANG_IMAGE: [],
    PAUSE_IMAGE: PAUSE,
}
STATIC = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One uncompressed layer."""

    content: bytes

    @property
    def digest(self) -> str:
        """With its algorithm, as OCI writes it."""
        return digest(self.content)


def digest(content: bytes) -> str:
    """Such as `sha256:…`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def ensure(cache: Path, progress: Progress) -> Path:
    """The archive with all images, made if its content is new; returns its path.

    Raises:
        PlaygroundError: a package could not be fetched or read.
    """
    folder = cache / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".engines-") as scratch:
        from playground.engines.install import install

        engines = Path(scratch) / "engines"
        install(engines)
        engine_layer = engines_layer(engines)
        base = base_layer_file(folder, progress)
        key = hashlib.sha256(f"{FORMAT} {base.name} {engine_layer.digest}".encode()).hexdigest()
        archive = folder / f"images-{key[:12]}.tar"
        if not archive.exists():
            with progress.step(f"container images made: {archive.name}"):
                fresh = Path(scratch) / "images.tar"
                layers = [Layer(base.read_bytes()), engine_layer]
                write_archive(fresh, layers=layers, images=ENGINE_IMAGES)
                fresh.rename(archive)
            made = sorted(folder.glob("images-*.tar"), key=lambda path: path.stat().st_mtime)
            for old in made[:-KEPT]:
                old.unlink()
        return archive


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One at a time makes layers and archives in the folder."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def base_layer_file(
    folder: Path, progress: Progress, *, debian: list[str] = DEBIAN, name: str = "base"
) -> Path:
    """A layer of Debian packages; its name holds a hash of what is in it. Take the lock."""
    record = folder / f"{name}.json"
    wanted = hashlib.sha256(json.dumps([FORMAT, debian, LEFT_OUT, APPLETS]).encode()).hexdigest()
    if record.exists():
        known = json.loads(record.read_text(encoding="utf-8"))
        layer = folder / str(known["file"])
        if known["wanted"] == wanted and layer.exists():
            return layer
    with progress.step(f"image: {len(debian)} Debian packages fetched, not installed"):
        archives = packages.download(debian, folder / "packages")
    content = base_layer(archives).content
    layer = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}.tar"
    fresh = folder / f".new-{name}"
    fresh.write_bytes(content)
    fresh.rename(layer)
    record.write_text(json.dumps({"wanted": wanted, "file": layer.name}), encoding="utf-8")
    return layer


def base_layer(archives: Iterable[Path]) -> Layer:
    """Debian packages as one layer, with a userland of busybox links and a few files."""
    buffer = io.BytesIO()
    seen: set[str] = set()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for name in MERGED:
            add_link(layer, name, f"usr/{name}")
        for folder in ("usr", *(f"usr/{name}" for name in MERGED), "etc", "root", "proc", "sys"):
            add_folder(layer, folder)
        add_folder(layer, "tmp", mode=0o1777)
        seen |= {"usr", "etc", "root", "tmp", *MERGED, *(f"usr/{name}" for name in MERGED)}
        for archive in archives:
            copy_package(archive, layer, seen)
        for name, text in STATIC.items():
            add_file(layer, name, text.encode())
        links = {f"usr/bin/{name}": "busybox" for name in APPLETS.split()}
        links |= {"usr/bin/python3": PYTHON, "usr/bin/python": PYTHON}
        for name, target in links.items():
            if name not in seen:
                add_link(layer, name, target)
    return Layer(buffer.getvalue())


def copy_package(archive: Path, layer: tarfile.TarFile, seen: set[str]) -> None:
    """Copy a package's files, with paths below /usr where Debian has links."""
    done = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(archive)],
        capture_output=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise PlaygroundError(f"{archive} cannot be read: {done.stderr.decode(errors='replace')}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as package:
        for member in package:
            name = merged(member.name.removeprefix("./").strip("/"))
            left_out = any(name == f or name.startswith(f + "/") for f in LEFT_OUT)
            if not name or left_out or name in seen:
                continue
            seen.add(name)
            member.name, member.mtime = name, 0
            if member.islnk():
                member.linkname = merged(member.linkname.removeprefix("./").strip("/"))
            layer.addfile(member, package.extractfile(member) if member.isreg() else None)


def merged(name: str) -> str:
    """`lib/x` as `usr/lib/x`."""
    return f"usr/{name}" if name.partition("/")[0] in MERGED else name


def engines_layer(folder: Path) -> Layer:
    """The simulators below /opt/engines; the same files give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for parent in ("opt", ENGINES):
            add_folder(layer, parent)
        for path in sorted(folder.rglob("*")):
            name = f"{ENGINES}/{path.relative_to(folder)}"
            if "__pycache__" in path.parts:
                continue
            if path.is_symlink():
                add_link(layer, name, str(path.readlink()))
            elif path.is_dir():
                add_folder(layer, name)
            else:
                mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                add_file(layer, name, path.read_bytes(), mode=mode)
    return Layer(buffer.getvalue())


def add_folder(layer: tarfile.TarFile, name: str, *, mode: int = 0o755) -> None:
    """Put a folder into a layer."""
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    layer.addfile(info)


def add_link(layer: tarfile.TarFile, name: str, target: str) -> None:
    """Put a symbolic link into a layer."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    layer.addfile(info)


def add_file(layer: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    """Put a file into a layer."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    layer.addfile(info, io.BytesIO(content))


def write_archive(
    target: Path,
    *,
    layers: list[Layer],
    images: Mapping[str, list[str]],
) -> None:
    """Write the OCI archive of images (name → entry point) that share these layers."""
    blobs = {layer.digest: layer.content for layer in layers}
    manifests = []
    for name, entrypoint in images.items():
        config = _config(entrypoint, layers)
        manifest = _manifest(config, layers)
        blobs |= {digest(config): config, digest(manifest): manifest}
        annotations = {"annotations": {"io.containerd.image.name": name}}
        manifests.append(_descriptor("manifest.v1+json", manifest) | annotations)
    index = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    files = {"oci-layout": OCI_LAYOUT, "index.json": index}
    files |= {f"blobs/{name.replace(':', '/')}": blob for name, blob in blobs.items()}
    with tarfile.open(target, "w") as archive:
        for path, content in files.items():
            add_file(archive, path, content)


def _descriptor(kind: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": f"{MEDIA}.{kind}", "digest": digest(blob), "size": len(blob)}


def _config(entrypoint: list[str], layers: list[Layer]) -> bytes:
    run: dict[str, object] = {"Env": [f"PATH={PATH}"], "WorkingDir": "/"}
    if entrypoint:
        run["Entrypoint"] = entrypoint
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
            "history": [{"created_by": "playground/image.py"}] * len(layers),  # buildah wants it
        }
    ).encode()


def _manifest(config: bytes, layers: list[Layer]) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{MEDIA}.manifest.v1+json",
            "config": _descriptor("config.v1+json", config),
            "layers": [_descriptor("layer.v1.tar", layer.content) for layer in layers],
        }
    ).encode()
