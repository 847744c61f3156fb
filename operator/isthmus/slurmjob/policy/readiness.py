"""When a worker outside the cluster is ready, where it is, and when it has had its time to start.

Ready is health, model and attempt together, as the prober found them at an address that SLURM
gave. A port comes from the job's own comment and is not trusted further than its range; the host
never comes from the job.
"""

from dataclasses import replace

from isthmus.address_rules import parse_address, special, within
from isthmus.api.conditions import Phase, Reason
from isthmus.api.ip_family import host_port
from isthmus.backends.slurm.comments import parse_comment
from isthmus.backends.slurm.records import JobRecord, PublishedEndpoint
from isthmus.engines.questions import STRANGER
from isthmus.slurmjob.observation import EndpointRules, SlurmJobObservation
from isthmus.slurmjob.policy import ejection, forwarding
from isthmus.slurmjob.record import AttemptStatus

SILENT = 30.0
"""Seconds after its start from which on the port of a job is also looked for in its run folder."""


def located(
    observed: SlurmJobObservation, *, status: AttemptStatus, record: JobRecord
) -> AttemptStatus:
    """The status with host, port and URL, where the job has published a port for this attempt.

    What is known is kept when a site rewrites the comment later, or its rules about addresses and
    ports, which a job under way keeps to as they were. A worker that was ready stays
    where it is, whatever its comment says: an engine does not move, and comments can be forged.
    """
    if status.ever_ready and status.host is not None:
        return status
    if status.host is None and (member := _membership(observed, record=record)) is not None:
        return replace(_at(status, *member), ever_ready=True, phase=Phase.READY)
    if status.host is None and not status.ever_ready and forwarding.in_rotation(observed):
        status = replace(status, ever_ready=True, phase=Phase.READY)
    published = _published(observed, record=record)
    address = _address(observed, record=record)
    if published is None or published.attempt != observed.attempt or address is None:
        return status
    problem = _refused(observed.endpoint, address=address, port=published.port)
    if problem and status.host == address and status.port is not None:
        return status
    if problem:
        return replace(
            status,
            reason=Reason.ADDRESS_REFUSED,
            message=problem,
            host=None,
            port=None,
            url=None,
        )
    refused = status.reason == Reason.ADDRESS_REFUSED
    reason = Reason.JOB_STARTING if refused else status.reason
    return replace(_at(status, address, published.port), reason=reason)


def _published(observed: SlurmJobObservation, *, record: JobRecord) -> PublishedEndpoint | None:
    """What the job says of its port: by its comment, else by the file in its run folder."""
    published = parse_comment(record.comment)
    if published is None and observed.told_port is not None:
        return PublishedEndpoint(attempt=observed.attempt, port=observed.told_port)
    return published


def silent(status: AttemptStatus, *, record: JobRecord, cluster_time: float) -> bool:
    """Whether a job runs for so long without a port in its comment that its folder is looked at.

    Some sites let nobody change the comment of a job, or write something else into it.
    """
    started = record.start_time
    return status.port is None and started is not None and cluster_time - started >= SILENT


def _membership(observed: SlurmJobObservation, *, record: JobRecord) -> tuple[str, int] | None:
    """Where the worker stands in the membership, if that is on its job's node.

    It is there because it was ready: what a wiped status has forgotten, our own slice still says.
    """
    address = _address(observed, record=record)
    target = observed.slice_target or forwarding.member(observed)
    return target if target is not None and address == target[0] else None


def _address(observed: SlurmJobObservation, *, record: JobRecord) -> str | None:
    """Of the job's node, by NodeAddr or where the site hides its nodes by name."""
    snapshot = observed.cluster.snapshot
    return None if snapshot is None else snapshot.address(record.node)


def _at(status: AttemptStatus, address: str, port: int) -> AttemptStatus:
    """The status of an attempt whose engine is at an address."""
    return replace(status, host=address, port=port, url=f"http://{host_port(address, port)}")


