"""Rough hands: what somebody does to our objects, after which all is as it was.

A deployment is at rest, one hand is laid on what it is made of, and it comes to rest again: with
the state that it had, and with every engine that was well, unless it was the hand that ended it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from isthmus.api import names
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    MODEL_DEPLOYMENTS,
    PODS,
    SECRETS,
    SERVICES,
    SLURM_JOBS,
    Resource,
)
from tests.simulation import neighbours
from tests.simulation.apiserver import Json
from tests.simulation.differential import at_rest, difference, in_a_world, state, wish
from tests.simulation.drawn import NAME, drawn_deployment
from tests.simulation.faults.backups import restored_from_a_backup
from tests.simulation.recovery import well
from tests.simulation.world import NAMESPACE, World

Do: TypeAlias = Callable[[World, Random], None]


@dataclass(frozen=True, slots=True)
class Hand:
    """One thing that somebody does.

    Attributes:
        ends_engines: whether workers go by it, and others come in their place.
        leaves_traces: whether what it took stays away, which harms nothing.
        seconds: how long what it did lasts, at most.
    """

    do: Do
    ends_engines: bool = False
    leaves_traces: bool = False
    seconds: float = 900.0


HANDS: dict[str, Hand] = {}


def hand(
    *, ends_engines: bool = False, leaves_traces: bool = False, seconds: float = 900.0
) -> Callable[[Do], Do]:
    def register(do: Do) -> Do:
        HANDS[do.__name__] = Hand(do, ends_engines, leaves_traces, seconds)
        return do

    return register


def _ours(world: World, *resources: Resource) -> Iterator[tuple[Resource, Json]]:
    for resource in resources:
        for obj in world.api.all(resource):
            if k8s.name(obj).startswith(NAME) and k8s.namespace(obj) == NAMESPACE:
                yield resource, obj


def _patch(world: World, resource: Resource, obj: Json, patch: Json) -> None:
    place = k8s.namespace(obj), k8s.name(obj)
    world.api.patch(resource, *place, patch=patch, subresource="", by="user")


def _delete(world: World, resource: Resource) -> None:
    for _, obj in _ours(world, resource):
        world.api.delete(resource, NAMESPACE, k8s.name(obj), by="user")


# ---- children deleted


@hand(ends_engines=True)
def deployments_deleted(world: World, random: Random) -> None:
    _delete(world, DEPLOYMENTS)


@hand()
def services_deleted(world: World, random: Random) -> None:
    _delete(world, SERVICES)


@hand()
def slices_deleted(world: World, random: Random) -> None:
    for _, obj in list(_slices_of_jobs(world)):
        world.api.delete(ENDPOINT_SLICES, NAMESPACE, k8s.name(obj), by="user")


def _slices_of_jobs(world: World) -> Iterator[tuple[Resource, Json]]:
    for resource, obj in _ours(world, ENDPOINT_SLICES):
        if k8s.labels(obj).get("endpointslice.kubernetes.io/managed-by") == names.GROUP:
            yield resource, obj


@hand(leaves_traces=True)
def revisions_deleted(world: World, random: Random) -> None:
    _delete(world, CONTROLLER_REVISIONS)


@hand()
def keys_of_workers_deleted(world: World, random: Random) -> None:
    for _, obj in _ours(world, SECRETS):
        if k8s.name(obj) == names.worker_keys_secret(NAME):
            world.api.delete(SECRETS, NAMESPACE, k8s.name(obj), by="user")


# ---- children edited


@hand(ends_engines=True)
def deployments_scaled(world: World, random: Random) -> None:
    for resource, obj in _ours(world, DEPLOYMENTS):
        _patch(world, resource, obj, {"spec": {"replicas": random.choice([0, 1, 5])}})


@hand()
def services_edited(world: World, random: Random) -> None:
    for resource, obj in _ours(world, SERVICES):
        mine = dict.fromkeys(obj["spec"]["selector"], "mine")
        _patch(world, resource, obj, {"spec": {"selector": mine, "ports": []}})


@hand()
def slices_emptied(world: World, random: Random) -> None:
    for resource, obj in _slices_of_jobs(world):
        _patch(world, resource, obj, {"endpoints": []})


_CHILDREN = (DEPLOYMENTS, SERVICES, ENDPOINT_SLICES, SLURM_JOBS, CONTROLLER_REVISIONS, SECRETS)


@hand(leaves_traces=True)
def annotations_stripped(world: World, random: Random) -> None:
    for resource, obj in list(_ours(world, MODEL_DEPLOYMENTS, PODS, *_CHILDREN)):
        gone = dict.fromkeys(k8s.annotations(obj))
        _patch(world, resource, obj, {"metadata": {"annotations": gone}})


@hand()
def labels_of_services_stripped(world: World, random: Random) -> None:
    _strip(world, SERVICES)


@hand()
def labels_of_deployments_stripped(world: World, random: Random) -> None:
    _strip(world, DEPLOYMENTS)


@hand()
def labels_of_jobs_stripped(world: World, random: Random) -> None:
    """An attempt is known by its owner, and gets its labels back."""
    _strip(world, SLURM_JOBS)


@hand()
def labels_of_revisions_stripped(world: World, random: Random) -> None:
    _strip(world, CONTROLLER_REVISIONS)


def _strip(world: World, resource: Resource) -> None:
    for _, obj in list(_ours(world, resource)):
        gone = dict.fromkeys(k8s.labels(obj))
        _patch(world, resource, obj, {"metadata": {"labels": gone}})


# ---- the deployment itself


@hand()
def replaced(world: World, random: Random) -> None:
    """As `kubectl replace` of the manifest: what is ours in its metadata is gone."""
    for resource, obj in _ours(world, MODEL_DEPLOYMENTS):
        bare = {
            "labels": dict.fromkeys(k8s.labels(obj)),
            "annotations": dict.fromkeys(k8s.annotations(obj)),
            "finalizers": [],
        }
        _patch(world, resource, obj, {"metadata": bare})


@hand()
def finalizers_of_jobs_stripped(world: World, random: Random) -> None:
    for resource, obj in _ours(world, SLURM_JOBS):
        _patch(world, resource, obj, {"metadata": {"finalizers": []}})


@hand()
def stored_as_the_schema_refuses(world: World, random: Random) -> None:
    """Of a time when more was taken: it is left as it is, until somebody writes it anew."""
    for resource, obj in _ours(world, MODEL_DEPLOYMENTS):
        spec = obj["spec"]
        wrong: Json = random.choice(
            [{"replicas": -1}, {"drain": {"timeout": "soon"}}, {"pools": []}]
        )
        _patch(world, resource, obj, {"spec": wrong})
        right = {key: spec.get(key) for key in wrong}
        world.slurm.later(300, _patch, world, resource, obj, {"spec": right})


# ---- others with our labels


@hand()
def a_service_wears_our_labels(world: World, random: Random) -> None:
    labels = {names.LABEL_DEPLOYMENT: NAME, names.LABEL_MANAGED_BY: names.MANAGED_BY}
    spec = {"selector": {"app": "mine"}, "ports": [{"name": "x", "port": 1}]}
    meta = {"namespace": NAMESPACE, "name": "stranger", "labels": labels}
    world.api.create(SERVICES, {"metadata": meta, "spec": spec}, by="user")
    world.slurm.later(600, _taken_away, world, SERVICES, "stranger")


@hand()
def slices_wear_our_labels(world: World, random: Random) -> None:
    """One for each Service, as a worker's but for its owner: it counts for nothing, and stays."""
    for _, service in list(_ours(world, SERVICES)):
        worn = {
            "kubernetes.io/service-name": k8s.name(service),
            "endpointslice.kubernetes.io/managed-by": names.GROUP,
            names.LABEL_DEPLOYMENT: NAME,
            names.LABEL_MANAGED_BY: names.MANAGED_BY,
        }
        name = f"stranger-{k8s.name(service)}"
        slice_ = {
            "metadata": {"namespace": NAMESPACE, "name": name, "labels": worn},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.99.0.1"], "conditions": {"ready": True}}],
            "ports": random.choice([[{"name": "http", "port": 41000}], [{"name": "http"}], []]),
        }
        world.api.create(ENDPOINT_SLICES, slice_, by="user")
        world.slurm.later(600, _taken_away, world, ENDPOINT_SLICES, name)


