"""The write guard: no mutation without a valid lease, and every answer goes into the store.

Apart from the client, because tests and the command line write without leading, and because this
is the one place that must not be forgotten: reconcilers are handed nothing but a gated server.
"""

from collections.abc import Sequence
from typing import Protocol

from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import Object, ObjectList
from isthmus.apiserver.resources import Resource
from isthmus.errors import ApiNotFoundError


class Gate(Protocol):
    """Who says whether a mutation may be sent now."""

    def check(self) -> None:
        """Return if so.

        Raises:
            NotLeaderError: the lease is not ours, or not provably ours any more.
        """


class OpenGate:
    """The gate of an operator that runs without leader election: always open."""

    def check(self) -> None:
        """Return."""


class WriteObserver(Protocol):
    """Who is told what was written: the store, so that the next pass reads our own writes."""

    def on_written(self, resource: Resource, obj: Object) -> None:
        """Take in an object as the API server stored it."""

    def on_deleted(
        self, resource: Resource, obj: Object | None, *, namespace: str, name: str, uid: str
    ) -> None:
        """Take in a deletion; `obj` is what still exists of it, None if it is gone."""


class GatedApiServer:
    """An `ApiServer` that checks the gate right before each mutation and reports its answer."""

    def __init__(self, inner: ApiServer, *, gate: Gate, observer: WriteObserver) -> None:
        """Wrap `inner`."""
        self._inner = inner
        self._gate = gate
        self._observer = observer

    async def get(self, resource: Resource, *, namespace: str, name: str) -> Object | None:
        """See `ApiServer`."""
        return await self._inner.get(resource, namespace=namespace, name=name)

    async def list(
        self,
        resource: Resource,
        *,
        label_selector: str = "",
        namespaces: Sequence[str] | None = None,
    ) -> ObjectList:
        """See `ApiServer`."""
        return await self._inner.list(
            resource, label_selector=label_selector, namespaces=namespaces
        )

    async def create(self, resource: Resource, obj: Object) -> Object:
        """See `ApiServer`. Raises `NotLeaderError` if the gate is shut."""
        self._gate.check()
        return self._written(resource, await self._inner.create(resource, obj))

    async def apply(self, resource: Resource, obj: Object, *, dry_run: bool = False) -> Object:
        """See `ApiServer`. Raises `NotLeaderError` if the gate is shut."""
        self._gate.check()
        answer = await self._inner.apply(resource, obj, dry_run=dry_run)
        return answer if dry_run else self._written(resource, answer)

    async def patch(
        self,
        resource: Resource,
        *,
        namespace: str,
        name: str,
        patch: Object,
        subresource: str = "",
    ) -> Object:
        """See `ApiServer`. Raises `NotLeaderError` if the gate is shut."""
        self._gate.check()
        answer = await self._inner.patch(
            resource, namespace=namespace, name=name, patch=patch, subresource=subresource
        )
        # The answer for /scale is a Scale; for /status it is the object itself.
        return answer if subresource == "scale" else self._written(resource, answer)

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
        """See `ApiServer`. Raises `NotLeaderError` if the gate is shut."""
        self._gate.check()
        try:
            left = await self._inner.delete(
                resource,
                namespace=namespace,
                name=name,
                uid=uid,
                propagation=propagation,
                grace_seconds=grace_seconds,
            )
        except ApiNotFoundError as error:
            # The deletion that we were told nothing of: without this the stale entry would stay,
            # and be deleted again in every pass, until the next relist.
            if error.reason == "NotFound":
                self._observer.on_deleted(resource, None, namespace=namespace, name=name, uid=uid)
            raise
        self._observer.on_deleted(resource, left, namespace=namespace, name=name, uid=uid)
        return left

    def _written(self, resource: Resource, obj: Object) -> Object:
        self._observer.on_written(resource, obj)
        return obj
