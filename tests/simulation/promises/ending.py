"""What must be true once faults have stopped and everything has settled: the end of every run."""

from collections.abc import Iterator

from isthmus.api import names
from isthmus.api.conditions import Phase
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    LEASES,
    PODS,
    SERVICES,
    SLURM_CLUSTERS,
    SLURM_JOBS,
)
from tests.simulation.apiserver import Json
from tests.simulation.controllers import is_ready
from tests.simulation.promises.failing_actions import says_failing
from tests.simulation.promises.tunnels import in_tunnels, is_tunnel, place_of
from tests.simulation.promises.tunnels import is_ready as is_open
from tests.simulation.slurm_jobs import LIVE
from tests.simulation.world import World


def unsettled(world: World) -> list[str]:
    """Everything that is not as it should be in the end."""
    found = [*_deployments(world), *_jobs(world), *_leftovers(world), *_membership(world)]
    found += _tunnels(world)
    # A pod that finishes its requests is in the status until it is gone.
    ending = [k8s.name(pod) for pod in world.api.all(PODS) if k8s.deletion_timestamp(pod)]
    return [*found, *(f"pod {name} still ends" for name in ending)]


def _deployments(world: World) -> Iterator[str]:
    for obj in world.deployments():
        name = k8s.name(obj)
        if k8s.deletion_timestamp(obj):
            yield f"{name} is still being deleted"
            continue
        wanted = _placeable(obj)
        found = _serving(world, obj)
        if found != wanted:
            yield f"{name}: {found} workers of the current revision serve, {wanted} are wanted"
        status = obj.get("status", {})
        generation = obj["metadata"]["generation"]
        if status.get("observedGeneration") != generation:
            yield f"{name}: observedGeneration is {status.get('observedGeneration')}"
        for count in ("replicas", "readyReplicas", "updatedReplicas", "availableReplicas"):
            if status.get(count) != wanted:
                yield f"{name}: {count} is {status.get(count)} instead of {wanted}"
        told = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), {})
        for pool in status.get("pools", ()):
            ready, desired = pool.get("ready"), pool.get("desired")
            if ready != desired:
                yield f"{name}: pool {pool['name']} has {ready} of {desired}"
        full = wanted == obj["spec"].get("replicas", 1)
        if (told.get("status") == "True") != full:
            yield f"{name}: Ready is {told}"


def _placeable(obj: Json) -> int:
    room = 0
    for pool in obj["spec"]["pools"]:
        room += pool.get("maxReplicas", 1000)
    return min(int(obj["spec"].get("replicas", 1)), room)


def _serving(world: World, obj: Json) -> int:
    """Workers of the current revision that a client can reach, from the nodes' point of view."""
    arguments = {
        pool["name"]: tuple(pool.get("engine", {}).get("args", ())) for pool in obj["spec"]["pools"]
    }
    found = 0
    for job in _owned(world, obj):
        if k8s.deletion_timestamp(job) or job["spec"]["pool"] not in arguments:
            continue
        engines = world.machines.running(str(job["spec"]["jobName"]))
        found += any(
            world.machines.serves(engine, now=world.now)
            and set(arguments[job["spec"]["pool"]]) <= set(engine.arguments)
            and _published(world, job)
            for engine in engines
        )
    for pod in world.api.all(PODS):
        pool = k8s.labels(pod).get(names.LABEL_POOL, "")
        if k8s.labels(pod).get(names.LABEL_DEPLOYMENT) != k8s.name(obj) or pool not in arguments:
            continue
        container = k8s.dig(pod, "spec", "containers", 0, "args", default=[])
        assert isinstance(container, list)
        current = set(arguments[pool]) <= set(container)
        stays = not k8s.deletion_timestamp(pod) and _in_rotation(pod)
        found += is_ready(pod) and stays and current
    return found


def _published(world: World, job: Json) -> bool:
    direct = world.api.get(ENDPOINT_SLICES, k8s.namespace(job), k8s.name(job))
    return direct is not None or in_tunnels(world.api, k8s.uid(job))


def _in_rotation(pod: Json) -> bool:
    return (
        names.ANNOTATION_DRAINING_SINCE not in k8s.annotations(pod)
        and k8s.labels(pod).get(names.LABEL_TRAFFIC) == names.TRAFFIC_ON
    )


def _owned(world: World, obj: Json) -> list[Json]:
    return [job for job in world.api.all(SLURM_JOBS) if k8s.uid(obj) in k8s.owner_uids(job)]


