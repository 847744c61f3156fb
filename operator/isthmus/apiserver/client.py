"""The protocol every writer and reader of the API server uses, and the one that talks HTTP.

Transport, TLS and authentication are those of `kubernetes.aio`; its typed models are not used
(`isthmus.apiserver.objects` says why). Every call has a time limit and every failure is one of
`isthmus.errors`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException

from isthmus import __version__
from isthmus.apiserver import answers
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.connection import Connection
from isthmus.apiserver.objects import Object, ObjectList
from isthmus.apiserver.resources import Resource
from isthmus.errors import ApiNotFoundError, ApiUnavailableError, ApiUnclearError

__all__ = ["FIELD_MANAGER", "ApiServer", "KubernetesApiServer", "ObjectList"]

FIELD_MANAGER = "isthmus"
"""Owner of our fields in `metadata.managedFields`."""

PAGE = 100
"""Objects of one answer to a list; a page as it is read is most of what a list needs in memory."""
_LIST_ATTEMPTS = 3
_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"
_APPLY_PATCH = "application/apply-patch+yaml"


class ApiServer(Protocol):
    """What Isthmus needs of an API server. All calls may raise `ApiError`s.

    Reads raise `ApiUnavailableError` when there is no answer; writes raise `ApiUnclearError` when
    they may have been committed all the same.
    """

    async def get(self, resource: Resource, *, namespace: str, name: str) -> Object | None:
        """Return the object, None if it does not exist."""

    async def list(
        self,
        resource: Resource,
        *,
        label_selector: str = "",
        namespaces: Sequence[str] | None = None,
    ) -> ObjectList:
        """Return all objects of `namespaces`, None for the whole cluster."""

    async def create(self, resource: Resource, obj: Object) -> Object:
        """Create the object and return it as stored."""

    async def apply(self, resource: Resource, obj: Object, *, dry_run: bool = False) -> Object:
        """Server-side apply as field manager `isthmus`, taking over fields of others."""

    async def patch(
        self,
        resource: Resource,
        *,
        namespace: str,
        name: str,
        patch: Object,
        subresource: str = "",
    ) -> Object:
        """Merge patch. Preconditions are `metadata.resourceVersion` and `metadata.uid` in it."""

    async def delete(
        self,
        resource: Resource,
        *,
        namespace: str,
        name: str,
        uid: str,
        propagation: str = "Background",
        grace_seconds: int | None = None,
    ) -> Object | None:
        """Delete the object with exactly that uid.

        Args:
            resource: its kind.
            namespace: where it is.
            name: its name.
            uid: the deletion fails for any other object of that name.
            propagation: what becomes of what it owns.
            grace_seconds: of a pod; may only shorten what it was given before. None for its own.

        Returns:
            The object if it still exists (finalizers, grace period), None if it is gone.
        """


class KubernetesApiServer:
    """An API server over HTTPS."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        timeout: float,
        connection: Connection | None = None,
    ) -> None:
        """Prepare a client; no request is made.

        Args:
            configuration: server, certificates, token.
            timeout: seconds for one request and its answer, a third of them for the connection.
            connection: where to read the configuration again after a 401, None for never.
        """
        self._configuration = configuration
        self._connection = connection
        self._client = ApiClient(configuration)
        self._client.user_agent = f"isthmus/{__version__}"
        self._timeout = aiohttp.ClientTimeout(total=timeout, connect=timeout / 3)

    @classmethod
    async def connect(cls, connection: Connection, *, timeout: float) -> "KubernetesApiServer":
        """Read the configuration and return a client for it.

        Raises:
            SettingsError: there is no usable configuration.
        """
        return cls(await connection.load(), timeout=timeout, connection=connection)

    @property
    def host(self) -> str:
        """The host by which it is reached, without its port."""
        return urlsplit(str(self._configuration.host)).hostname or ""

    async def close(self) -> None:
        """Close the connections."""
        await cast("Callable[[], Awaitable[None]]", self._client.close)()

    async def get(self, resource: Resource, *, namespace: str, name: str) -> Object | None:
        """See `ApiServer`."""
        doing = f"get {resource} {namespace}/{name}"
        try:
            return await self._request("GET", _path(resource, namespace, name), doing=doing)
        except ApiNotFoundError as error:
            # Without a Status it is the resource (its CRD) that does not exist, not the object.
            if error.reason == "NotFound":
                return None
            raise

    async def list(
        self,
        resource: Resource,
        *,
        label_selector: str = "",
        namespaces: Sequence[str] | None = None,
    ) -> ObjectList:
        """See `ApiServer`."""
        if namespaces is None:
            return await self._list(resource, namespace="", label_selector=label_selector)
        lists = [
            await self._list(resource, namespace=namespace, label_selector=label_selector)
            for namespace in namespaces
        ]
        return ObjectList(
            items=tuple(item for each in lists for item in each.items),
            resource_version=min((each.resource_version for each in lists), default=0),
        )

    async def create(self, resource: Resource, obj: Object) -> Object:
        """See `ApiServer`."""
        namespace = k8s.namespace(obj)
        return await self._request(
            "POST",
            _path(resource, namespace),
            doing=f"create {resource} {namespace}/{k8s.name(obj)}",
            query={"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"},
            body=_typed(resource, obj),
            content_type=_JSON,
        )

    async def apply(self, resource: Resource, obj: Object, *, dry_run: bool = False) -> Object:
        """See `ApiServer`."""
        namespace, name = k8s.namespace(obj), k8s.name(obj)
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", "force": "true"}
        return await self._request(
            "PATCH",
            _path(resource, namespace, name),
            doing=f"{'try to ' if dry_run else ''}apply {resource} {namespace}/{name}",
            query=query | ({"dryRun": "All"} if dry_run else {}),
            body=_typed(resource, obj),
            content_type=_APPLY_PATCH,
            writes=not dry_run,
        )

    async def patch(
        self,
        resource: Resource,
        *,
        namespace: str,
        name: str,
        patch: Object,
        subresource: str = "",
    ) -> Object:
        """See `ApiServer`."""
        part = f" {subresource}" if subresource else ""
        return await self._request(
            "PATCH",
            _path(resource, namespace, name, subresource),
            doing=f"patch{part} of {resource} {namespace}/{name}",
            query={"fieldManager": FIELD_MANAGER},
            body=patch,
            content_type=_MERGE_PATCH,
        )

    async def delete(
        self,
        resource: Resource,
        *,
        namespace: str,
        name: str,
        uid: str,
        propagation: str = "Background",
        grace_seconds: int | None = None,
    ) -> Object | None:
        """See `ApiServer`."""
        grace = {} if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        answer = await self._request(
            "DELETE",
            _path(resource, namespace, name),
            doing=f"delete {resource} {namespace}/{name}",
            body={
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "propagationPolicy": propagation,
                "preconditions": {"uid": uid},
                **grace,
            },
            content_type=_JSON,
        )
        return None if k8s.is_gone(answer) else answer

    async def _list(self, resource: Resource, *, namespace: str, label_selector: str) -> ObjectList:
        for attempt in range(_LIST_ATTEMPTS):
            try:
                # The last attempt asks for everything at once, which cannot expire.
                limit = 0 if attempt == _LIST_ATTEMPTS - 1 else PAGE
                return await self._list_once(resource, namespace, label_selector, limit)
            except answers.ListExpiredError:
                continue
        raise ApiUnavailableError(f"list {resource}: expired {_LIST_ATTEMPTS} times")

    async def _list_once(
        self, resource: Resource, namespace: str, label_selector: str, limit: int
    ) -> ObjectList:
        items: list[Object] = []
        query = {"labelSelector": label_selector} if label_selector else {}
        if limit:
            query["limit"] = str(limit)
        while True:
            doing = f"list {resource}" + (f" in {namespace}" if namespace else "")
            page = await self._request("GET", _path(resource, namespace), doing=doing, query=query)
            found = k8s.dig(page, "items", default=[])
            # The items of a list carry neither; everything else that we hold does.
            items.extend(_typed(resource, item) for item in cast("list[Object]", found))
            token = k8s.dig(page, "metadata", "continue")
            if not token:
                version = k8s.number(k8s.dig(page, "metadata", "resourceVersion"))
                return ObjectList(items=tuple(items), resource_version=version or 0)
            query["continue"] = str(token)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        doing: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "",
        writes: bool | None = None,
    ) -> Object:
        writes = method != "GET" if writes is None else writes
        request = _Request(method, path, query or {}, body, content_type)
        try:
            status, data = await self._send(request)
            if status == 401 and await self._reload():
                status, data = await self._send(request)
        except (aiohttp.ClientError, OSError) as error:
            raise answers.error_without_answer(error, doing=doing, writes=writes) from error
        if not 200 <= status < 300:
            raise answers.error_of(status=status, body=data, doing=doing, writes=writes)
        answer = answers.parse(data)
        if answer is None:
            kind = ApiUnclearError if writes else ApiUnavailableError
            raise kind(f"{doing}: {status}, but the answer is no JSON object", status=status)
        return answer

    async def _send(self, request: "_Request") -> tuple[int, bytes]:
        headers = {"Accept": _JSON, "User-Agent": self._client.user_agent}
        if request.content_type:
            headers["Content-Type"] = request.content_type
        await self._client.update_params_for_auth(
            headers, [], ["BearerToken"], request.path, request.method, request.body
        )
        query = f"?{urlencode(request.query)}" if request.query else ""
        answer = await self._client.call_api(
            request.method,
            f"{self._configuration.host}{request.path}{query}",
            headers,
            body=request.body,
            _request_timeout=self._timeout,
        )
        return answer.status, await cast("Callable[[], Awaitable[bytes]]", answer.read)()

    async def _reload(self) -> bool:
        """After a 401: read the token again, for service accounts rotate and plugins' expire."""
        if self._connection is None:
            return False
        before = dict(self._configuration.api_key)
        try:
            await self._connection.load_into(self._configuration)
        except ConfigException:
            return False
        return dict(self._configuration.api_key) != before


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    query: Mapping[str, str]
    body: Object | None
    content_type: str


def _path(resource: Resource, namespace: str = "", name: str = "", subresource: str = "") -> str:
    parts = [resource.root]
    if namespace:
        parts.append(f"namespaces/{quote(namespace, safe='')}")
    parts.append(resource.plural)
    parts.extend(quote(part, safe="") for part in (name, subresource) if part)
    return "/".join(parts)


def _typed(resource: Resource, obj: Object) -> Object:
    return {**obj, "apiVersion": resource.api_version, "kind": resource.kind}
