"""Which forwards a supervisor has to hold, read from SlurmJob objects. Pure.

The operator says which port, and whether the worker may be in traffic; where the engine listens
stands beside it. A status that was wiped takes no forward away: only an attempt that is over, or an
object that is gone, does.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from isthmus.api.conditions import TERMINAL
from isthmus.api.desired import ClusterReference
from isthmus.api.names import LABEL_DEPLOYMENT, LABEL_KEY
from isthmus.api.slurmjob import ForwardStatus, SlurmJob, SlurmJobStatus
from isthmus.apiserver.objects import (
    Object,
    deletion_timestamp,
    dig,
    labels,
    name,
    namespace,
    owner_uids,
    uid,
)
from isthmus.apiserver.reading import Reading, read_job
from isthmus.routing.slices import LABEL_SERVICE_NAME
from isthmus.routing.tunnel_slices import tunnel_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One forward.

    Attributes:
        namespace: of the SlurmJob.
        slurm_job: its name.
        uid: its uid.
        deployment: its ModelDeployment.
        service: whose membership the worker belongs to.
        cluster: its SlurmCluster.
        mode: Tunnel, NodeSSH or Reverse.
        port: on the supervisor.
        host: address of the engine's node.
        engine_port: the engine's port there.
        in_traffic: whether it may get requests.
        public_key: with which a job of mode Reverse calls, "" otherwise.
        api_key: digest of the API key that its engine wants, None for none.
    """

    namespace: str
    slurm_job: str
    uid: str
    deployment: str
    service: str
    cluster: ClusterReference
    mode: str
    port: int
    host: str
    engine_port: int
    in_traffic: bool
    public_key: str = ""
    api_key: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A SlurmJob as far as it can be read.

    Attributes:
        raw: as stored.
        job: None where something is lost without which there is none.
    """

    raw: Object
    job: SlurmJob | None


def parsed(raw: Object) -> Attempt:
    """Read a SlurmJob; what cannot be read is told once, and is as if it were not written.

    A newer release may have written it: its worker runs, and has to be reached until it ends.
    """
    try:
        found = read_job(raw)
    except RecursionError:
        found = Reading(None, "it is nested too deeply")
    if found.problem:
        _log.warning("SlurmJob %s/%s: %s", namespace(raw), name(raw), found.problem)
    return Attempt(raw, found.value)


def wanted_forwards(
    attempts: Iterable[Attempt],
    *,
    held: Mapping[str, Wanted],
    admits: Callable[[Wanted], bool] = lambda one: True,
) -> tuple[Wanted, ...]:
    """The forwards that the SlurmJobs ask for, each port once.

    Args:
        attempts: every SlurmJob, as `parsed`.
        held: by uid of the SlurmJob, what is held now.
        admits: whether one may be held at all; it claims no port otherwise.
    """
    found: dict[int, Wanted] = {}
    others: list[Wanted] = []
    for attempt in attempts:
        one = _of(attempt, held.get(uid(attempt.raw)))
        if one is None or not admits(one):
            continue
        # Of two that claim a port the one that has it keeps it.
        rival = found.setdefault(one.port, one)
        if rival is not one and _has(held, one) and not _has(held, rival):
            found[one.port], one = one, rival
        if found[one.port] is not one:
            others.append(one)
    for one in others:
        # The other one stays where it is until the operator has given it a port of its own.
        before = held.get(one.uid)
        if before is not None and before.port not in found:
            found[before.port] = replace(one, port=before.port, public_key=before.public_key)
    return tuple(sorted(found.values(), key=lambda one: (one.namespace, one.slurm_job)))


def _has(held: Mapping[str, Wanted], one: Wanted) -> bool:
    """Whether a forward is held at the very port that it asks for."""
    before = held.get(one.uid)
    return before is not None and before.port == one.port


def recalled(
    slices: Iterable[Object], *, jobs: Iterable[Object], clusters: Iterable[Object]
) -> dict[str, Wanted]:
    """What this supervisor held in an earlier life, by uid of the SlurmJob, as its slices say.

    For statuses that were wiped meanwhile: without it a restart would take the worker away.

    Args:
        slices: its own.
        jobs: every SlurmJob.
        clusters: every SlurmCluster.
    """
    known = {uid(raw): raw for raw in jobs}
    modes = {(namespace(raw), name(raw)): _mode(raw) for raw in clusters}
    found: dict[str, Wanted] = {}
    for obj in slices:
        owner, tunnel = next(iter(owner_uids(obj)), ""), tunnel_of(obj)
        raw = known.get(owner)
        if raw is None or tunnel is None or tunnel.target is None:
            continue
        place = dig(raw, "spec", "clusterRef", "namespace"), dig(raw, "spec", "clusterRef", "name")
        cluster = ClusterReference(namespace=str(place[0]), name=str(place[1]))
        found[owner] = Wanted(
            namespace=namespace(obj),
            slurm_job=name(raw),
            uid=owner,
            deployment=labels(obj).get(LABEL_DEPLOYMENT, ""),
            service=labels(obj).get(LABEL_SERVICE_NAME, ""),
            cluster=cluster,
            mode=modes.get((cluster.namespace, cluster.name), "Tunnel"),
            port=tunnel.port,
            host=tunnel.target[0],
            engine_port=tunnel.target[1],
            in_traffic=tunnel.ready,
            api_key=labels(obj).get(LABEL_KEY),
        )
    return found


def _mode(cluster: Object) -> str:
    """How an attempt is reached whose status says nothing: as the next one would be."""
    mode = str(dig(cluster, "spec", "network", "mode", default="Auto"))
    return mode if mode in ("NodeSSH", "Reverse") else "Tunnel"


def over(jobs: Iterable[Object]) -> frozenset[str]:
    """Uids of the SlurmJobs whose attempt has ended: nobody wants a forward to it any more."""
    return frozenset(uid(raw) for raw in jobs if _is_over(raw))


def _is_over(raw: Object) -> bool:
    phase = dig(raw, "status", "phase")
    return isinstance(phase, str) and phase in TERMINAL


def _of(attempt: Attempt, held: Wanted | None) -> Wanted | None:
    """What one SlurmJob asks for; one that cannot be read keeps what it has until it is over."""
    if attempt.job is not None:
        return _wanted(attempt.job, held)
    if held is None or _is_over(attempt.raw):
        return None
    return replace(held, in_traffic=False) if deletion_timestamp(attempt.raw) else held


def _wanted(job: SlurmJob, held: Wanted | None) -> Wanted | None:
    status = job.status or SlurmJobStatus()
    if status.phase in TERMINAL:
        return None
    forward = status.forward
    if forward is None or forward.port is None:
        # Wiped, or not written yet. What we hold we go on holding, unless it is to end.
        gone = job.metadata.deleting
        return replace(held, in_traffic=False) if held is not None and gone else held
    host, port = _engine(status, forward, held)
    known = "" if held is None or held.port != forward.port else held.public_key
    if not host or not port:
        return None
    return Wanted(
        namespace=job.metadata.namespace,
        slurm_job=job.metadata.name,
        uid=job.metadata.uid,
        deployment=job.spec.deployment,
        api_key=job.metadata.labels.get(LABEL_KEY),
        service=forward.service or job.spec.deployment,
        cluster=job.spec.cluster,
        mode=forward.mode or "Tunnel",
        port=forward.port,
        host=host,
        engine_port=port,
        in_traffic=bool(forward.in_traffic) and not job.metadata.deleting,
        public_key=forward.public_key or known,
    )


def _engine(status: SlurmJobStatus, forward: ForwardStatus, held: Wanted | None) -> tuple[str, int]:
    """Where the engine listens; what is held stays while the status does not say."""
    if status.host and status.port:
        return status.host, status.port
    if held is not None and held.port == forward.port:
        return held.host, held.engine_port
    return "", 0
