"""One status write per pass, and only if something changed."""

from collections.abc import Mapping

from isthmus.api.base import StatusModel
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import Object, dig, metadata, name, namespace
from isthmus.apiserver.resources import Resource


async def write_status(
    api: ApiServer, resource: Resource, *, obj: Object, status: StatusModel
) -> Object:
    """Write the status if it differs from the object's.

    The write carries the resourceVersion that was observed, so that a status planned on an old
    observation fails (ApiConflictError) instead of undoing what was written since.

    Returns:
        The object as it is stored now.
    """
    wanted = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    found = dig(obj, "status", default={})
    current = dict(found) if isinstance(found, Mapping) else {}
    if wanted == current:
        return obj
    # A merge patch keeps what it does not name; null takes a field away.
    gone = {key: None for key in current if key not in wanted}
    return await api.patch(
        resource,
        namespace=namespace(obj),
        name=name(obj),
        patch={
            "metadata": {"resourceVersion": metadata(obj).get("resourceVersion")},
            "status": {**wanted, **gone},
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
