"""How the sidecar reaches the API server: plain httpx, for two requests it needs no more.

Every read has a time limit, and TCP itself finds a server that vanished: without that a watch would
be silent for as long as it may be quiet.
"""

import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx

from isthmus.api.ip_family import host_port
from isthmus.apiserver.objects import Object, dig, number
from isthmus.errors import SettingsError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_SERVICE_LABEL = "kubernetes.io/service-name"
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


class WatchExpiredError(Exception):
    """The revision to watch from is gone: list again."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API server is.

    Attributes:
        url: its address.
        token: the current bearer token, read again for each request; "" for none.
        verify: certificates.
    """

    url: str
    token: Callable[[], str]
    verify: ssl.SSLContext | bool


def pod_access(environ: Mapping[str, str] | None = None, *, account: Path = ACCOUNT) -> Access:
    """The API server as a pod knows it.

    Raises:
        SettingsError: this is no pod, or it has no service account.
    """
    environ = os.environ if environ is None else environ
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not (account / "token").exists():
        raise SettingsError(
            "This is no pod with a service account: give --kubeconfig, or run it as a pod."
        )
    token = account / "token"
    return Access(
        url=f"https://{host_port(host, port or 443)}",
        token=lambda: token.read_text(encoding="utf-8").strip(),
        verify=ssl.create_default_context(cafile=str(account / "ca.crt")),
    )


class Slices:
    """The EndpointSlices of one Service."""

    def __init__(self, access: Access, *, namespace: str, service: str, timeout: float) -> None:
        """Prepare; `timeout` is that of one request and of a silent connection, in seconds."""
        self._access = access
        self._namespace = namespace
        self._path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        self._selector = f"{_SERVICE_LABEL}={service}"
        self._timeout = timeout
        self._client = httpx.AsyncClient(
            base_url=access.url,
            timeout=timeout,
            trust_env=False,
            transport=httpx.AsyncHTTPTransport(
                verify=access.verify, socket_options=list(_KEEPALIVE)
            ),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def list(self) -> tuple[list[Object], str]:
        """All slices and the revision to watch from.

        Raises:
            httpx.HTTPError: no answer, or none of success.
            ValueError: an answer that cannot be read.
        """
        answer = await self._client.get(
            self._path, params={"labelSelector": self._selector}, headers=self._headers()
        )
        found = answer.raise_for_status().json()
        items = dig(found, "items")
        version = dig(found, "metadata", "resourceVersion")
        if not isinstance(items, list) or not isinstance(version, str):
            raise ValueError("the answer is no list of EndpointSlices")
        return cast("list[Object]", items), version

    async def watch(self, version: str, *, seconds: int) -> AsyncIterator[tuple[str, Object]]:
        """Events (ADDED, MODIFIED, DELETED, BOOKMARK) for that many seconds.

        Raises:
            WatchExpiredError: the revision is too old.
            httpx.HTTPError: the connection broke.
            ValueError: an event that cannot be read.
        """
        params = {
            "labelSelector": self._selector,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        limits = httpx.Timeout(self._timeout, read=seconds + self._timeout)
        async with self._client.stream(
            "GET", self._path, params=params, headers=self._headers(), timeout=limits
        ) as answer:
            if answer.status_code == 410:
                raise WatchExpiredError
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if not line.strip():
                    continue
                event = json.loads(line)
                kind, obj = dig(event, "type"), dig(event, "object")
                if kind == "ERROR":
                    if number(dig(obj, "code")) == 410:
                        raise WatchExpiredError
                    raise ValueError(f"the watch ended: {dig(obj, 'message')}")
                yield str(kind), cast("Object", obj)

    async def secret(self, name: str) -> Object | None:
        """One Secret of the namespace, None if there is none.

        Raises:
            httpx.HTTPError: no answer, or none of success.
            ValueError: an answer that cannot be read.
        """
        path = f"/api/v1/namespaces/{self._namespace}/secrets/{name}"
        answer = await self._client.get(path, headers=self._headers())
        if answer.status_code == 404:
            return None
        return cast("Object", answer.raise_for_status().json())

    def _headers(self) -> dict[str, str]:
        token = self._access.token()
        return {"Authorization": f"Bearer {token}"} if token else {}