def _refused(rules: EndpointRules, *, address: str, port: int) -> str:
    """Why an endpoint must not get requests; "" if it may."""
    if not rules.port_from <= port <= rules.port_to:
        return (
            f"the job published port {port}, outside network.ports {rules.port_from} to "
            f"{rules.port_to}"
        )
    if "%" in address:  # a scope id may be any text, and means something on one machine alone
        return (
            "the node's address has a scope id (%…), with which nobody else can reach it: give the "
            "node a routable NodeAddr"
        )
    parsed = parse_address(address)
    if parsed is None:
        return (
            f"node address {address} is a name that cannot be looked up where the operator runs: "
            "give the nodes addresses (NodeAddr) or the operator a resolver that knows them"
        )
    if rules.networks:
        inside = within(parsed, rules.networks)
        outside = f"node address {address} lies outside network.nodeCIDRs of the SlurmCluster"
        return "" if inside else outside
    kind = special(parsed)
    if kind:
        return (
            f"node address {address} is a {kind} address: give the node another NodeAddr, or where "
            "the login host is the node list it in network.nodeCIDRs of the SlurmCluster"
        )
    return ""


def judged(observed: SlurmJobObservation, *, status: AttemptStatus, now: float) -> AttemptStatus:
    """The status of a running job with what the probes say.

    Without a verdict (an operator that has just started) the last one is kept: a restart takes
    nobody out of rotation.
    """
    status = forwarding.routed(observed, status)
    if (problem := forwarding.broken(observed, status)) is not None:
        reason, message = problem
        return forwarding.cut_off(observed, status, reason=reason, message=message, now=now)
    if observed.probe_healthy is None or forwarding.rerouted(observed, status):
        if status.phase in {Phase.READY, Phase.DEGRADED} and status.ever_ready:
            return status
        return _starting(observed, status)
    if observed.probe_healthy:
        return replace(
            status,
            phase=Phase.READY,
            ever_ready=True,
            healthy=True,
            degraded_since=None,
            probes_failed_since=None,
            reason=Reason.HEALTHY,
            message="",
        )
    if not status.ever_ready:
        return _starting(observed, status)
    identity = observed.probe_reason in STRANGER
    failing = replace(
        status,
        phase=Phase.DEGRADED,
        healthy=False,
        probes_failed_since=status.probes_failed_since or now,
        reason=Reason.IDENTITY_MISMATCH if identity else Reason.PROBE_FAILED,
        message=observed.probe_message,
    )
    return ejection.told(observed, failing)


def _starting(observed: SlurmJobObservation, status: AttemptStatus) -> AttemptStatus:
    if status.reason == Reason.ADDRESS_REFUSED:
        return replace(status, phase=Phase.STARTING, healthy=False)
    wrong = observed.probe_reason in STRANGER
    if status.port is None:
        message = "the engine is loading: the job publishes its port once its engine listens"
    elif wrong:
        message = observed.probe_message
    else:
        message = "the engine is loading"
    return replace(
        status,
        phase=Phase.STARTING,
        healthy=False,
        reason=Reason.IDENTITY_MISMATCH if wrong else Reason.JOB_STARTING,
        message=message,
    )


def mistaken(observed: SlurmJobObservation, status: AttemptStatus) -> bool:
    """Whether the probes have found somebody else where the job's engine should be.

    By what they say now, at the address and the way of now: not by what a status remembers.
    """
    return (
        status.reason == Reason.IDENTITY_MISMATCH
        and observed.probe_healthy is False
        and observed.probe_reason in STRANGER
        and not forwarding.rerouted(observed, status)
    )


def startup_left(observed: SlurmJobObservation, *, record: JobRecord) -> float | None:
    """Seconds of `startupTimeout` that a job has left; below 0 when it is over.

    Both times are the cluster's own.

    Returns:
        None for a job that was ready once or has not started.
    """
    snapshot = observed.cluster.snapshot
    if observed.status.ever_ready or record.start_time is None or snapshot is None:
        return None
    return observed.endpoint.startup_timeout - (snapshot.cluster_time - record.start_time)


def judged_at_all(observed: SlurmJobObservation, *, status: AttemptStatus, now: float) -> bool:
    """Whether a job's time to start may be held against it.

    Not before the probes have had their say, for we may have begun to look only now; nor while the
    way to it is broken, which is no fault of its own.
    """
    if status.reason in forwarding.BROKEN:
        return False
    tunnelled = forwarding.forwarded(observed, status) and status.port is not None
    # Silence through a tunnel that is said to be up: its host is dead, or would say otherwise.
    silent = observed.probe_healthy is False and observed.probe_reason == "Timeout"
    if tunnelled and (silent or not forwarding.settled(status, now=now)):
        return False
    return status.port is None or observed.probe_healthy is not None
