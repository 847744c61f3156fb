"""Which API key a worker wants, from its slice and the operator's Secret of worker keys. Pure.

A worker outside the cluster has the digest of its key as a label on its slice. A pod's slice is
made by Kubernetes and says only the pod's name, which begins with the name of its Deployment; the
Secret tells the digest of each Deployment. Apart from the front, because external routers are told
keys too.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from isthmus.api import names
from isthmus.apiserver.objects import Object, annotations, dig


@dataclass(frozen=True, slots=True)
class HeldKeys:
    """What the Secret of worker keys says.

    Attributes:
        values: keys by digest.
        deployments: digest by name of a Deployment, "" for one whose pods have no key.
    """

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    deployments: Mapping[str, str] = field(default_factory=dict)

    def key(self, *, digest: str, workload: str) -> str | None:
        """Return the key that a worker wants, "" for none, None where that is not known yet.

        Args:
            digest: from the worker's slice, "" if that has none.
            workload: name of the Deployment that made the pod, "" for a worker that is no pod.
        """
        if not digest and workload:
            found = self.deployments.get(workload)
            if not found:
                return found
            digest = found
        return self.values.get(digest) if digest else ""


def held_keys(secret: Object) -> HeldKeys:
    """Read the Secret; what cannot be read of it is not there."""
    data = dig(secret, "data", default={})
    values = {}
    for entry, encoded in data.items() if isinstance(data, Mapping) else ():
        if "." not in entry and (value := _decoded(encoded)):
            values[entry] = value
    return HeldKeys(values=values, deployments=_deployments(secret))


def deployments_annotation(digests: Iterable[tuple[str, str]]) -> str:
    """The annotation's text from pairs of a Deployment's name and its digest."""
    return json.dumps(dict(sorted(digests)), separators=(",", ":"))


def _deployments(secret: Object) -> Mapping[str, str]:
    try:
        found = json.loads(annotations(secret).get(names.ANNOTATION_DEPLOYMENT_KEYS, "{}"))
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(name): str(digest) for name, digest in found.items()}


def _decoded(encoded: object) -> str:
    try:
        return base64.b64decode(str(encoded), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