def _jobs(world: World) -> Iterator[str]:
    """In SLURM exactly the jobs of live attempts."""
    live = {
        (cluster, job.name)
        for cluster, slurm in world.clusters.items()
        for job in slurm.jobs.values()
        if job.state in LIVE and names.parse_slurm_job_name(job.name) is not None
    }
    mine, anothers = f"-{world.installation}-", world.oracle.is_anothers
    ours = {found for found in live if mine in found[1] and not anothers(found[1])}
    wanted = set()
    for job in world.api.all(SLURM_JOBS):
        if k8s.deletion_timestamp(job):
            yield f"SlurmJob {k8s.name(job)} is still being deleted"
        if says_failing(job):
            yield f"SlurmJob {k8s.name(job)} is still said to fail"
        phase = k8s.dig(job, "status", "phase")
        if phase is None or not Phase(str(phase)).terminal:
            wanted.add((str(job["spec"]["clusterRef"]["name"]), str(job["spec"]["jobName"])))
    for cluster, name in sorted(ours - wanted):
        yield f"job {name} of {cluster} has no SlurmJob"
    for cluster, name in sorted(wanted - ours):
        yield f"SlurmJob of {name} has no job on {cluster}"


def _leftovers(world: World) -> Iterator[str]:
    known = {k8s.name(obj) for obj in world.deployments()}
    for resource in (SLURM_JOBS, DEPLOYMENTS, CONTROLLER_REVISIONS, SERVICES, PODS):
        for obj in world.api.all(resource):
            owner = k8s.labels(obj).get(names.LABEL_DEPLOYMENT)
            if owner not in known:
                yield f"{resource.kind} {k8s.name(obj)} is left of {owner}"
    for obj in world.api.all(PODS):
        # A failed one stays until its ReplicaSet goes, as it was: nothing of it drains.
        over = k8s.deletion_timestamp(obj) or k8s.dig(obj, "status", "phase") == "Failed"
        front = names.LABEL_COMPONENT in k8s.labels(obj)
        if k8s.labels(obj).get(names.LABEL_TRAFFIC) != "on" and not over and not front:
            yield f"pod {k8s.name(obj)} drains still"
    pools = {k8s.name(o): {p["name"] for p in o["spec"]["pools"]} for o in world.deployments()}
    for obj in world.api.all(DEPLOYMENTS):
        owner = k8s.labels(obj).get(names.LABEL_DEPLOYMENT, "")
        if names.LABEL_COMPONENT in k8s.labels(obj):
            continue
        if k8s.labels(obj).get(names.LABEL_POOL, "") not in pools.get(owner, set()):
            yield f"Deployment {k8s.name(obj)} is of no pool any more"  # it may drain still
    for obj in world.api.all(SLURM_CLUSTERS):
        if k8s.deletion_timestamp(obj):
            yield "the SlurmCluster is still being deleted"
        found = obj.get("status", {}).get("conditions", ())
        if not any(c["type"] == "SlurmReachable" and c["status"] == "True" for c in found):
            yield "the SlurmCluster is said to be unreachable"


def _membership(world: World) -> Iterator[str]:
    for obj in world.api.all(ENDPOINT_SLICES):
        labels = k8s.labels(obj)
        strangers = not k8s.owner_uids(obj)  # ours have an owner: see `RotationRules`
        if strangers or labels.get("endpointslice.kubernetes.io/managed-by") != names.GROUP:
            continue
        place = place_of(obj)
        engine = world.machines.behind(place)
        owner = obj["metadata"]["ownerReferences"][0]["name"]
        job = world.api.get(SLURM_JOBS, k8s.namespace(obj), owner)
        if job is None or engine is None or engine.attempt != job["spec"]["attempt"]:
            yield f"the membership leads to {place}, where no worker of ours is"


def _tunnels(world: World) -> Iterator[str]:
    """Every forward is up on every supervisor, and nothing is left of those that are gone."""
    hosts = {host.id for host in world.hosts() if not host.gone}
    slices = [obj for obj in world.api.all(ENDPOINT_SLICES) if is_tunnel(obj)]
    for obj in slices:
        if k8s.labels(obj)[names.LABEL_TUNNEL_HOST] not in hosts:
            yield f"{k8s.name(obj)} is left of a supervisor that is gone"
    for host in world.hosts():
        if host.process is not None and host.process.asked_at is not None:
            yield f"{host.id} is still ending"
    for lease in world.api.all(LEASES):
        host_id = k8s.labels(lease).get(names.LABEL_TUNNEL_HOST)
        if host_id is not None and host_id not in hosts:
            yield f"the Lease of {host_id} is left"
    if world.tunnels is None:
        return
    for job in world.api.all(SLURM_JOBS):
        phase = k8s.dig(job, "status", "phase")
        if phase is None or Phase(str(phase)).terminal:
            continue
        if phase != Phase.READY:
            yield f"SlurmJob {k8s.name(job)} is {phase}: {k8s.dig(job, 'status', 'message')}"
        its = [obj for obj in slices if k8s.uid(job) in k8s.owner_uids(obj)]
        for host_id in sorted(hosts):
            mine = [o for o in its if k8s.labels(o)[names.LABEL_TUNNEL_HOST] == host_id]
            if len(mine) != 1 or not is_open(mine[0]):
                notes = [k8s.annotations(o).get(names.ANNOTATION_TUNNEL_MESSAGE) for o in mine]
                yield f"{k8s.name(job)} is not open on {host_id}: {notes}"
