"""Create an object, or take the one of its name that is ours: never one of somebody else."""

from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import Object, name, namespace, owner_uids
from isthmus.apiserver.resources import Resource
from isthmus.errors import ApiAlreadyExistsError, NameTakenError


async def created_or_found(
    api: ApiServer, resource: Resource, obj: Object, *, owner: str
) -> Object | None:
    """Create an object.

    Args:
        api: gated; its answers go into the store.
        resource: its kind.
        obj: as it is wanted.
        owner: uid of the ModelDeployment whose it is.

    Returns:
        None if it was created; else what was there before, as it is.

    Raises:
        NameTakenError: an object of that name is not ours.
        ApiError: as the API server answers.
    """
    try:
        await api.create(resource, obj)
    except ApiAlreadyExistsError:
        found = await api.get(resource, namespace=namespace(obj), name=name(obj))
        if found is None:
            raise
        if owner not in owner_uids(found):
            raise NameTakenError(
                f"{resource.kind} {namespace(obj)}/{name(obj)} exists and is not ours: rename the "
                "ModelDeployment, or remove that object"
            ) from None
        return found
    return None
