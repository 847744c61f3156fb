"""The operator as a container image of the working tree, for tests that run it as a pod.

Made as the engines' images are, from the same base layer, and imported only when asked: at every
start it would cost more than the clusters themselves.
"""

import hashlib
import io
import tarfile
import tempfile
from pathlib import Path

from playground import image, packages
from playground.cluster import Playground
from playground.config import node_names
from playground.python_environment import python_environment

OPERATOR_IMAGE = "localhost/isthmus"
ROOT = "opt/isthmus"
# Wheels with code in Rust and C++ link these; the engines' images do without.
DEBIAN = ["libgcc-s1", "libstdc++6"]
# Python finds the package in the working folder.
ENTRYPOINT = ["/usr/bin/python3", "-m", "isthmus", "run"]


def import_operator_image(playground: Playground) -> str:
    """Make the image of the working tree as it is now, import it into every node.

    Returns:
        The image's name; its tag changes with its content, so a pod never gets an older one.

    Raises:
        PlaygroundError: a package could not be fetched, or containerd refused the archive.
    """
    config, progress = playground.config, playground.progress
    python_environment(config, progress)
    folder = config.cache / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with image.locked(folder):
        base = image.Layer(image.base_layer_file(folder, progress).read_bytes())
        archives = packages.download(DEBIAN, folder / "packages")
    operator = operator_layer(config.state / "python", archives)
    tag = hashlib.sha256(f"{base.digest} {operator.digest}".encode()).hexdigest()[:12]
    name = f"{OPERATOR_IMAGE}:{tag}"
    with tempfile.TemporaryDirectory(dir=config.state, prefix=".operator-") as scratch:
        archive = Path(scratch) / f"operator-{tag}.tar"
        image.write_archive(
            archive,
            layers=[base, operator],
            images={name: ENTRYPOINT},
            working_folder=f"/{ROOT}",
        )
        for node in node_names(config):
            playground.kubernetes.import_images(node, archive)
    return name


def operator_layer(environment: Path, archives: list[Path]) -> image.Layer:
    """The packages of `python_environment` in /opt/isthmus, and the libraries that they link.

    Compiled files go with their sources, whose times they hold: without them a start takes
    seconds longer, for a container's file system is read-only.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        seen = {"usr", "usr/lib", "usr/share"}
        for archive in archives:
            image.copy_package(archive, layer, seen)
        for parent in ("opt", ROOT):
            image.add_folder(layer, parent)
        for path in sorted(environment.rglob("*")):
            name = f"{ROOT}/{path.relative_to(environment)}"
            if path.is_dir():
                image.add_folder(layer, name)
            elif path.is_file() and not path.name.startswith("."):
                content, mtime = path.read_bytes(), int(path.stat().st_mtime)
                image.add_file(layer, name, content, mtime=mtime)
    return image.Layer(buffer.getvalue())
