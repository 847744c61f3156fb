"""Objects come back from a backup: with new uids, without their status, some not at all."""

from random import Random

from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import (
    MODEL_DEPLOYMENTS,
    SLURM_JOBS,
)
from tests.simulation.faults.register import happens, later, some_deployment
from tests.simulation.promises.ledger import INTRUDERS
from tests.simulation.world import World


@happens(0.7)
def restored_from_a_backup(world: World, random: Random) -> None:
    """The objects vanish and come back with new uids and without status, some not at all."""
    found = some_deployment(world, random)
    if found is None or k8s.deletion_timestamp(found):
        return
    owned = [job for job in world.api.all(SLURM_JOBS) if k8s.uid(found) in k8s.owner_uids(job)]
    owned.sort(key=k8s.name)
    world.tell(f"fault: {k8s.name(found)} is restored from a backup")
    world.caches_late(60)
    for job in owned:
        world.oracle.lost(str(job["spec"]["jobName"]))
        world.api.vanish(SLURM_JOBS, job)
    world.api.vanish(MODEL_DEPLOYMENTS, found)
    back = [job for job in owned if random.random() < 0.5]

    def restore() -> None:
        for resource, obj in ((MODEL_DEPLOYMENTS, found), *((SLURM_JOBS, job) for job in back)):
            meta = {key: obj["metadata"].get(key) for key in _RESTORED if key in obj["metadata"]}
            with world.may_fail():
                world.api.create(resource, {"metadata": meta, "spec": obj["spec"]}, by="user")

    later(world, random.choice([0.5, 5.0, 60.0]), restore)


_RESTORED = ("namespace", "name", "labels", "annotations", "finalizers", "ownerReferences")


@happens(0.8)
def wipe_status(world: World, random: Random) -> None:
    """A restore brings objects back without their status."""
    for resource in (SLURM_JOBS, MODEL_DEPLOYMENTS):
        for obj in world.api.all(resource):
            if random.random() < 0.5 and obj.get("status"):
                if resource is SLURM_JOBS and k8s.namespace(obj) != INTRUDERS:
                    world.oracle.attempts[str(obj["spec"]["jobName"])].wiped = True
                gone = dict.fromkeys(obj["status"])
                world.api.patch(
                    resource,
                    k8s.namespace(obj),
                    k8s.name(obj),
                    patch={"status": gone},
                    subresource="status",
                    by="user",
                )
