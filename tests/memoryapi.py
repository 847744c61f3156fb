"""The API server as kopf's own requests see it, in memory: no socket, so that it runs on the
virtual clock.

kopf itself is the real one. What it is given is a session that answers from the simulation's
objects, by its public way to bring one's own session.
"""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kopf

from isthmus.apiserver.resources import LEASES, WATCHED, Resource
from tests.simulation.apiserver import ApiSimulator, Json, selected

_NAMESPACES = Resource("", "v1", "namespaces", "Namespace")
_SERVED = (*dict(WATCHED), _NAMESPACES, LEASES)


class MemorySession:
    """In place of an `aiohttp.ClientSession`."""

    def __init__(self, api: ApiSimulator) -> None:
        self._api = api
        self.headers: dict[str, str] = {}
        self.closed = False
        self.status = 200
        """Of every answer from now on."""
        self.streams: set[_Stream] = set()
        """Open watches."""

    async def request(self, *, method: str, url: str, **_: object) -> "_Answer":
        assert method == "get", "kopf only reads"
        parts = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if self.status != 200:
            return _Answer(self.status, {"kind": "Status", "message": "as the test says"})
        found = _discovered(parts.path)
        if found is not None:
            return _Answer(200, found)
        resource = next(r for r in _SERVED if parts.path.startswith(f"{r.root}/{r.plural}"))
        selector = query.get("labelSelector", "")
        if "watch" in query:
            return _Answer(200, None, _Stream(self, resource, selector))
        listed = self._api.list(resource, label_selector=selector, namespaces=None)
        items = [copy.deepcopy(dict(obj)) for obj in listed.items]
        return _Answer(200, {"metadata": {"resourceVersion": "1"}, "items": items})

    async def close(self) -> None:
        self.closed = True

    def refuse(self, status: int) -> None:
        """Answer with this status, and end what is open."""
        self.status = status
        for stream in list(self.streams):
            stream.end()

    def listen(self, listener: Callable[[Resource, str, Json, str], None]) -> None:
        self._api.listeners.append(listener)

    def unlisten(self, listener: Callable[[Resource, str, Json, str], None]) -> None:
        self._api.listeners.remove(listener)


def connection_info(session: MemorySession) -> Any:
    """What a login handler of kopf's returns for it."""
    held: Any = session
    return kopf.AiohttpSession(server="http://in-memory", aiohttp_session=held)


def _discovered(path: str) -> Json | None:
    if path == "/api":
        return {"versions": ["v1"]}
    if path == "/apis":
        groups = sorted({(r.group, r.version) for r in _SERVED if r.group})
        return {
            "groups": [
                {"name": g, "versions": [{"version": v}], "preferredVersion": {"version": v}}
                for g, v in groups
            ]
        }
    resources = [
        {
            "name": resource.plural,
            "kind": resource.kind,
            "singularName": resource.kind.lower(),
            "namespaced": resource is not _NAMESPACES,
            "verbs": ["list", "watch", "patch"],
        }
        for resource in _SERVED
        if resource.root == path
    ]
    return {"resources": resources} if resources else None


class _Answer:
    """In place of an `aiohttp.ClientResponse`."""

    def __init__(self, status: int, body: Json | None, content: "_Stream | None" = None) -> None:
        self.status, self.headers = status, dict[str, str]()
        self.content = content
        self._body = body

    async def __aenter__(self) -> "_Answer":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def json(self) -> Any:
        return self._body

    def raise_for_status(self) -> None:
        import aiohttp

        info: Any = None
        raise aiohttp.ClientResponseError(info, (), status=self.status)

    def close(self) -> None:
        if self.content is not None:
            self.content.end()


class _Stream:
    """The body of a watch: a line for each change, until somebody ends it."""

    def __init__(self, session: MemorySession, resource: Resource, selector: str) -> None:
        self._session, self._resource, self._selector = session, resource, selector
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        session.listen(self._changed)
        session.streams.add(self)

    def end(self) -> None:
        if self in self._session.streams:
            self._session.streams.remove(self)
            self._session.unlisten(self._changed)
            self._lines.put_nowait(b"")

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        while line := await self._lines.get():
            yield line

    def _changed(self, resource: Resource, event: str, obj: Json, by: str) -> None:
        if resource == self._resource and selected(obj, self._selector):
            self._lines.put_nowait(json.dumps({"type": event, "object": obj}).encode() + b"\n")
