"""Writing the slice of a worker that is reached directly; forwards have slices of their own.

Those are changed here only where their supervisor should have taken the worker out and did not.
"""

import logging

from isthmus.api import names
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import Object, dig, labels, name, namespace, owner_uids, uid
from isthmus.apiserver.resources import ENDPOINT_SLICES
from isthmus.apiserver.store import Store
from isthmus.errors import (
    ApiAlreadyExistsError,
    ApiConflictError,
    ApiNotFoundError,
    NameTakenError,
)
from isthmus.routing.slices import worker_slice
from isthmus.routing.tunnel_slices import tunnel_of

_log = logging.getLogger(__name__)


async def ensure_slice(
    api: ApiServer, slurm_job: Object, *, deployment: str, service: str, address: str, port: int
) -> None:
    """Put a worker into the membership, or give its slice another address.

    Raises:
        NameTakenError: an EndpointSlice of its name belongs to somebody else.
        ApiError: as the API server answers.
    """
    wanted = worker_slice(
        namespace=namespace(slurm_job),
        deployment=deployment,
        service=service,
        owner={"name": name(slurm_job), "uid": uid(slurm_job)},
        address=address,
        port=port,
        key=labels(slurm_job).get(names.LABEL_KEY),
    )
    try:
        await api.create(ENDPOINT_SLICES, wanted)
    except ApiAlreadyExistsError:
        found = await api.get(ENDPOINT_SLICES, namespace=namespace(slurm_job), name=name(slurm_job))
        if found is not None and not _may_be_written(found, slurm_job):
            raise NameTakenError(
                f"EndpointSlice {namespace(found)}/{name(found)} exists and is not ours: remove "
                "that object, or the SlurmJob of its name"
            ) from None
        await api.apply(ENDPOINT_SLICES, wanted)


def _may_be_written(found: Object, slurm_job: Object) -> bool:
    """Ours is what the SlurmJob owns, or one of its name that is gone (it came from a backup).

    Without an owner it is ours by its label: the owner was taken away by hand.
    """
    references = dig(found, "metadata", "ownerReferences", default=[])
    if not isinstance(references, list) or not references:
        return labels(found).get(names.LABEL_MANAGED_BY) == names.MANAGED_BY
    return any(
        dig(one, "uid") == uid(slurm_job)
        or (dig(one, "kind") == "SlurmJob" and dig(one, "name") == name(slurm_job))
        for one in references
    )


async def delete_slice(api: ApiServer, store: Store, slurm_job: Object) -> None:
    """Take a worker out of the membership.

    A slice of its name that somebody else owns stays; one that nobody owns was ours.
    """
    found = store.get(ENDPOINT_SLICES, namespace(slurm_job), name(slurm_job))
    if found is None:
        return
    owners = owner_uids(found)
    if owners and uid(slurm_job) not in owners:
        return
    try:
        await api.delete(
            ENDPOINT_SLICES, namespace=namespace(found), name=name(found), uid=uid(found)
        )
    except ApiNotFoundError:
        return


async def delete_own_slice(api: ApiServer, store: Store, slurm_job: Object) -> None:
    """Take a worker out of the membership where its SlurmJob may be anybody's.

    One that only has the name of its SlurmJob may be another's.
    """
    found = store.get(ENDPOINT_SLICES, namespace(slurm_job), name(slurm_job))
    if found is None or uid(slurm_job) not in owner_uids(found):
        return
    if labels(found).get(names.LABEL_MANAGED_BY) == names.MANAGED_BY:
        await delete_slice(api, store, slurm_job)


async def withdraw_tunnels(api: ApiServer, store: Store, slurm_job: Object) -> None:
    """Take a worker out of rotation on every tunnel supervisor that still lets requests through.

    The rest of its slices stays: through a supervisor that is only slow its metrics are read.
    """
    for found in store.owned(ENDPOINT_SLICES, uid(slurm_job)):
        tunnel = tunnel_of(found)
        if tunnel is None or not tunnel.ready:
            continue
        _log.warning(
            "%s is being deleted, and the tunnel supervisor %s does not take it out of rotation: "
            "the operator does",
            name(slurm_job),
            tunnel.host,
        )
        out = {"addresses": [tunnel.address], "conditions": {"ready": False}}
        try:
            await api.patch(
                ENDPOINT_SLICES,
                namespace=namespace(found),
                name=name(found),
                patch={"metadata": {"uid": uid(found)}, "endpoints": [out]},
            )
        except (ApiNotFoundError, ApiConflictError):
            continue  # gone, or another one: looked at again with the next pass
