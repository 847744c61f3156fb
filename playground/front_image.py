"""The image of the front: Envoy and the sidecar of the working tree, imported when asked for.

Made as the operator's image is, with only what the sidecar imports.
"""

import hashlib
import io
import tarfile
import tempfile
from pathlib import Path

from playground import image
from playground.cluster import Playground
from playground.config import default_cache, node_names
from playground.python_environment import python_environment
from playground.routers import envoy_binary

FRONT_IMAGE = "localhost/isthmus-front"
ROOT = "opt/isthmus"
NEEDED = ("isthmus", "httpx", "httpcore", "h11", "anyio", "idna", "certifi", "typing_extensions.py")


def import_front_image(playground: Playground) -> str:
    """Make the image of the working tree as it is now, import it into every node.

    Returns:
        The image's name; its tag changes with its content.

    Raises:
        PlaygroundError: a package could not be fetched, or containerd refused the archive.
    """
    config, progress = playground.config, playground.progress
    python_environment(config, progress)
    folder = config.cache / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with image.locked(folder):
        base = image.Layer(image.base_layer_file(folder, progress).read_bytes())
    envoy = envoy_layer(envoy_binary(default_cache(), progress))
    sidecar = sidecar_layer(config.state / "python")
    parts = f"{base.digest} {envoy.digest} {sidecar.digest}"
    tag = hashlib.sha256(parts.encode()).hexdigest()[:12]
    name = f"{FRONT_IMAGE}:{tag}"
    with tempfile.TemporaryDirectory(dir=config.state, prefix=".front-") as scratch:
        archive = Path(scratch) / f"front-{tag}.tar"
        image.write_archive(
            archive,
            layers=[base, envoy, sidecar],
            images={name: []},
            working_folder=f"/{ROOT}",
        )
        for node in node_names(config):
            playground.kubernetes.import_images(node, archive)
    return name


def envoy_layer(binary: Path) -> image.Layer:
    """Envoy in the path."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        image.add_file(layer, "usr/local/bin/envoy", binary.read_bytes(), mode=0o755)
    return image.Layer(buffer.getvalue())


def sidecar_layer(environment: Path) -> image.Layer:
    """The sidecar and what it imports, in the working folder, where Python finds it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for parent in ("opt", ROOT):
            image.add_folder(layer, parent)
        for name in NEEDED:
            top = environment / name
            for path in sorted([top, *top.rglob("*")]):
                if path.suffix == ".pyc" or path.name == "__pycache__":
                    continue
                target = f"{ROOT}/{path.relative_to(environment)}"
                if path.is_dir():
                    image.add_folder(layer, target)
                elif path.is_file():
                    image.add_file(layer, target, path.read_bytes())
    return image.Layer(buffer.getvalue())
