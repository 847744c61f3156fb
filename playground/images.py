"""The images of Isthmus with the code of the moment, and their way into the nodes.

What the Dockerfile makes (dockerfile.py) changes with the dependencies only; here its last layer,
the package, is written anew from the working tree, which takes a second. A node gets the whole
once, and then only the layer that changed.
"""

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from playground import dockerfile, image
from playground.cluster import Playground
from playground.commands import run
from playground.config import node_names
from playground.errors import PlaygroundError
from playground.progress import Progress
from playground.python_environment import PYTHON

REGISTRY = "localhost"
TAG = "dev"
IMAGE = f"{REGISTRY}/isthmus:{TAG}"
FRONT_IMAGE = f"{REGISTRY}/isthmus-front:{TAG}"
MANIFEST = f"{image.MEDIA}.manifest.v1+json"
FORMAT = "1"  # change it when the making changes
KEPT = 8  # archives with changed code; each has one small layer


@dataclass(frozen=True, slots=True)
class Images:
    """The two images of one state of the code, as archives for `ctr images import`.

    Attributes:
        whole: all layers, of some state of the code.
        change: the layer that differs, and the manifests; for a node that has the whole.
        tag: changes with the content, beside the tag `dev`, which is always the newest.
    """

    whole: Path
    change: Path
    tag: str


@dataclass(frozen=True, slots=True)
class _Image:
    """An image as manifest, configuration and layers: digest → where its content is."""

    manifest: bytes
    blobs: Mapping[str, Path | bytes]


def install(playground: Playground) -> Images:
    """Make the images of the working tree as it is now, and import them into every node.

    Raises:
        PlaygroundError: a package or a wheel could not be fetched, or a step failed.
    """
    made = ensure(playground.config.cache, playground.progress, state=playground.state)

    def into(node: str) -> None:
        playground.kubernetes.import_images(node, made.whole, kind="isthmus, dependencies")
        playground.kubernetes.import_images(node, made.change, kind="isthmus")

    with ThreadPoolExecutor() as pool:
        list(pool.map(into, node_names(playground.config)))
    return made


def ensure(cache: Path, progress: Progress, *, state: Path | None = None) -> Images:
    """The archives of both images, made if what goes into them is new.

    Raises:
        PlaygroundError: a package or a wheel could not be fetched, or a step failed.
    """
    built = dockerfile.ensure(cache, progress, state=state)
    folder, key = cache / "images", _key(built)
    whole, change = folder / f"whole-{built.name}.tar", folder / f"change-{key}.tar"
    made = Images(whole=whole, change=change, tag=f"{TAG}-{key}")
    with image.locked(folder):
        if not whole.exists():
            _write(whole, images=_read(built), tags=[built.name])
        if not change.exists():
            with progress.step(f"images isthmus and isthmus-front: the code of now is {made.tag}"):
                _write(change, images=_with_code_of_now(_read(built)), tags=[TAG, made.tag])
        for path, kept in ((whole, dockerfile.KEPT), (change, KEPT)):
            path.touch()
            kind = path.name.partition("-")[0]
            ages = sorted(folder.glob(f"{kind}-*.tar"), key=lambda found: found.stat().st_mtime)
            for old in ages[:-kept]:
                old.unlink()
    return made


def _key(built: Path) -> str:
    """Twelve hexadecimal digits that change with anything that goes into the images."""
    digest = hashlib.sha256(f"{FORMAT} {built.name}".encode())
    for path in dockerfile.sources():
        digest.update(f"{path.relative_to(dockerfile.OPERATOR)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _read(built: Path) -> dict[str, _Image]:
    """What the builder has written: target → image."""
    found = {}
    for target in dockerfile.TARGETS:
        folder = built / target
        manifest = (folder / "manifest.json").read_bytes()
        parts = json.loads(manifest)
        digests = [str(part["digest"]) for part in (parts["config"], *parts["layers"])]
        blobs: dict[str, Path | bytes] = {d: folder / d.removeprefix("sha256:") for d in digests}
        found[target] = _Image(manifest=manifest, blobs=blobs)
    return found


def _with_code_of_now(images: Mapping[str, _Image]) -> dict[str, _Image]:
    """The images with another last layer; their blobs are only those that are new."""
    layer: image.Layer | None = None
    found = {}
    for target, former in images.items():
        manifest = json.loads(former.manifest)
        config = json.loads(_content(former.blobs[manifest["config"]["digest"]]))
        last = manifest["layers"][-1]["digest"]
        layer = layer or _package_layer(_content(former.blobs[last]))
        config["rootfs"]["diff_ids"][-1] = layer.digest
        text = json.dumps(config).encode()
        manifest["config"] |= {"digest": image.digest(text), "size": len(text)}
        manifest["layers"][-1] |= {"digest": layer.digest, "size": len(layer.content)}
        blobs: dict[str, Path | bytes] = {image.digest(text): text, layer.digest: layer.content}
        found[target] = _Image(manifest=json.dumps(manifest).encode(), blobs=blobs)
    return found


def _content(blob: Path | bytes) -> bytes:
    return blob if isinstance(blob, bytes) else blob.read_bytes()


def _package_layer(former: bytes) -> image.Layer:
    """The layer of the package with the modules of the working tree, compiled as before."""
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(former)) as source,
        tarfile.open(fileobj=buffer, mode="w") as layer,
        tempfile.TemporaryDirectory() as scratch,
    ):
        modules = [
            m.name for m in source if m.isdir() and m.name.endswith("/site-packages/isthmus")
        ]
        if len(modules) != 1:
            raise PlaygroundError("the last layer of the Dockerfile is not the package isthmus")
        for member in source:
            if not member.name.startswith(f"{modules[0]}/"):
                layer.addfile(member, source.extractfile(member) if member.isreg() else None)
        for path in _compiled(Path(scratch) / "isthmus"):
            name = f"{modules[0]}/{path.relative_to(Path(scratch) / 'isthmus')}"
            if path.is_dir():
                image.add_folder(layer, name)
            else:
                image.add_file(layer, name, path.read_bytes())
    return image.Layer(buffer.getvalue())


def _compiled(folder: Path) -> list[Path]:
    """A copy of the package in a folder, with compiled files that refer to no times."""
    for source in dockerfile.sources():
        copy = folder.parent / source.relative_to(dockerfile.OPERATOR)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    options = ["-q", "--invalidation-mode", "unchecked-hash", "-s", str(folder.parent)]
    run([PYTHON, "-m", "compileall", *options, str(folder)], timeout=120)
    return sorted(folder.rglob("*"))


def _write(target: Path, *, images: Mapping[str, _Image], tags: Iterable[str]) -> None:
    """Write an OCI archive; each image gets all tags."""
    manifests = []
    blobs: dict[str, Path | bytes] = {}
    for name, one in images.items():
        digest = image.digest(one.manifest)
        blobs |= {**one.blobs, digest: one.manifest}
        plain = {"mediaType": MANIFEST, "digest": digest, "size": len(one.manifest)}
        for tag in tags:
            annotations = {"io.containerd.image.name": f"{REGISTRY}/{name}:{tag}"}
            manifests.append(plain | {"annotations": annotations})
    index = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    fresh = target.with_name(f".new-{target.name}")
    with tarfile.open(fresh, "w") as archive:
        image.add_file(archive, "oci-layout", image.OCI_LAYOUT)
        image.add_file(archive, "index.json", index)
        for digest, blob in blobs.items():
            name = f"blobs/{digest.replace(':', '/')}"
            if isinstance(blob, bytes):
                image.add_file(archive, name, blob)
            else:
                archive.add(blob, arcname=name)
    fresh.rename(target)
