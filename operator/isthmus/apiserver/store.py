"""What the API server last told us, in memory: the only thing the reconcilers observe.

Three sources feed it: watch events, own writes (so that the next pass reads them) and the periodic
relist. They arrive in any order, so the newer resourceVersion wins, and a deleted uid stays
deleted. Objects come out without `managedFields` and must not be changed: parts are shared.
"""

import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeVar, cast

from isthmus.api.names import LABEL_DEPLOYMENT
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.derived import Derived
from isthmus.apiserver.objects import Object, ObjectList
from isthmus.apiserver.resources import Resource

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_LONGEST_SHARED = 16_384
"""Characters: the scripts in the templates of pods are shared, whole documents are not."""

_Labelled: TypeAlias = tuple[Resource, str, str]
"""What is labelled as of one ModelDeployment: a resource, its namespace and its name."""

_K = TypeVar("_K")
_E = TypeVar("_E")


class StoreKey(NamedTuple):
    """The place of one object in the store."""

    resource: Resource
    namespace: str
    name: str


class _Listed(NamedTuple):
    """The last complete list of a resource: its revision, and where it was taken."""

    revision: int
    namespaces: frozenset[str] | None


Listener = Callable[[Resource, Object | None, Object | None], None]
"""Called with (resource, old, new): old is None for a new object, new is None for a removed one."""


