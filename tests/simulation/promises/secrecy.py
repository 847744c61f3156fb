"""The part of the judge that knows the API keys: none may show, and each worker's must be kept.

A worker answers only to its own attempt's key, so that what the node of another attempt has learned
opens nothing. Every key of a deployment begins with a mark, so that one look tells whether a text
holds one, and whether a job was given one.
"""

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING

from isthmus.api import names
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    LEASES,
    MODEL_DEPLOYMENTS,
    PODS,
    SECRETS,
    SLURM_JOBS,
    Resource,
)

if TYPE_CHECKING:
    from tests.simulation.apiserver import ApiSimulator, Json
    from tests.simulation.engines import Machines

SECRET_MARK = "isthmus-SECRET-"
_ENCODED_MARK = base64.b64encode(SECRET_MARK.encode()).decode()[:18]


class Secrecy:
    """Looks at every write and every command."""

    def __init__(
        self,
        *,
        api: "ApiSimulator",
        machines: "Machines",
        require: Callable[[bool, str], None],
    ) -> None:
        self._api, self._machines, self._require = api, machines, require
        self._words: set[str] = set()  # of every Secret that there ever was
        self._staged: dict[str, str] = {}  # key of an attempt → name of its job
        self.keys_apart: Callable[[], bool] = lambda: False
        api.listeners.append(self._changed)

    def shows_in(self, what: str, said: object) -> None:
        """Something was written, or a command called with these arguments and this input."""
        text = repr(said)
        self._require(SECRET_MARK not in text and _ENCODED_MARK not in text, f"a key in {what}")
        for word in self._words:
            self._require(word not in text, f"a secret stands in {what}")

    def staged(self, job_name: str, content: str) -> None:
        """A key was placed for a job: written down before, and no other job's."""
        found = (o for o in self._api.all(SLURM_JOBS) if k8s.dig(o, "spec", "jobName") == job_name)
        job = next(found, None)
        if job is None or names.ANNOTATION_KEY_SOURCE not in k8s.annotations(job):
            marked = content.startswith(SECRET_MARK) or content in self._staged
            self._require(marked, f"no API key is placed for {job_name}")
            return
        self._require(SECRET_MARK not in content, f"{job_name} is given the deployment's key")
        other = self._staged.setdefault(content, job_name)
        self._require(other == job_name, f"{job_name} is given the key of {other}")
        labels = k8s.labels(job)  # a hostile tenant's may lack any
        secret = names.worker_keys_secret(labels.get(names.LABEL_DEPLOYMENT, ""))
        held = self._api.get(SECRETS, k8s.namespace(job), secret)
        if held is not None and self._of_today(job):
            said = k8s.dig(held, "data", labels.get(names.LABEL_KEY, ""))
            self._require(said == _encoded(content), f"the key of {job_name} is not written down")

    def _made(self, job: "Json") -> None:
        """Which key a new attempt will be given."""
        keyed = names.LABEL_KEY in k8s.labels(job)
        own = names.ANNOTATION_KEY_SOURCE in k8s.annotations(job)
        self._require(
            own or not (keyed and self.keys_apart()),
            f"the deployment's key is given to {k8s.name(job)}",
        )

    def _changed(self, resource: Resource, event: str, obj: "Json", by: str) -> None:
        if resource is SECRETS:
            self._words |= _words(obj)
        if event == "DELETED" or resource is LEASES or resource is SECRETS:
            return
        if by.startswith("op"):
            self.shows_in(f"{resource.kind} {k8s.name(obj)}", obj)
        if resource is ENDPOINT_SLICES and by.startswith("op"):
            self._slice(obj)
        if resource is SLURM_JOBS and event == "ADDED" and by.startswith("op"):
            self._made(obj)
        if resource is PODS and event == "ADDED":
            self._kept(obj, "pod")
        if resource is DEPLOYMENTS and event == "ADDED":
            self._kept(obj, "Deployment")

    def _slice(self, obj: "Json") -> None:
        """What a slice says of a worker's key is the key that its engine wants."""
        digest = self._kept(obj, "slice")
        place = str(obj["endpoints"][0]["addresses"][0]), int(obj["ports"][0]["port"])
        engine = self._machines.listening.get(place)
        owner = self._api.get(SLURM_JOBS, k8s.namespace(obj), k8s.name(obj))
        if engine is None or owner is None or engine.job_name != owner["spec"]["jobName"]:
            return
        deployment = k8s.labels(obj).get(names.LABEL_DEPLOYMENT, "")
        held = self._api.get(SECRETS, k8s.namespace(obj), names.worker_keys_secret(deployment))
        if held is None or not self._of_today(owner):
            return
        said = "" if digest is None else k8s.dig(held, "data", digest)
        wanted = _encoded(engine.api_key) if engine.api_key else ""
        self._require(
            said == wanted, f"slice {k8s.name(obj)} says key {digest}, which opens another engine"
        )

    def _kept(self, obj: "Json", what: str) -> str | None:
        """The key that an object names is in the Secret of worker keys."""
        digest = k8s.labels(obj).get(names.LABEL_KEY)
        deployment = k8s.labels(obj).get(names.LABEL_DEPLOYMENT, "")
        place = k8s.namespace(obj), deployment
        if digest is None or self._api.get(MODEL_DEPLOYMENTS, *place) is None:
            return digest
        if not self._of_today(obj):
            return digest  # of an older object of the name, with which its Secrets went
        held = self._api.get(SECRETS, place[0], names.worker_keys_secret(deployment))
        found = k8s.dig(held, "data", digest)
        self._require(
            isinstance(found, str), f"{what} {k8s.name(obj)} names key {digest}, which is not kept"
        )
        return digest

    def _of_today(self, obj: "Json") -> bool:
        """Whether an object's owners lead to one that still exists."""
        owners = k8s.owner_uids(obj)
        above = [o for r in (SLURM_JOBS, DEPLOYMENTS) for o in self._api.all(r)]
        parents = [o for o in above if k8s.uid(o) in owners]
        if parents:
            return all(self._of_today(parent) for parent in parents)
        return any(map(self._api.exists, owners))


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _words(secret: "Json") -> set[str]:
    """What is written in a Secret, encoded and clear."""
    data = {str(value) for value in (secret.get("data") or {}).values()}
    clear = {base64.b64decode(value).decode(errors="replace") for value in data}
    words = data | clear | {str(value) for value in (secret.get("stringData") or {}).values()}
    return words - {""}
