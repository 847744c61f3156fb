"""An API server in memory, as little of one as both trees need: the simulation's is this tree's."""

import copy
from typing import Any

from isthmus.errors import ApiNotFoundError
from tests.before.findings import any_of, built


def key(kind: str, namespace: str, name: str) -> Any:
    """By which the parts of the operator name an object."""
    return any_of("isthmus.apiserver.key:Key", "isthmus.reconcile.queue:Key")(kind, namespace, name)


class Nothing:
    """Parts of the operator that a question has no use for."""

    def watch(self, *_: Any, **__: Any) -> None: ...

    def load(self, *_: Any) -> None: ...

    def emit(self, *_: Any, **__: Any) -> None: ...

    def check(self, *_: Any) -> None: ...

    def get(self, *_: Any) -> None: ...

    def stop(self, *_: Any) -> None: ...

    def keys(self) -> tuple[()]:
        return ()

    async def settled(self, desired: Any, **_: Any) -> tuple[Any, str]:
        return desired, ""

    async def clients_problem(self, *_: Any) -> None: ...

    async def forget_unused(self, *_: Any) -> None: ...

    def in_use(self, *_: Any) -> bool:
        return False


class MemoryApi:
    """Objects by resource, namespace and name; `store` knows each of them at once.

    Attributes:
        refused: what is raised instead of a creation of such a resource and a name with this part.
    """

    def __init__(self, *watched: Any) -> None:
        self.store = built(
            "isthmus.apiserver.store:Store", "isthmus.reconcile.store:Store", watched=watched
        )
        self.objects: dict[tuple[Any, str, str], dict[str, Any]] = {}
        self.refused: dict[tuple[Any, str], Exception] = {}
        self._version = 0

    def put(self, resource: Any, obj: Any) -> Any:
        """Store an object as it is, with what an API server adds."""
        self._version += 1
        made = copy.deepcopy(dict(obj))
        meta = made["metadata"]
        meta.setdefault("uid", f"uid-{meta['name']}")
        meta.setdefault("creationTimestamp", "2026-11-30T12:00:00Z")
        meta["resourceVersion"] = str(self._version)
        self.objects[resource, meta["namespace"], meta["name"]] = made
        self.store.put(resource, copy.deepcopy(made))
        return copy.deepcopy(made)

    def names(self, resource: Any) -> list[str]:
        """Of the objects of a kind."""
        return [name for kind, _, name in self.objects if kind == resource]

    async def get(self, resource: Any, *, namespace: str, name: str) -> Any:
        return copy.deepcopy(self.objects.get((resource, namespace, name)))

    async def create(self, resource: Any, obj: Any) -> Any:
        name = obj["metadata"]["name"]
        for (kind, part), error in self.refused.items():
            if kind == resource and part in name:
                raise error
        return self.put(resource, obj)

    async def apply(self, resource: Any, obj: Any, **_: Any) -> Any:
        return await self.create(resource, obj)

    async def patch(
        self, resource: Any, *, namespace: str, name: str, patch: Any, subresource: str = ""
    ) -> Any:
        found = self.objects.get((resource, namespace, name))
        if found is None:
            raise ApiNotFoundError(f"patch {name}: 404", status=404)
        return self.put(resource, _merged(found, patch))


def _merged(found: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    base = dict(found) if isinstance(found, dict) else {}
    for key, value in patch.items():
        if value is None:
            base.pop(key, None)
        else:
            base[key] = _merged(base.get(key), value)
    return base
