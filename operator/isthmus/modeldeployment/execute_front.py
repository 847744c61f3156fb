"""The front of a deployment, as the store shows it and as the API server is asked for it.

Apart from execute.py: a front is no worker, and most of its objects are not watched.
Its Deployment is written last, so where that is up to date, the rest is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from isthmus.api import names
from isthmus.api.desired import Desired
from isthmus.api.front_pods import FrontPods, read_front_pods
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import (
    Object,
    annotations,
    deletion_timestamp,
    dig,
    number,
    owner_uids,
    uid,
)
from isthmus.apiserver.resources import (
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from isthmus.apiserver.store import Store
from isthmus.backends.base import Pending
from isthmus.backends.kubernetes import front, front_version, render
from isthmus.backends.kubernetes.pending import front_problem
from isthmus.errors import ApiNotFoundError
from isthmus.modeldeployment.ours import created_or_found
from isthmus.settings import Settings


@dataclass(frozen=True, slots=True)
class FrontState:
    """What the store shows of a front.

    Attributes:
        ok: its Deployment and the workers' Service are there and as we want them.
        exists: one of them is there.
        available: at least one of its pods takes requests.
        rolled_out: all of its pods are as its Deployment is now.
        problem: why none does, None where that is not known.
        understands: version of the contract that each of its pods understands, None where none
            has said it yet.
    """

    ok: bool
    exists: bool
    available: bool
    rolled_out: bool = False
    problem: Pending | None = None
    understands: int | None = None


def front_state(store: Store, *, desired: Desired, settings: Settings) -> FrontState:
    """Look at the front of a deployment."""
    workers = names.membership_service(desired.name, managed=True)
    service = _ours(store, SERVICES, desired, workers)
    found = _ours(store, DEPLOYMENTS, desired, names.front_name(desired.name))
    available = (number(dig(found, "status", "availableReplicas")) or 0) > 0
    pods = store.labelled(PODS, desired.namespace, desired.name)
    current = found is not None and _is_current(found, desired=desired, settings=settings)
    return FrontState(
        ok=current
        and service is not None
        and dig(service, "spec", "selector") == render.workers_selector(desired),
        exists=service is not None or found is not None,
        available=available,
        rolled_out=current and _rolled_out(found),
        problem=None if available else front_problem(deployment=found, pods=pods),
        understands=front_version.understood(deployment=found, pods=pods),
    )


def _is_current(deployment: Object, *, desired: Desired, settings: Settings) -> bool:
    accepted = front.accepted_revisions(desired=desired, **_made_from(settings))
    return annotations(deployment).get(front.ANNOTATION_FRONT) in accepted


def _rolled_out(deployment: Object | None) -> bool:
    seen = number(dig(deployment, "status", "observedGeneration")) or 0
    pods = number(dig(deployment, "status", "replicas")) or 0
    updated = number(dig(deployment, "status", "updatedReplicas")) or 0
    return seen >= (number(dig(deployment, "metadata", "generation")) or 0) and 0 < pods == updated


class _MadeFrom(TypedDict):
    image: str
    drain_seconds: int
    pods: FrontPods


def _made_from(settings: Settings) -> _MadeFrom:
    return {
        "image": settings.front_image,
        "drain_seconds": int(settings.front_drain),
        "pods": read_front_pods(settings.front_pods),
    }


def service_waits(store: Store, *, desired: Desired, front_available: bool) -> bool:
    """Whether the Service still leads to the workers because the front has no pod yet.

    Only where the Service was there before the front: turning to a front must not turn requests
    away.
    """
    if not desired.endpoint.managed or front_available:
        return False
    found = _ours(store, SERVICES, desired, desired.name)
    return dig(found, "spec", "selector") == render.workers_selector(desired)


async def ensure_front(api: ApiServer, *, desired: Desired, settings: Settings) -> None:
    """Make or update the front and the workers' Service.

    Raises:
        NameTakenError: an object of a name that we need is not ours.
        ApiError: as the API server answers.
    """
    account, role, binding = front.rights(desired=desired)
    objects: Sequence[tuple[Resource, Object]] = (
        (SERVICES, front.workers_service(desired=desired)),
        (SERVICE_ACCOUNTS, account),
        (ROLES, role),
        (ROLE_BINDINGS, binding),
        (DISRUPTION_BUDGETS, front.disruption_budget(desired=desired)),
        (
            DEPLOYMENTS,
            front.front_deployment(desired=desired, **_made_from(settings)),
        ),
    )
    for resource, obj in objects:
        if await created_or_found(api, resource, obj, owner=desired.uid) is not None:
            await api.apply(resource, obj)


async def delete_front(api: ApiServer, *, desired: Desired) -> None:
    """Delete what there is of a front, its Deployment last."""
    front_name = names.front_name(desired.name)
    workers = names.membership_service(desired.name, managed=True)
    for resource, name_ in (
        (DISRUPTION_BUDGETS, front_name),
        (ROLE_BINDINGS, front_name),
        (ROLES, front_name),
        (SERVICE_ACCOUNTS, front_name),
        (SERVICES, workers),
        (DEPLOYMENTS, front_name),
    ):
        found = await api.get(resource, namespace=desired.namespace, name=name_)
        if found is None or desired.uid not in owner_uids(found) or deletion_timestamp(found):
            continue
        try:
            await api.delete(resource, namespace=desired.namespace, name=name_, uid=uid(found))
        except ApiNotFoundError:
            continue


def _ours(store: Store, resource: Resource, desired: Desired, name_: str) -> Object | None:
    found = store.get(resource, desired.namespace, name_)
    return found if found is not None and desired.uid in owner_uids(found) else None
