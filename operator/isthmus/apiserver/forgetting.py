"""What is remembered of an object in memory goes when the object goes.

Apart, because it is a rule for every such memory: a pass that would clean up may never come (an
object whose finalizer somebody took away), and an operator runs for months.
"""

from collections.abc import Callable

from isthmus.apiserver.objects import Object, uid
from isthmus.apiserver.resources import Resource
from isthmus.apiserver.store import Store


def when_gone(store: Store, resource: Resource, forget: Callable[[Object], None]) -> None:
    """Have `forget` called with each object of a resource that is gone, or has become another."""

    def changed(kind: Resource, old: Object | None, new: Object | None) -> None:
        if kind == resource and old is not None and (new is None or uid(new) != uid(old)):
            forget(old)

    store.on_change(changed)