class Store:
    """The objects of the watched resources."""

    def __init__(self, *, watched: Iterable[Resource], tombstones: int = 10_000) -> None:
        """Make an empty store.

        Args:
            watched: it is synced once each of these was listed.
            tombstones: of how many objects of a resource that ended it is known for sure.
        """
        self._most_tombstones = tombstones
        self._watched = frozenset(watched)
        self._listed: dict[Resource, _Listed] = {}
        self._objects: dict[StoreKey, Object] = {}
        self._places: dict[Resource, dict[str, set[str]]] = {}  # → namespace → names
        self._lists: dict[Resource, tuple[Object, ...]] = {}  # of all namespaces, until a change
        self._of_deployment: dict[_Labelled, tuple[Object, ...]] = {}  # until a change
        self._by_owner: dict[tuple[Resource, str], set[StoreKey]] = {}
        self._by_deployment: dict[_Labelled, set[StoreKey]] = {}
        # Of each resource: uid → revision of its end. Many pods that end must not have a late word
        # about a SlurmJob believed, nor a list of one resource that went back one about another.
        self._tombstones: dict[Resource, OrderedDict[str, float]] = {}
        self._listeners: list[Listener] = []
        self.derived = Derived()
        """What was read from the objects, such as their models."""

    @property
    def synced(self) -> bool:
        """Whether each watched resource has been listed completely at least once."""
        return self._watched <= self._listed.keys()

    def is_listed(self, resource: Resource) -> bool:
        """Tell whether a complete list of `resource` has been taken in."""
        return resource in self._listed

    def on_change(self, listener: Listener) -> None:
        """Have `listener` called after every change, in the order of the changes."""
        self._listeners.append(listener)

    def put(self, resource: Resource, obj: Object) -> bool:
        """Take in an object unless something newer is known.

        Returns:
            Whether the store changed.
        """
        if not k8s.name(obj):
            return False
        key = StoreKey(resource, k8s.namespace(obj), k8s.name(obj))
        old = self._objects.get(key)
        version = k8s.resource_version(obj)
        ended = self._ended(resource).get(k8s.uid(obj))
        if ended is not None and (version is None or version <= ended):
            return False
        if old is not None and not _is_newer(obj, old):
            return False
        unknown = old is None or k8s.uid(old) != k8s.uid(obj)
        if unknown and version is not None and self._is_listed_gone(key, version):
            return False
        # A uid seen after its end was not deleted: it had only left the label selector for a while.
        self._ended(resource).pop(k8s.uid(obj), None)
        if old is not None and unknown:
            self._bury(resource, k8s.uid(old), math.inf)
        self._set(key, _lean(obj, old))
        return True

    def remove(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        uid: str,
        resource_version: int | None = None,
    ) -> bool:
        """Take out the object with that uid; an object of the same name but another uid stays.

        Args:
            resource: its resource.
            namespace: its namespace.
            name: its name.
            uid: its uid.
            resource_version: revision of the deletion, None if not known: then nothing that is
                said about this uid later counts.

        Returns:
            Whether the store changed.
        """
        self._bury(resource, uid, math.inf if resource_version is None else resource_version)
        key = StoreKey(resource, namespace, name)
        old = self._objects.get(key)
        if old is None or k8s.uid(old) != uid:
            return False
        stored = k8s.resource_version(old)
        if resource_version is not None and stored is not None and stored > resource_version:
            return False
        self._set(key, None)
        return True

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """Return the object of that name, None if there is none."""
        return self._objects.get(StoreKey(resource, namespace, name))

    def list(self, resource: Resource, namespace: str | None = None) -> tuple[Object, ...]:
        """Return the objects of a resource by (namespace, name), None for all namespaces.

        The list of all namespaces is the same tuple until one of its objects changes.
        """
        if namespace is not None:
            return self._in(resource, namespace)
        known = self._lists.get(resource)
        if known is None:
            places = sorted(self._places.get(resource, ()))
            known = tuple(obj for each in places for obj in self._in(resource, each))
            self._lists[resource] = known
        return known

    def owned(self, resource: Resource, owner_uid: str) -> tuple[Object, ...]:
        """Return the objects that have an owner reference to `owner_uid`, by name."""
        return self._of(self._by_owner.get((resource, owner_uid), ()))

    def labelled(self, resource: Resource, namespace: str, deployment: str) -> tuple[Object, ...]:
        """Return the objects labelled as belonging to that ModelDeployment, by name.

        It is the same tuple until one of its objects changes.
        """
        place = resource, namespace, deployment
        known = self._of_deployment.get(place)
        if known is None:
            known = self._of(self._by_deployment.get(place, ()))
            if known:
                self._of_deployment[place] = known
        return known

    def count_labelled(self, resource: Resource, namespace: str, deployment: str) -> int:
        """Return how many objects are labelled as belonging to that ModelDeployment."""
        return len(self._by_deployment.get((resource, namespace, deployment), ()))

    def replace(
        self,
        resource: Resource,
        listed: ObjectList,
        *,
        namespaces: Sequence[str] | None = None,
    ) -> Sequence[StoreKey]:
        """Take in a complete list: what is absent from it and not newer than it is removed.

        Args:
            resource: what was listed.
            listed: the answer.
            namespaces: where it was listed, None for everywhere; other namespaces are left alone.

        Returns:
            The places that changed or became empty.
        """
        before = self._listed.pop(resource, None)
        if before is not None and listed.resource_version < before.revision:
            # Revisions never go back, unless the API server was restored from a backup: what
            # is stored is newer in number only.
            self._forget(resource)
        present = {StoreKey(resource, k8s.namespace(item), k8s.name(item)) for item in listed.items}
        changed = [
            StoreKey(resource, k8s.namespace(item), k8s.name(item))
            for item in listed.items
            if self.put(resource, item)
        ]
        for namespace, names in list(self._places.get(resource, {}).items()):
            if namespaces is not None and namespace not in namespaces:
                continue
            for name in sorted(names):
                key = StoreKey(resource, namespace, name)
                if key not in present and self._remove_unlisted(key, listed.resource_version):
                    changed.append(key)
        scope = None if namespaces is None else frozenset(namespaces)
        self._listed[resource] = _Listed(listed.resource_version, scope)
        return changed

    def on_written(self, resource: Resource, obj: Object) -> None:
        """Take in the answer to a write, so that the next pass reads it (`WriteObserver`).

        What is not watched is not kept: Secrets above all.
        """
        if resource not in self._watched:
            return  # nobody would tell us of its end
        if k8s.deletion_timestamp(obj) and k8s.is_gone(obj):
            self._bury_and_remove(resource, obj)
        else:
            self.put(resource, obj)

    def on_deleted(
        self, resource: Resource, obj: Object | None, *, namespace: str, name: str, uid: str
    ) -> None:
        """Take in the answer to a delete (`WriteObserver`)."""
        if resource not in self._watched:
            return
        if obj is None:
            self.remove(resource, namespace, name, uid)
        else:
            self.put(resource, obj)

    def count(self, resource: Resource) -> int:
        """Return how many objects of a resource are held, for the metrics."""
        return sum(len(names) for names in self._places.get(resource, {}).values())

    def _is_listed_gone(self, key: StoreKey, version: int) -> bool:
        """Tell whether an object we do not know was gone again when everything was listed."""
        listed = self._listed.get(key.resource)
        if listed is None or version > listed.revision:
            return False
        return listed.namespaces is None or key.namespace in listed.namespaces

    def _bury_and_remove(self, resource: Resource, obj: Object) -> None:
        self.remove(
            resource,
            k8s.namespace(obj),
            k8s.name(obj),
            k8s.uid(obj),
            k8s.resource_version(obj),
        )

    def _remove_unlisted(self, key: StoreKey, revision: int) -> bool:
        uid = k8s.uid(self._objects[key])
        return self.remove(key.resource, key.namespace, key.name, uid, revision)

    def _forget(self, resource: Resource) -> None:
        """Drop versions and tombstones of a resource, and keep no object of it."""
        self._tombstones.pop(resource, None)
        for namespace, names in list(self._places.get(resource, {}).items()):
            for name in sorted(names):
                self._set(StoreKey(resource, namespace, name), None)

    def _ended(self, resource: Resource) -> "OrderedDict[str, float]":
        return self._tombstones.setdefault(resource, OrderedDict())

    def _bury(self, resource: Resource, uid: str, revision: float) -> None:
        if not uid:
            return
        ended = self._ended(resource)
        ended[uid] = max(revision, ended.pop(uid, 0.0))
        while len(ended) > self._most_tombstones:
            ended.popitem(last=False)

    def _in(self, resource: Resource, namespace: str) -> tuple[Object, ...]:
        names = sorted(self._places.get(resource, {}).get(namespace, ()))
        return tuple(self._objects[StoreKey(resource, namespace, name)] for name in names)

    def _of(self, keys: Collection[StoreKey]) -> tuple[Object, ...]:
        ordered = sorted(keys, key=lambda key: (key.namespace, key.name))
        return tuple(self._objects[key] for key in ordered)

    def _set(self, key: StoreKey, new: Object | None) -> None:
        old = self._objects.get(key)
        self._lists.pop(key.resource, None)
        if old is not None:
            self._unindex(key, old)
            if new is None or k8s.uid(new) != k8s.uid(old):
                self.derived.forget(old)
        if new is not None:
            self._objects[key] = new
            self._index(key, new)
        for listener in tuple(self._listeners):
            listener(key.resource, old, new)

    def _index(self, key: StoreKey, obj: Object) -> None:
        places = self._places.setdefault(key.resource, {})
        places.setdefault(key.namespace, set()).add(key.name)
        for owner in k8s.owner_uids(obj):
            self._by_owner.setdefault((key.resource, owner), set()).add(key)
        deployment = k8s.labels(obj).get(LABEL_DEPLOYMENT)
        if deployment is not None:
            place = (key.resource, key.namespace, deployment)
            self._by_deployment.setdefault(place, set()).add(key)
            self._of_deployment.pop(place, None)

    def _unindex(self, key: StoreKey, obj: Object) -> None:
        del self._objects[key]
        _discard(self._places[key.resource], key.namespace, key.name)
        for owner in set(k8s.owner_uids(obj)):
            _discard(self._by_owner, (key.resource, owner), key)
        deployment = k8s.labels(obj).get(LABEL_DEPLOYMENT)
        if deployment is not None:
            place = (key.resource, key.namespace, deployment)
            _discard(self._by_deployment, place, key)
            self._of_deployment.pop(place, None)


