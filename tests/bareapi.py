"""etcd and a kube-apiserver, nothing else, shared by all tests of one run that write to it.

No controllers run: nothing is garbage-collected, no pod starts, and namespaces never finish
terminating, so each test makes a namespace of its own and leaves it.
"""

import atexit
import functools
import itertools
import os
import shutil
import tempfile
from pathlib import Path

from isthmus.apiserver.client import KubernetesApiServer
from isthmus.apiserver.connection import Connection
from isthmus.apiserver.resources import Resource
from playground.cluster import Config, Playground
from playground.config import INSTANCES
from playground.errors import PlaygroundError

NAMESPACES = Resource("", "v1", "namespaces", "Namespace")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")

_numbers = itertools.count(1)


@functools.cache
def bare_api() -> Playground:
    """Start it on first use; it ends with the test run.

    Raises:
        PlaygroundError: it does not start; nothing of it is left.
    """
    playground = start_bare_api()
    atexit.register(playground.down)
    crds = Path(__file__).parent.parent / "crds"
    playground.kubectl("apply", "--server-side", "-f", str(crds))
    playground.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    return playground


def start_bare_api() -> Playground:
    """Start it under the first instance number that works, from the top: people use the low ones.

    A number that is free may still have addresses that something else on the machine uses.
    """
    for number in reversed(INSTANCES):
        state = Path(tempfile.mkdtemp(prefix="isthmus-api-", dir="/var/tmp"))
        config = Config(state=state, instance=number, parts=frozenset({"apiserver"}))
        try:
            return Playground(config).__enter__()
        except PlaygroundError:
            shutil.rmtree(state, ignore_errors=True)
            if number == INSTANCES[-4]:
                raise
    raise AssertionError("unreachable")


def connection() -> Connection:
    """How to reach it as administrator."""
    return Connection(kubeconfig=str(bare_api().kubernetes.kubeconfig))


async def connect(*, timeout: float = 10.0) -> KubernetesApiServer:
    """Return a client of it."""
    return await KubernetesApiServer.connect(connection(), timeout=timeout)


async def new_namespace(api: KubernetesApiServer) -> str:
    """Make a namespace that no other test uses and return its name."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    await api.create(NAMESPACES, {"metadata": {"name": name}})
    return name