def _taken_away(world: World, resource: Resource, name: str) -> None:
    """By whom it belongs to; we have left it alone."""
    there = world.api.get(resource, NAMESPACE, name) is not None
    world.oracle.require(there, f"{resource.kind} {name} is a stranger's, and was deleted")
    if there:
        world.api.delete(resource, NAMESPACE, name, by="user")


# ---- an old backup


@hand(ends_engines=True, seconds=2400.0)
def restored(world: World, random: Random) -> None:
    """With new uids and no status, some SlurmJobs not at all: what ran before are orphans."""
    restored_from_a_backup(world, random)


# ---- another installation on the same SLURM account


@hand(seconds=neighbours.SECONDS)
def another_installation(world: World, random: Random) -> None:
    neighbours.moves_in(world, installation="isthmus9", orphan_policy="Cancel")


@hand(seconds=neighbours.SECONDS)
def another_installation_with_our_id(world: World, random: Random) -> None:
    """Both only report orphans: see `neighbours` for what is so where they cancel them."""
    neighbours.moves_in(world, installation=world.installation, orphan_policy="Report")


# ---- the oracle


def mends(seed: int, name: str) -> list[str]:
    """What is not as it was some time after a hand was laid on a deployment."""
    return mended(seed, name, HANDS[name])


def mended(seed: int, name: str, chosen: Hand) -> list[str]:
    """The same of a hand that is not in the table."""
    random = Random(f"rough/{seed}")
    deployment = drawn_deployment(random)

    async def live(world: World) -> list[str]:
        wish(world, deployment)
        await at_rest(world)
        before, engines = state(world), well(world)
        chosen.do(world, random)
        world.caches_late(60)
        await at_rest(world, least=chosen.seconds)
        lost = [] if chosen.ends_engines else [one for one in engines if not one.alive]
        told = [f"lost: {one.job_name or 'a pod'} {one.address}:{one.port}" for one in lost]
        return told if chosen.leaves_traces else told + difference(before, state(world))

    found: list[str] = in_a_world(f"rough/{seed}/{name}", replicas=1, live=live)
    return found
