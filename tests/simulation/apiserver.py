"""The simulated API server: what etcd would hold, and the rules by which it changes.

Objects are never changed in place, so whoever was handed one may keep it. Nothing here waits or
fails by chance; the way from an operator to it, with its delays and faults, is `apiedge`.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from isthmus.api.times import rfc3339
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.objects import ObjectList
from isthmus.apiserver.resources import Resource
from isthmus.errors import (
    ApiAlreadyExistsError,
    ApiConflictError,
    ApiError,
    ApiInvalidError,
    ApiNotFoundError,
)
from tests.simulation.statuses import refusal

Json: TypeAlias = dict[str, Any]
Place: TypeAlias = tuple[str, str]
Listener: TypeAlias = Callable[[Resource, str, Json, str], None]
"""Called with (resource, ADDED | MODIFIED | DELETED, object, who did it)."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Writes of operators that are refused: `verb` of objects of a kind with `part` in the name."""

    resource: Resource
    verb: str
    part: str
    error: Callable[[], ApiError]


_STATUS_IS_APART = frozenset(
    {"ModelDeployment", "SlurmCluster", "SlurmJob", "Deployment", "Pod", "Service"}
)


class ApiSimulator:
    """All objects, one revision counter, and listeners for every change."""

    def __init__(self, *, clock: Callable[[], float], first_uid: int = 1) -> None:
        self._clock = clock
        self._objects: dict[Resource, dict[Place, Json]] = {}
        self._uids: set[str] = set()
        self._applied: dict[tuple[str, str], Json] = {}  # (uid, who) → what was applied last
        self._numbers = itertools.count(first_uid)
        self.version = 100
        self.listeners: list[Listener] = []
        self.writes = 0  # of operators, leases aside
        self.refused: list[Refused] = []

    # ---- reading

    def get(self, resource: Resource, namespace: str, name: str) -> Json | None:
        return self._objects.get(resource, {}).get((namespace, name))

    def all(self, resource: Resource) -> list[Json]:
        return list(self._objects.get(resource, {}).values())

    def everything(self) -> Iterator[tuple[Resource, Json]]:
        for resource, places in self._objects.items():
            for obj in list(places.values()):
                yield resource, obj

    def exists(self, uid: str) -> bool:
        return uid in self._uids

    def list(
        self, resource: Resource, *, label_selector: str, namespaces: Sequence[str] | None
    ) -> ObjectList:
        items = [
            obj
            for (namespace, _), obj in sorted(self._objects.get(resource, {}).items())
            if (namespaces is None or namespace in namespaces) and selected(obj, label_selector)
        ]
        return ObjectList(items=tuple(items), resource_version=self.version)

    # ---- writing

    def refuse(self, resource: Resource, verb: str, name: str) -> None:
        """Raise what an operator is answered whose write is refused for a while."""
        for rule in self.refused:
            if (rule.resource, rule.verb) == (resource, verb) and rule.part in name:
                raise rule.error()

    def create(self, resource: Resource, obj: Mapping[str, Any], *, by: str) -> Json:
        place = k8s.namespace(obj), k8s.name(obj)
        if self.get(resource, *place) is not None:
            raise ApiAlreadyExistsError(
                f"create {resource} {place}: exists", status=409, reason="AlreadyExists"
            )
        new = copied(obj)
        if resource.kind in _STATUS_IS_APART:
            new.pop("status", None)
        uid = f"uid-{next(self._numbers)}"
        new["apiVersion"], new["kind"] = resource.api_version, resource.kind
        new["metadata"] = {
            **new["metadata"],
            "uid": uid,
            "creationTimestamp": rfc3339(int(self._clock())),
            "generation": 1,
        }
        self._uids.add(uid)
        return self._store(resource, "ADDED", new, by=by)

    def apply(self, resource: Resource, obj: Mapping[str, Any], *, by: str) -> Json:
        """Server-side apply, good enough: key by key, and what its applier gives up goes."""
        place = k8s.namespace(obj), k8s.name(obj)
        found = self.get(resource, *place)
        wanted = copied(obj)
        if found is None:
            new = self.create(resource, obj, by=by)
        else:
            before = self._applied.get((k8s.uid(found), by), {})
            patch = joined(given_up(before, wanted), wanted)
            new = self.patch(resource, *place, patch=patch, subresource="", by=by)
        self._applied[k8s.uid(new), by] = wanted
        return new

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        patch: Mapping[str, Any],
        subresource: str,
        by: str,
    ) -> Json:
        old = self._required(resource, namespace, name)
        wanted = k8s.metadata(patch)
        for field in ("resourceVersion", "uid"):
            if wanted.get(field) not in (None, old["metadata"][field]):
                raise ApiConflictError(
                    f"patch {resource} {namespace}/{name}: {field} differs",
                    status=409,
                    reason="Conflict",
                )
        apart = resource.kind in _STATUS_IS_APART
        given = {k: v for k, v in patch.items() if k not in ("apiVersion", "kind")}
        if subresource == "status":
            given = {"status": given.get("status", {})}
        elif apart:
            given.pop("status", None)
        meta = {k: v for k, v in given.pop("metadata", {}).items() if k not in _FIXED}
        new = merged(old, given)
        new["metadata"] = merged(old["metadata"], meta)
        _check_finalizers(old, new)
        if new == old:
            return old
        if subresource == "status" and (problem := refusal(resource.kind, new.get("status"))):
            raise ApiInvalidError(f"{resource.kind} is invalid: {problem}", status=422)
        changed = {key for key in new.keys() | old.keys() if new.get(key) != old.get(key)}
        labels = resource.kind == "EndpointSlice" and k8s.labels(new) != k8s.labels(old)
        if changed - _NO_CONTENT or labels:
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        return self._store(resource, "MODIFIED", new, by=by)

    def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
        by: str,
    ) -> Json | None:
        """Delete; pods get a grace period, which the simulated kubelet ends."""
        old = self._required(resource, namespace, name)
        if uid is not None and uid != k8s.uid(old):
            raise ApiConflictError(
                f"delete {resource} {namespace}/{name}: uid differs", status=409, reason="Conflict"
            )
        before = old["metadata"].get("deletionGracePeriodSeconds")
        grace = _grace(old) if resource.kind == "Pod" else 0
        if grace_seconds is not None:
            grace = min(grace, grace_seconds)
        if k8s.deletion_timestamp(old) is not None and (not before or before <= grace):
            return old
        new = {**old, "metadata": dict(old["metadata"])}
        new["metadata"]["deletionTimestamp"] = rfc3339(int(self._clock()) + grace)
        new["metadata"]["deletionGracePeriodSeconds"] = grace
        new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        if not grace and not k8s.finalizers(old):
            self._store(resource, "DELETED", new, by=by)
            return None
        return self._store(resource, "MODIFIED", new, by=by)

    def remove_pod(self, resource: Resource, namespace: str, name: str) -> None:
        """The kubelet's last word about a pod."""
        old = self.get(resource, namespace, name)
        if old is not None:
            self._store(resource, "DELETED", {**old, "metadata": dict(old["metadata"])}, by="node")

    def vanish(self, resource: Resource, obj: Json) -> None:
        """Gone from etcd, whatever its finalizers say: as when a backup is restored."""
        self._store(resource, "DELETED", {**obj, "metadata": dict(obj["metadata"])}, by="backup")

    def _required(self, resource: Resource, namespace: str, name: str) -> Json:
        found = self.get(resource, namespace, name)
        if found is None:
            raise ApiNotFoundError(
                f"{resource} {namespace}/{name} not found", status=404, reason="NotFound"
            )
        return found

    def _store(self, resource: Resource, event: str, new: Json, *, by: str) -> Json:
        self.version += 1
        new["metadata"]["resourceVersion"] = str(self.version)
        place = new["metadata"].get("namespace", ""), new["metadata"]["name"]
        ended = k8s.deletion_timestamp(new) is not None and not k8s.finalizers(new)
        grace = new["metadata"].get("deletionGracePeriodSeconds")
        if event == "MODIFIED" and ended and not grace:
            event = "DELETED"
        answer = new
        if event == "DELETED":
            old = self._objects[resource].pop(place)
            self._uids.discard(new["metadata"]["uid"])
            # The answer to the write that ends an object still has its last version.
            last = {"resourceVersion": old["metadata"]["resourceVersion"]}
            answer = {**new, "metadata": {**new["metadata"], **last}}
        else:
            self._objects.setdefault(resource, {})[place] = new
        for listener in tuple(self.listeners):
            listener(resource, event, new, by)
        return answer


