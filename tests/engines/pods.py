"""How pods of the playground get real engines: libraries by an image, all else by a host path.

Six GB are not put into an image, which each node would unpack once more: the image holds Debian's
Python and the few libraries that the packages expect of a system, and an admission policy of the
cluster mounts the folder of environment.py over /opt/engines. That is the administrator's way to
give pods a volume, and needs nothing of Isthmus.
"""

import hashlib
import json
import tempfile
from pathlib import Path

import yaml

from playground import image
from playground.cluster import Playground
from playground.config import node_names

FOLDER = "/opt/engines"  # where the image's PATH begins, as in the simulators' image
IMAGES = {"vllm": "localhost/vllm-cpu:1", "sglang": "localhost/sglang-cpu:1"}
ENTRY_POINTS = {"vllm": ["vllm", "serve"], "sglang": []}
LIBRARIES = [
    "libgcc-s1",
    "libgomp1",
    "libncursesw6",
    "libnuma1",
    "libreadline8",
    "libsmartcols1",
    "libsqlite3-0",
    "libstdc++6",
    "libtinfo6",
    "util-linux",
]
POLICY = "real-engines"


def prepare(playground: Playground, folder: Path) -> None:
    """Import the images into every node, and have pods with them get the folder.

    Args:
        playground: with Kubernetes.
        folder: what `environment.place` has made.

    Raises:
        PlaygroundError: a Debian package cannot be fetched, or the API server refused the policy.
    """
    archive = _archive(playground)
    for node in node_names(playground.config):
        playground.kubernetes.import_images(node, archive, kind="real engines")
    playground.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(policy(folder)))


def _archive(playground: Playground) -> Path:
    """Both images, made if what goes into them is new."""
    folder = playground.config.cache / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with image.locked(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".real-") as scratch:
        debian = [*image.DEBIAN, *LIBRARIES]
        base = image.base_layer_file(folder, playground.progress, debian=debian, name="real")
        images = {name: ENTRY_POINTS[engine] for engine, name in IMAGES.items()}
        key = hashlib.sha256(f"{base.name} {json.dumps(images)}".encode()).hexdigest()
        archive = folder / f"real-engines-{key[:12]}.tar"
        if not archive.exists():
            fresh = Path(scratch) / "images.tar"
            image.write_archive(fresh, layers=[image.Layer(base.read_bytes())], images=images)
            for old in folder.glob("real-engines-*.tar"):
                old.unlink()
            fresh.rename(archive)
    return archive


def policy(folder: Path) -> list[dict[str, object]]:
    """The admission policy and its binding: pods with our images get the folder at /opt/engines."""
    names = ", ".join(f"'{name}'" for name in IMAGES.values())
    mutation = f"""
      Object{{spec: Object.spec{{
        volumes: [Object.spec.volumes{{
          name: "engines",
          hostPath: Object.spec.volumes.hostPath{{path: "{folder}", type: "Directory"}}
        }}],
        containers: [Object.spec.containers{{
          name: "engine",
          volumeMounts: [Object.spec.containers.volumeMounts{{
            name: "engines", mountPath: "{FOLDER}", readOnly: true
          }}]
        }}]
      }}}}"""
    version = "admissionregistration.k8s.io/v1"
    return [
        {
            "apiVersion": version,
            "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": POLICY},
            "spec": {
                "matchConstraints": {
                    "resourceRules": [
                        {
                            "apiGroups": [""],
                            "apiVersions": ["v1"],
                            "operations": ["CREATE"],
                            "resources": ["pods"],
                        }
                    ]
                },
                "matchConditions": [
                    {
                        "name": "has-an-engine-of-ours",
                        "expression": "object.spec.containers.exists("
                        f"c, c.name == 'engine' && c.image in [{names}])",
                    }
                ],
                "reinvocationPolicy": "Never",
                "mutations": [
                    {
                        "patchType": "ApplyConfiguration",
                        "applyConfiguration": {"expression": mutation},
                    }
                ],
            },
        },
        {
            "apiVersion": version,
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": POLICY},
            "spec": {"policyName": POLICY},
        },
    ]
