"""One status write per pass, and only if something changed."""

import logging
from collections.abc import Mapping

from isthmus.api.base import StatusModel
from isthmus.api.conditions import Reason
from isthmus.api.texts import cut, printable
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import Object, dig, metadata, name, namespace
from isthmus.apiserver.resources import Resource
from isthmus.apiserver.status_bounds import status_schema, without_prose, written
from isthmus.errors import ApiInvalidError

_log = logging.getLogger(__name__)


async def write_status(
    api: ApiServer, resource: Resource, *, obj: Object, status: StatusModel
) -> Object:
    """Write the status if it differs from the object's, its texts cut to what the schema takes.

    The write carries the resourceVersion that was observed, so that a status planned on an old
    observation fails (ApiConflictError) instead of undoing what was written since. One that is
    refused nevertheless, by a schema older than we are, is written without its sentences: whether
    a worker may get requests stands in it too.

    Returns:
        The object as it is stored now.

    Raises:
        ApiError: as the API server answers; ApiInvalidError only for what is no sentence.
    """
    wanted, current = written(status), _current(obj)
    known = status_schema(type(status))
    changed = _difference(current, wanted, known)
    if not changed:
        return obj
    try:
        return await _patch(api, resource, obj=obj, status=changed)
    except ApiInvalidError as error:
        bare = without_prose(wanted)
        if bare == wanted or not isinstance(bare, dict):
            raise
        changed = _difference(current, bare, known)
        if not changed:
            return obj
        where = f"{resource.kind} {namespace(obj)}/{name(obj)}"
        _log.warning("%s: status refused, written without its messages: %s", where, error)
        return await _patch(api, resource, obj=obj, status=changed)


def has_status(obj: Object, status: StatusModel) -> bool:
    """Whether an object has this status already, so that `write_status` would write nothing."""
    return not _difference(_current(obj), written(status), status_schema(type(status)))


def _current(obj: Object) -> Mapping[str, object]:
    found = dig(obj, "status", default={})
    return found if isinstance(found, Mapping) else {}


def _difference(
    current: Mapping[str, object], wanted: Mapping[str, object], schema: object
) -> dict[str, object]:
    """The merge patch: what it does not name stays, and null takes a field away.

    A field that our schema does not have is of a newer release, which will look for it.
    """
    found = schema.get("properties") if isinstance(schema, Mapping) else None
    known = found if isinstance(found, Mapping) else {}
    patch: dict[str, object] = {key: None for key in current if key in known and key not in wanted}
    for key, value in wanted.items():
        before = current.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            if inner := _difference(before, value, known.get(key)):
                patch[key] = inner
        elif before != value:
            patch[key] = value
    return patch


async def _patch(
    api: ApiServer, resource: Resource, *, obj: Object, status: Mapping[str, object]
) -> Object:
    return await api.patch(
        resource,
        namespace=namespace(obj),
        name=name(obj),
        patch={
            "metadata": {"resourceVersion": metadata(obj).get("resourceVersion")},
            "status": status,
        },
        subresource="status",
    )


async def set_finalizer(
    api: ApiServer, resource: Resource, *, obj: Object, finalizer: str, present: bool
) -> Object:
    """Add or remove one finalizer, leaving those of others."""
    found = dig(obj, "metadata", "finalizers", default=[])
    current = [str(item) for item in found] if isinstance(found, list) else []
    wanted = [item for item in current if item != finalizer] + ([finalizer] if present else [])
    return await api.patch(
        resource,
        namespace=namespace(obj),
        name=name(obj),
        patch={
            "metadata": {
                "resourceVersion": metadata(obj).get("resourceVersion"),
                "finalizers": wanted,
            }
        },
    )


async def tell_unreadable(api: ApiServer, resource: Resource, obj: Object, problem: str) -> None:
    """Say of an object that cannot be read what is wrong, and leave the rest of its status."""
    sentence = (
        f"this object cannot be read, so nothing is done about it ({problem}): if a newer release "
        "of the operator wrote it, run that one again"
    )
    told = {"reason": str(Reason.INVALID_SPEC), "message": cut(printable(sentence), limit=1024)}
    found = dig(obj, "status", default={})
    if isinstance(found, Mapping) and told.items() <= found.items():
        return
    await _patch(api, resource, obj=obj, status=told)
