"""Typed reading of raw Kubernetes objects.

Objects stay plain dictionaries from the wire to the planner's edge: turning 2000 pods into the
typed models of the client takes 2.7 s and 124 MB (measured), reading the dictionaries 0.45 s.
These accessors are the only place that has to know how metadata is nested, and none of them ever
fails on a malformed object: what is absent or of the wrong type reads as empty.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeGuard, cast

Object: TypeAlias = Mapping[str, object]
"""A Kubernetes object, or a part of one, as JSON has it. Never changed in place."""

_NOTHING: Mapping[str, object] = {}

_DIGITS = 20
"""Of 2^64; Python refuses to read thousands of them."""


@dataclass(frozen=True, slots=True)
class ObjectList:
    """The answer to a list.

    Attributes:
        items: the objects, each with `apiVersion` and `kind`.
        resource_version: revision at which the list is complete; of several lists, the oldest.
    """

    items: tuple[Object, ...]
    resource_version: int


def dig(obj: object, *path: str | int, default: object = None) -> object:
    """Return the value at `path` in nested mappings and lists, else `default`.

    A null on the way, or at the end, counts as absent, as it does for the API server.
    """
    value = obj
    for step in path:
        if isinstance(step, str) and (type(value) is dict or _is_mapping(value)):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list | tuple):
            value = value[step] if -len(value) <= step < len(value) else None
        else:
            return default
    return default if value is None else value


def metadata(obj: Object) -> Object:
    """Return `metadata`, empty if there is none."""
    value = obj.get("metadata")
    return value if type(value) is dict or _is_mapping(value) else _NOTHING


def name(obj: Object) -> str:
    """Return `metadata.name`, "" if there is none."""
    value = metadata(obj).get("name")
    return value if isinstance(value, str) else ""


def namespace(obj: Object) -> str:
    """Return `metadata.namespace`, "" if there is none."""
    value = metadata(obj).get("namespace")
    return value if isinstance(value, str) else ""


def uid(obj: Object) -> str:
    """Return `metadata.uid`, "" for an object that was never stored."""
    value = metadata(obj).get("uid")
    return value if isinstance(value, str) else ""


def labels(obj: Object) -> Mapping[str, str]:
    """Return `metadata.labels`."""
    value = metadata(obj).get("labels")
    return value if type(value) is dict else _texts(value)


def annotations(obj: Object) -> Mapping[str, str]:
    """Return `metadata.annotations`."""
    value = metadata(obj).get("annotations")
    return value if type(value) is dict else _texts(value)


def finalizers(obj: Object) -> tuple[str, ...]:
    """Return `metadata.finalizers`."""
    value = metadata(obj).get("finalizers")
    return tuple(str(item) for item in value) if isinstance(value, list | tuple) else ()


def owner_uids(obj: Object) -> tuple[str, ...]:
    """Return the uids of `metadata.ownerReferences`."""
    value = metadata(obj).get("ownerReferences")
    if not isinstance(value, list | tuple):
        return ()
    uids = (_text(item.get("uid")) for item in value if _is_mapping(item))
    return tuple(owner for owner in uids if owner)


def resource_version(obj: Object) -> int | None:
    """Return `metadata.resourceVersion` as a number, None where it is absent or not one.

    Versions of one resource can be compared as numbers: documented since Kubernetes 1.35, and
    true of every release that stores in etcd.
    """
    return number(metadata(obj).get("resourceVersion"))


def generation(obj: Object) -> int:
    """Return `metadata.generation`, 0 where the resource has none."""
    return number(metadata(obj).get("generation")) or 0


def deletion_timestamp(obj: Object) -> str | None:
    """Return `metadata.deletionTimestamp` (RFC 3339), None while the object is wanted."""
    return _text(metadata(obj).get("deletionTimestamp")) or None


def is_gone(answer: Object) -> bool:
    """Tell from the answer to a delete, or to a patch, whether the object no longer exists.

    A `Status` means gone. Some resources (Pod, Service) answer a delete with their last state
    instead, and a patch that takes the last finalizer away answers with the object: that one still
    exists only while another finalizer or the kubelet's grace period holds it.
    """
    if answer.get("kind") == "Status":
        return True
    if deletion_timestamp(answer) is None:
        return True
    return not finalizers(answer) and not number(metadata(answer).get("deletionGracePeriodSeconds"))


def number(value: object) -> int | None:
    """Return an integer written as a number or as text, else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if not isinstance(value, str) or not value.isascii() or not value.isdigit():
        return None
    return int(value) if len(value) <= _DIGITS else None


def _is_mapping(value: object) -> TypeGuard[Mapping[str, object]]:
    # Nearly always a dict, and asking an abstract class costs ten times as much.
    return type(value) is dict or isinstance(value, Mapping)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> Mapping[str, str]:
    # Not copied: this is asked for more often than anything, and the API server takes only texts.
    return cast("Mapping[str, str]", value) if _is_mapping(value) else {}