_FIXED = frozenset(
    {"resourceVersion", "uid", "name", "namespace", "creationTimestamp", "generation"}
)


def _grace(pod: Json) -> int:
    seconds = int(k8s.number(k8s.dig(pod, "spec", "terminationGracePeriodSeconds")) or 30)
    return min(seconds, 10**6)  # no larger one is a date


_NO_CONTENT = frozenset({"metadata", "status"})


def copied(value: Any) -> Any:
    """A copy of what JSON can hold: a run copies often, and a deep copy takes much longer."""
    kind = type(value)
    if kind is str or kind is bool or kind is int:
        return value
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [copied(item) for item in value]
    return value


def joined(patch: Mapping[str, Any], more: Mapping[str, Any]) -> Json:
    """Two merge patches as one; unlike `merged`, a null stays one."""
    new = dict(patch)
    for key, value in more.items():
        before = new.get(key)
        if type(before) is dict and type(value) is dict:
            new[key] = joined(before, value)
        else:
            new[key] = value
    return new


def given_up(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> Json:
    """A merge patch that takes away what was applied before and is not applied any more."""
    patch: Json = {}
    for key, value in before.items():
        if key not in wanted:
            patch[key] = None
        elif type(value) is dict and type(wanted[key]) is dict:
            deeper = given_up(value, wanted[key])
            if deeper:
                patch[key] = deeper
    return patch


def _check_finalizers(old: Json, new: Json) -> None:
    added = set(k8s.finalizers(new)) - set(k8s.finalizers(old))
    if added and k8s.deletion_timestamp(old) is not None:
        raise ApiInvalidError(
            "no new finalizers can be added if the object is being deleted", status=422
        )


def merged(old: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
    """RFC 7386: null takes away, mappings are merged, everything else is replaced."""
    new = dict(old)
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        elif type(value) is dict:
            before = new.get(key)
            new[key] = merged(before if type(before) is dict else {}, value)
        else:
            new[key] = value
    return new


def selected(obj: Mapping[str, Any], selector: str) -> bool:
    """Equality and existence only: all that is used."""
    if not selector:
        return True
    key, equals, value = selector.partition("=")
    return k8s.labels(obj).get(key) == value if equals else key in k8s.labels(obj)
