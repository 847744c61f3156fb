"""One status write per pass, and only if something changed."""

import logging
from collections.abc import Mapping

from isthmus.api.base import StatusModel
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import Object, dig, metadata, name, namespace
from isthmus.apiserver.resources import Resource
from isthmus.errors import ApiInvalidError
from isthmus.reconcile.status_bounds import without_prose, written

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
    wanted = written(status)
    found = dig(obj, "status", default={})
    current = dict(found) if isinstance(found, Mapping) else {}
    if wanted == current:
        return obj
    try:
        return await _patch(api, resource, obj=obj, status=_difference(current, wanted))
    except ApiInvalidError as error:
        bare = without_prose(wanted)
        if bare == wanted or not isinstance(bare, dict):
            raise
        if bare == current:
            return obj
        where = f"{resource.kind} {namespace(obj)}/{name(obj)}"
        _log.warning("%s: status refused, written without its messages: %s", where, error)
        return await _patch(api, resource, obj=obj, status=_difference(current, bare))


def _difference(current: Mapping[str, object], wanted: Mapping[str, object]) -> dict[str, object]:
    """The merge patch: what it does not name would stay, and null takes a field away."""
    patch: dict[str, object] = {key: None for key in current if key not in wanted}
    for key, value in wanted.items():
        before = current.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            patch[key] = _difference(before, value)
        else:
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
