"""Which version of the contract the pods of a front understand, by their own word. Pure.

A front keeps its image over upgrades of the operator, and an older one skips what it does not know:
the table of paths, for example. It may write nothing to the API server, and so that it needs no
such right a container of its image says it in the message that a container leaves behind, which the
kubelet puts into the pod's status. A template or an image of an older release says nothing.
"""

import re
from collections.abc import Iterable, Mapping

from isthmus.api import names
from isthmus.api.front_version import OLDEST
from isthmus.apiserver.objects import Object, deletion_timestamp, dig, labels

CONTAINER = "contract"

_PROGRAM = """\
import sys
try:
    from isthmus.api.front_version import VERSION
except ImportError:
    VERSION = 0
try:
    with open(sys.argv[1], "w") as message:
        message.write("contract %d" % VERSION)
except OSError:
    pass
"""
"""By text and not as a module of the image, for an older image has no such module. Whatever keeps
it from speaking, it ends well: the containers that serve start after it."""

_MESSAGE = "/dev/termination-log"
_SAID = re.compile(r"contract ([0-9]{1,6})")


def command() -> list[str]:
    """What the container runs; its last argument is the file that the kubelet reads."""
    return ["python3", "-c", _PROGRAM, _MESSAGE]


def understood(*, deployment: Object | None, pods: Iterable[Object]) -> int | None:
    """The version that every pod of a front understands.

    Args:
        deployment: the front's Deployment, None if there is none.
        pods: those of its ModelDeployment; workers are left out here.

    Returns:
        The lowest one, `OLDEST` for a pod whose template has nobody to say it; None where no pod
        has said it yet. The kubelet may lose a message: then nothing is known of that pod.
    """
    if deployment is None:
        return None
    if not _asks(dig(deployment, "spec", "template")):
        return OLDEST  # pods of so old a template may have no label by which they are watched
    found = [
        _of_pod(pod)
        for pod in pods
        if labels(pod).get(names.LABEL_COMPONENT) == names.COMPONENT_FRONT
        and deletion_timestamp(pod) is None
    ]
    return min((one for one in found if one is not None), default=None)


def _of_pod(pod: Object) -> int | None:
    if not _asks(pod):
        return OLDEST
    for one in _listed(dig(pod, "status", "initContainerStatuses")):
        said = _SAID.fullmatch(str(dig(one, "state", "terminated", "message", default="")))
        if one.get("name") == CONTAINER and said:
            return int(said[1])
    return None


def _asks(pod: object) -> bool:
    """Whether a pod, or a template of pods, has the container that says it."""
    named = _listed(dig(pod, "spec", "initContainers"))
    return any(one.get("name") == CONTAINER for one in named)


def _listed(found: object) -> list[Mapping[str, object]]:
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
