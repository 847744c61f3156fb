"""The world of `bench.scale`: etcd and a kube-apiserver, the operator's own process, no nodes.

What pods need is simulated by a process beside it (`bench.simulated_pods`), so that thousands of
deployments fit on one machine and what is measured is the operator.
"""

import contextlib
import http.client
import json
import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from playground.cluster import Playground
from playground.errors import PlaygroundError

Json = dict[str, Any]
NAMESPACE = "default"
PATHS = {
    "ModelDeployment": f"/apis/isthmus.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments",
    "Deployment": f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
    "Service": f"/api/v1/namespaces/{NAMESPACE}/services",
    "ControllerRevision": f"/apis/apps/v1/namespaces/{NAMESPACE}/controllerrevisions",
    "EndpointSlice": f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices",
    "Pod": f"/api/v1/namespaces/{NAMESPACE}/pods",
    "SlurmJob": f"/apis/isthmus.dev/v1alpha1/namespaces/{NAMESPACE}/slurmjobs",
}
MERGE_PATCH = "application/merge-patch+json"
LABEL = "isthmus.dev/modeldeployment"

_REQUESTS = re.compile(r"^apiserver_request_total\{(?P<labels>.*)\} (?P<count>[0-9.e+]+)$", re.M)
_WRITES = re.compile(r'verb="(POST|PUT|PATCH|APPLY|DELETE|DELETECOLLECTION)"')
_LEASES = re.compile(r'resource="leases"')


class Client:
    """Calls on one kept connection, as a controller makes them; one for each thread."""

    def __init__(self, *, server: str, authority: Path, token: str) -> None:
        """Connect at the first call."""
        host, _, port = server.removeprefix("https://").partition(":")
        context = ssl.create_default_context(cafile=str(authority))
        self._connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._used = 0.0

    @classmethod
    def administrator(cls, playground: Playground) -> "Client":
        """The administrator of a playground."""
        config = json.loads(playground.kubernetes.kubeconfig.read_text(encoding="utf-8"))
        return cls(
            server=playground.kubernetes.server,
            authority=playground.kubernetes.root / "pki" / "apiserver.crt",
            token=config["users"][0]["user"]["token"],
        )

    def call(self, method: str, path: str, body: object = None, *, kind: str = "") -> Json:
        """One call; raises PlaygroundError for an answer that is not a success."""
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = kind or "application/json"
        text = None if body is None else json.dumps(body)
        self._renew()
        self._connection.request(method, path, body=text, headers=headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status > 299:
            said = content.decode(errors="replace")[:500]
            raise PlaygroundError(f"{method} {path}: {answer.status} {said}")
        found: Json = json.loads(content)
        return found

    def text(self, path: str) -> str:
        """One answer that is not JSON, such as the metrics."""
        self._renew()
        self._connection.request("GET", path, headers=self._headers)
        return self._connection.getresponse().read().decode()

    def events(self, path: str, *, since: str) -> Iterator[Json]:
        """Follow a watch until its end."""
        mark = "&" if "?" in path else "?"
        query = f"{mark}watch=1&resourceVersion={since}&timeoutSeconds=3600"
        self._connection.request("GET", path + query, headers=self._headers)
        answer = self._connection.getresponse()
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException, AttributeError):
            while line := answer.readline():
                yield json.loads(line)

    def _renew(self) -> None:
        """The API server closes a connection that was idle for a minute and a half."""
        now = time.monotonic()
        if now - self._used > 30:
            self._connection.close()
        self._used = now

    def close(self) -> None:
        """End the connection, and a watch on it."""
        if self._connection.sock is not None:
            with contextlib.suppress(OSError):
                self._connection.sock.shutdown(2)
        self._connection.close()


def deployment_of(obj: Json) -> str:
    """The ModelDeployment that an object belongs to, its own name if it says none."""
    name: str = obj["metadata"].get("labels", {}).get(LABEL) or obj["metadata"]["name"]
    return name


class Seen:
    """When each of many things happened to objects of a kind, by the clock of this process.

    Attributes:
        at: what `what` returned to the moment of the first such event.
    """

    def __init__(
        self,
        playground: Playground,
        *,
        kind: str,
        what: Callable[[Json], str] = deployment_of,
    ) -> None:
        """Begin to watch; `what` names what an object shows, "" for nothing of interest."""
        self.at: dict[str, float] = {}
        self._what = what
        self._client = Client.administrator(playground)
        version = self._client.call("GET", PATHS[kind] + "?limit=1")["metadata"]["resourceVersion"]
        self._thread = threading.Thread(
            target=self._follow, args=(PATHS[kind], version), daemon=True
        )
        self._thread.start()

    def wait(self, condition: Callable[[], bool], *, what: str, timeout: float = 300.0) -> None:
        """Wait until something is true of what was seen; raises PlaygroundError."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise PlaygroundError(f"waited {timeout:.0f} s for: {what}")
            time.sleep(0.005)

    def close(self) -> None:
        """Stop watching."""
        self._client.close()
        self._thread.join(timeout=5)

    def _follow(self, path: str, version: str) -> None:
        for event in self._client.events(path, since=version):
            now = time.monotonic()
            if event["type"] == "ERROR":
                return
            if event["type"] != "DELETED" and (found := self._what(event["object"])):
                self.at.setdefault(found, now)


def model_deployment(name: str, *, replicas: int = 1) -> Json:
    """A ModelDeployment with one pool on Kubernetes, of the size that users write."""
    engine = {"image": "localhost/vllm-simulator:1", "args": ["--max-model-len=8192"]}
    return {
        "apiVersion": "isthmus.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {
                "source": "hf://meta-llama/Llama-3.1-8B-Instruct",
                "servedNames": ["llama"],
            },
            "replicas": replicas,
            "pools": [{"name": "k8s", "engine": engine, "kubernetes": {}}],
            "endpoint": {"type": "Service"},
        },
    }


def writes(client: Client) -> int:
    """Requests so far that changed anything but Leases, by anybody."""
    return sum(
        int(float(match["count"]))
        for match in _REQUESTS.finditer(client.text("/metrics"))
        if _WRITES.search(match["labels"]) and not _LEASES.search(match["labels"])
    )


def prioritise(playground: Playground, nice: int) -> None:
    """Put all daemons of a playground, and this process, above the rest of a busy machine.

    The kernel weighs sessions (autogroups) against each other; a process's own nice value counts
    only within its session.
    """
    if not nice:
        return
    components = playground.components
    pids = [process.pid for n in components.names() if (process := components.process(n))]
    for pid in (*pids, os.getpid()):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice), encoding="ascii")
