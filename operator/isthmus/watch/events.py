"""The event handlers: a watch event becomes a store update, and nothing else happens here.

Handlers do no input or output, return nothing (kopf would write a returned value into the object's
status) and never patch. Queue keys follow from the store's own change notifications.
"""

from collections.abc import Callable, Sequence
from typing import cast

import kopf

from isthmus.apiserver import objects as k8s
from isthmus.apiserver.objects import Object
from isthmus.apiserver.resources import Resource
from isthmus.apiserver.store import Store


def register_handlers(
    *,
    registry: kopf.OperatorRegistry,
    store: Store,
    watched: Sequence[tuple[Resource, str]],
    on_listed: Callable[[], None],
) -> None:
    """Register one handler per resource.

    Args:
        registry: an own registry, never kopf's global one.
        store: where the objects go.
        watched: (resource, label selector) pairs; the selectors are applied by the server.
        on_listed: called for each object that comes from a list instead of a watch: a hint that
            deletions may have been missed, since kopf does not tell them.
    """
    for resource, _ in watched:
        _register(registry, store, resource, on_listed)


def take_in(store: Store, resource: Resource, event_type: str | None, obj: Object) -> None:
    """Apply one watch event to the store.

    Args:
        store: where the object goes.
        resource: its resource.
        event_type: ADDED, MODIFIED or DELETED; None for an object that came from a list.
        obj: the object, for DELETED its last state with the revision of the deletion.
    """
    if event_type == "DELETED":
        store.remove(
            resource, k8s.namespace(obj), k8s.name(obj), k8s.uid(obj), k8s.resource_version(obj)
        )
    else:
        store.put(resource, obj)


def _register(
    registry: kopf.OperatorRegistry,
    store: Store,
    resource: Resource,
    on_listed: Callable[[], None],
) -> None:
    @kopf.on.event(
        group=resource.group,
        version=resource.version,
        plural=resource.plural,
        registry=registry,
        id=f"observe-{resource.plural}",
    )
    async def observe(event: kopf.RawEvent, **_: object) -> None:
        take_in(store, resource, event["type"], cast(Object, event["object"]))
        if event["type"] is None:
            on_listed()
