"""The API server as the tests' administrator sees it: by HTTP, on one kept connection per thread.

Apart from kubectl, whose start costs thirty times as much processor time as a request: a test looks
many times a second. Where kubectl is the subject, `World.kubectl` runs it.
"""

import base64
import contextlib
import http.client
import json
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playground.errors import PlaygroundError

Json = dict[str, Any]
MANAGER = "isthmus-tests"
TIMEOUT = 10.0
"""Seconds for one request."""


class Unavailable(PlaygroundError):
    """The API server did not answer, or not now; worth another try."""


class Refused(PlaygroundError):
    """The API server said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Kind:
    """Where objects of a kind are: `group` is the path up to the version."""

    group: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """Of all in a namespace, or of one of them."""
        place = [self.group]
        place += [f"namespaces/{namespace}"] if self.namespaced else []
        return "/".join([*place, self.plural, *filter(None, (name, subresource))])


_ISTHMUS = "/apis/isthmus.dev/v1alpha1"
KINDS: Mapping[str, Kind] = {
    "ModelDeployment": Kind(_ISTHMUS, "modeldeployments"),
    "SlurmJob": Kind(_ISTHMUS, "slurmjobs"),
    "SlurmCluster": Kind(_ISTHMUS, "slurmclusters"),
    "Pod": Kind("/api/v1", "pods"),
    "Service": Kind("/api/v1", "services"),
    "Secret": Kind("/api/v1", "secrets"),
    "ConfigMap": Kind("/api/v1", "configmaps"),
    "Event": Kind("/api/v1", "events"),
    "Namespace": Kind("/api/v1", "namespaces", namespaced=False),
    "Deployment": Kind("/apis/apps/v1", "deployments"),
    "ReplicaSet": Kind("/apis/apps/v1", "replicasets"),
    "ControllerRevision": Kind("/apis/apps/v1", "controllerrevisions"),
    "EndpointSlice": Kind("/apis/discovery.k8s.io/v1", "endpointslices"),
    "Lease": Kind("/apis/coordination.k8s.io/v1", "leases"),
}
_SHORT = {"mdep": "ModelDeployment", "sj": "SlurmJob", "slc": "SlurmCluster"}
_NAMES = {word: kind for name, kind in KINDS.items() for word in (name.lower(), kind.plural)}


def kind_of(word: str) -> Kind:
    """The kind that kubectl would take a word for: ModelDeployment, mdep, pods, secret."""
    return KINDS[_SHORT[word]] if word in _SHORT else _NAMES[word.lower()]


class _Connection(http.client.HTTPSConnection):
    """One that is closed with the thread that has it."""

    def __del__(self) -> None:
        self.close()


class Api:
    """One API server."""

    def __init__(self, kubeconfig: Path, *, user: str = "") -> None:
        """Read where it is and who we are; nothing is asked yet.

        Args:
            kubeconfig: of the administrator, in JSON.
            user: whom the administrator shall be taken for, such as an account of a namespace.
        """
        config = json.loads(kubeconfig.read_text(encoding="utf-8"))
        cluster, admin = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)
        self._host, _, port = cluster["server"].removeprefix("https://").partition(":")
        self._port = int(port)
        self._headers = {"Authorization": f"Bearer {admin['token']}"}
        if user:
            self._headers["Impersonate-User"] = user
        self._kept = threading.local()

    def request(
        self, method: str, path: str, body: object = None, *, kind: str = "application/json"
    ) -> Json:
        """One call of the API; returns what it said.

        Raises:
            Unavailable: no answer, or one that may be another one soon (429 for long, 5xx).
            Refused: any other answer over 299.
        """
        text = None if body is None else json.dumps(body)
        headers = self._headers if text is None else {**self._headers, "Content-Type": kind}
        end = time.monotonic() + TIMEOUT
        status, content = self._answer(method, path, text, headers)
        while status == 429 and time.monotonic() < end:  # nothing was done; as kubectl does
            time.sleep(0.2)
            status, content = self._answer(method, path, text, headers)
        if status > 299:
            what = f"{method} {path}: {status} {_words(content)}"
            raise Unavailable(what) if status == 429 or status >= 500 else Refused(status, what)
        said: Json = json.loads(content)
        return said

    def get(self, path: str) -> Json:
        """One object, {} if there is none."""
        try:
            return self.request("GET", path)
        except Refused as error:
            if error.status == 404:
                return {}
            raise

    def patch(self, path: str, body: object, *, kind: str = "merge") -> Json:
        """Change an object; `kind` is that of the patch: merge, json or apply."""
        kinds = {"apply": "application/apply-patch+yaml"}  # JSON is YAML
        kind = kinds.get(kind, f"application/{kind}-patch+json")
        return self.request("PATCH", path, body, kind=kind)

    def apply(self, path: str, obj: Json) -> Json:
        """Server-side apply: fields that were applied before and are gone, go."""
        query = f"fieldManager={MANAGER}&force=true&fieldValidation=Strict"
        return self.patch(f"{path}?{query}", obj, kind="apply")

    def delete(self, path: str) -> bool:
        """Ask for the end of an object; False if there is none."""
        try:
            self.request("DELETE", path, {"propagationPolicy": "Background"})
        except Refused as error:
            if error.status == 404:
                return False
            raise
        return True

    def _answer(
        self, method: str, path: str, text: str | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        kept: _Connection | None = getattr(self._kept, "connection", None)
        if kept is not None:
            # The server may have closed it since. Asked twice, a POST would make two.
            if method != "POST":
                with contextlib.suppress(OSError, http.client.HTTPException):
                    return _ask(kept, method, path, text, headers)
            self._forget(kept)
        fresh = _Connection(self._host, self._port, context=self._tls, timeout=TIMEOUT)
        self._kept.connection = fresh
        try:
            return _ask(fresh, method, path, text, headers)
        except (OSError, http.client.HTTPException) as error:
            self._forget(fresh)
            raise Unavailable(f"{method} {path}: {error!r}") from None

    def _forget(self, connection: _Connection) -> None:
        connection.close()
        self._kept.connection = None


def _words(content: bytes) -> str:
    """What an answer over 299 says to people."""
    text = content.decode(errors="replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(text)["message"])
    return text[:500]


def _ask(
    connection: _Connection,
    method: str,
    path: str,
    text: str | None,
    headers: Mapping[str, str],
) -> tuple[int, bytes]:
    connection.request(method, path, body=text, headers=dict(headers))
    answer = connection.getresponse()
    return answer.status, answer.read()
