"""Which API key a worker wants, from its slice and the operator's Secret of worker keys. Pure.

A worker outside the cluster has the digest of its key as a label on its slice. A pod's slice is
made by Kubernetes and says only the pod's name, which begins with the name of its Deployment; the
Secret tells the digest of each Deployment. Apart from the front, because external routers are told
keys too.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from isthmus.api import names
from isthmus.apiserver.objects import Object, annotations, dig

_IN_A_HEADER = re.compile(r"[\x21-\x7e]{1,8192}")
_ALL_OTHERS = "*"
"""In place of a Deployment's name, which cannot be that."""


@dataclass(frozen=True, slots=True)
class HeldKeys:
    """What the Secret of worker keys says.

    Attributes:
        values: keys by digest.
        deployments: digest by name of a Deployment, "" for one whose pods have no key.
        others_have_none: whether pods of every other Deployment have no key: it was taken away.
    """

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    deployments: Mapping[str, str] = field(default_factory=dict)
    others_have_none: bool = False

    def for_workloads(self, workloads: Iterable[str]) -> "HeldKeys":
        """Return what is said of these Deployments, and nothing about others that come later."""
        if not self.others_have_none:
            return self
        deployments = {**dict.fromkeys(workloads, ""), **self.deployments}
        return replace(self, deployments=deployments, others_have_none=False)

    def key(self, *, digest: str, workload: str) -> str | None:
        """Return the key that a worker wants, "" for none, None where that is not known yet.

        Args:
            digest: from the worker's slice, "" if that has none.
            workload: name of the Deployment that made the pod, "" for a worker that is no pod.
        """
        if not digest and workload:
            found = self.deployments.get(workload, "" if self.others_have_none else None)
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
    deployments = dict(_deployments(secret))
    others_have_none = deployments.pop(_ALL_OTHERS, None) == ""
    return HeldKeys(values=values, deployments=deployments, others_have_none=others_have_none)


def deployments_annotation(
    digests: Iterable[tuple[str, str]], *, others_have_none: bool = False
) -> str:
    """The annotation's text from pairs of a Deployment's name and its digest."""
    found = dict(digests)
    if others_have_none:
        found[_ALL_OTHERS] = ""
    return json.dumps(dict(sorted(found.items())), separators=(",", ":"))


def _deployments(secret: Object) -> Mapping[str, str]:
    try:
        found = json.loads(annotations(secret).get(names.ANNOTATION_DEPLOYMENT_KEYS, "{}"))
    except (ValueError, RecursionError):  # nested too deeply: people may write annotations
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: digest for name, digest in found.items() if isinstance(digest, str)}


def _decoded(encoded: object) -> str:
    """A key, "" for what cannot stand in a header: people may write Secrets."""
    try:
        found = base64.b64decode(str(encoded), validate=True).decode()
    except ValueError:  # not base64, or not UTF-8
        return ""
    return found if _IN_A_HEADER.fullmatch(found) else ""