def _discard(index: dict[_K, set[_E]], place: _K, entry: _E) -> None:
    """Take `entry` from the set at `place` and drop a set that became empty."""
    entries = index[place]
    entries.discard(entry)
    if not entries:
        del index[place]


def _is_newer(new: Object, old: Object) -> bool:
    theirs, ours = k8s.resource_version(new), k8s.resource_version(old)
    if theirs is None or ours is None:
        return _lean(new) != old
    return theirs > ours


def _lean(obj: Object, old: Object | None = None) -> Object:
    """Copy without what is of no use to us, and with one copy of each text that is in many objects.

    What is as in `old`, the version before, is taken from there.

    `managedFields` are often half of an object, and so is the annotation that repeats what was
    applied. Every object that was parsed for itself has its own copies of "metadata", "name" and
    all other keys: shared, the same objects take half of the memory (measured).
    """
    meta = {key: value for key, value in k8s.metadata(obj).items() if key != "managedFields"}
    notes = meta.get("annotations")
    if isinstance(notes, Mapping) and _LAST_APPLIED in notes:
        meta["annotations"] = {key: notes[key] for key in notes if key != _LAST_APPLIED}
    return cast(Object, _shared({**obj, "metadata": meta}, old))


def _shared(value: object, old: object = None) -> object:
    if isinstance(value, str):
        return sys.intern(value) if len(value) <= _LONGEST_SHARED else value
    if isinstance(value, list):
        return [_shared(item) for item in value]
    if type(value) is dict or isinstance(value, Mapping):
        before = old if type(old) is dict else {}
        return {
            sys.intern(str(key)): before[key]
            if key in before and before[key] == item
            else _shared(item, before.get(key))
            for key, item in value.items()
        }
    return value
