"""Which forward a worker wants, whether it may get requests, and what its tunnels say.

A worker that pods cannot reach wants a port on the tunnel supervisor. The operator says so in the
SlurmJob's status (port, and whether the worker may be in traffic) and nothing else; supervisors
hold the forwards and publish them. A broken way says nothing about the worker: it stays, and what
it was allowed to do it may do again as soon as the way is back.
"""

from collections.abc import Collection
from dataclasses import replace

from isthmus.api.base import ConditionModel
from isthmus.api.conditions import (
    PROBED,
    TERMINAL,
    UNSUBMITTED,
    ConditionType,
    Phase,
    Reason,
    set_condition,
)
from isthmus.api.ip_family import host_port
from isthmus.api.times import epoch
from isthmus.routing.tunnel_slice import TunnelSlice
from isthmus.rules.conditions import models, typed
from isthmus.slurmjob.actions import Submit
from isthmus.slurmjob.observation import SlurmJobObservation, SlurmJobPlan
from isthmus.slurmjob.policy.rotation import forwards_requests, gets_requests
from isthmus.slurmjob.record import AttemptStatus, Forward

BROKEN = frozenset({Reason.TUNNEL_DOWN, Reason.TUNNEL_AWAITED})
"""Reasons that speak of the way to a worker and say nothing about the worker."""
SETTLED = 60.0
"""Seconds after which a way that works again is judged by: some probes."""
BEGINNING = 60.0
"""Seconds in which a way that has never worked is being made, and is not called broken yet."""
_NEEDED = PROBED | {Phase.DRAINING}


def choose_port(*, seed: int, taken: Collection[int], first: int, last: int) -> int | None:
    """The first free port from a place that depends on the attempt; None if all are taken.

    Two attempts seldom begin at the same place, so that a port of one that has just ended is not
    the next one's, even where nobody remembers it.
    """
    size = last - first + 1
    ports = (first + (seed + step) % size for step in range(size))
    return next((port for port in ports if port not in taken), None)


def forwarded(observed: SlurmJobObservation, status: AttemptStatus) -> bool:
    """Whether the worker is reached through a forward: as it was submitted, else as configured."""
    return status.forward is not None or observed.network.mode != "Direct"


def in_rotation(observed: SlurmJobObservation) -> bool:
    """Whether any supervisor still lets requests through to the worker."""
    return any(tunnel.ready for tunnel in observed.network.tunnels)


def member(observed: SlurmJobObservation) -> tuple[str, int] | None:
    """Address and port of the engine to which a supervisor lets requests through."""
    return next((t.target for t in observed.network.tunnels if t.ready and t.target), None)


def best_tunnel(observed: SlurmJobObservation, *, url: str | None) -> TunnelSlice | None:
    """The tunnel to probe through: up, in rotation, of these the one in use, then by host.

    One that refuses our probes is used only if there is no other: its supervisor is gone, and its
    slice not yet.
    """
    refused = observed.status.url if _refuses(observed) else None

    def rank(one: TunnelSlice) -> tuple[bool, bool, bool, bool, str]:
        its = tunnel_url(one)
        return (not one.up, its == refused, not one.ready, its != url, one.host)

    return min(observed.network.tunnels, key=rank, default=None)


def _refuses(observed: SlurmJobObservation) -> bool:
    return observed.probe_healthy is False and observed.probe_reason == "Refused"


def tunnel_url(tunnel: TunnelSlice) -> str:
    """URL of the worker through a tunnel."""
    return f"http://{host_port(tunnel.address, tunnel.port)}"


def routed(observed: SlurmJobObservation, status: AttemptStatus) -> AttemptStatus:
    """The status with the URL by which the worker is reached, where that is a forward."""
    if not forwarded(observed, status):
        return status
    tunnel = best_tunnel(observed, url=status.url)
    url = None if tunnel is None else tunnel_url(tunnel)
    return status if url == status.url else replace(status, url=url)


def detours(observed: SlurmJobObservation, status: AttemptStatus) -> tuple[str, ...]:
    """URLs of the forwards that are up, but for the one in use.

    A worker that drains is asked there too what it holds, before its silence is believed: the
    supervisor of the one in use may be cut off, and has not noticed yet.
    """
    urls = (tunnel_url(tunnel) for tunnel in observed.network.tunnels if tunnel.up)
    return tuple(url for url in urls if url != status.url)


def rerouted(observed: SlurmJobObservation, status: AttemptStatus) -> bool:
    """Whether what the probes said is about another way than the one that is used from now on."""
    before = observed.status.url
    return forwarded(observed, status) and before is not None and before != status.url


def broken(observed: SlurmJobObservation, status: AttemptStatus) -> tuple[Reason, str] | None:
    """Why a worker that has a known port cannot be reached, if its tunnel is the cause.

    A forward accepts connections even where nobody listens behind it, so a refused connection
    comes from a tunnel host that is gone, never from the engine.
    """
    if not forwarded(observed, status) or status.port is None:
        return None
    tunnel = best_tunnel(observed, url=status.url)
    if tunnel is None:
        return (
            Reason.TUNNEL_AWAITED,
            "no tunnel supervisor holds its forward yet: check that `isthmus tunnels` runs, and "
            "its log for this SlurmJob",
        )
    if not tunnel.up:
        return Reason.TUNNEL_DOWN, f"tunnel of {tunnel.host}: {tunnel.message or 'not up'}"
    if _refuses(observed) and tunnel_url(tunnel) == observed.status.url:
        return (
            Reason.TUNNEL_DOWN,
            f"tunnel host {tunnel.host} does not listen on "
            f"{host_port(tunnel.address, tunnel.port)}",
        )
    return None


def beginning(observed: SlurmJobObservation, *, now: float) -> bool:
    """Whether the way to a worker that starts is still being made, for the first time.

    Every start goes through it: a supervisor hears of the forward when the job has published its
    port, and then has to ask once. `TunnelUp` is Unknown meanwhile.
    """
    status = observed.status
    if status.ever_ready or in_rotation(observed) or (status.forward and status.forward.in_traffic):
        return False
    found = _tunnel_up(status)
    if found is None:
        return True
    since = _since(found)
    return found.status == "Unknown" and since is not None and 0 <= now - since < BEGINNING


def settled(status: AttemptStatus, *, now: float) -> bool:
    """Whether the way has worked for so long that the probes through it tell of the worker.

    What they said before, or while it was being made, was about the way.
    """
    found = _tunnel_up(status)
    if found is None or found.status != "True":
        return False
    since = _since(found)
    return since is not None and now - since >= SETTLED


def _tunnel_up(status: AttemptStatus) -> ConditionModel | None:
    return next((c for c in status.conditions if c.type == ConditionType.TUNNEL_UP), None)


def _since(condition: ConditionModel) -> float | None:
    return epoch(condition.last_transition_time)


def cut_off(
    observed: SlurmJobObservation,
    status: AttemptStatus,
    *,
    reason: Reason,
    message: str,
    now: float,
) -> AttemptStatus:
    """The status of a worker that cannot be reached by its tunnel: its health is not known."""
    if beginning(observed, now=now):
        reason, message = Reason.JOB_STARTING, f"its forward is being established: {message}"
    was_ready = bool(status.ever_ready)
    return replace(
        status,
        phase=Phase.DEGRADED if was_ready else Phase.STARTING,
        healthy=None,
        probes_failed_since=None,
        reason=reason,
        message=message,
    )


def with_forward(observed: SlurmJobObservation, plan: SlurmJobPlan, *, now: float) -> SlurmJobPlan:
    """Add the forward that the worker wants, and the condition that says how it is."""
    status, forward = plan.status, _forward(observed, plan.status)
    if forward != status.forward:
        status = replace(status, forward=forward)
    if status.phase == Phase.DRAINING:
        status = routed(observed, status)  # its metrics are read until it is idle
    actions = tuple(
        Submit(before=_told(observed, action.before)) if isinstance(action, Submit) else action
        for action in plan.actions
    )
    status = _with_condition(observed, status, now=now)
    again = plan.requeue_after
    found = _tunnel_up(status)
    if found is not None and found.status == "Unknown":
        since = _since(found) or now
        left = max(1.0, since + BEGINNING - now)
        again = left if again is None else min(again, left)
    return replace(plan, status=status, actions=actions, requeue_after=again)


def _told(observed: SlurmJobObservation, status: AttemptStatus) -> AttemptStatus:
    """The status that is written before a submission: the job may have to know its port."""
    return replace(status, forward=_forward(observed, status))


def _forward(observed: SlurmJobObservation, status: AttemptStatus) -> Forward | None:
    phase = status.phase
    if phase in TERMINAL:
        return None
    if not forwarded(observed, status):
        return None
    before = status.forward
    if before is None:
        if phase in UNSUBMITTED and not observed.network.tunnels:
            return None
        # What a wiped status has forgotten, the supervisor's slice still says.
        port = next((t.port for t in observed.network.tunnels), observed.network.free_port)
        if port is None:
            return None
        before = Forward(mode=observed.network.mode, port=port)
    elif observed.network.port_lost and observed.network.free_port is not None:
        before = replace(before, port=observed.network.free_port)
    return replace(
        before,
        in_traffic=_in_traffic(observed, status),
        service=observed.network.service,
    )


def _in_traffic(observed: SlurmJobObservation, status: AttemptStatus) -> bool:
    if observed.deleting:
        return False
    if gets_requests(status):
        return True
    before = forwards_requests(observed.status)
    if status.phase in UNSUBMITTED and not observed.clear:
        return before or in_rotation(observed)  # wiped and not seen: nothing is taken away
    return before and status.phase == Phase.DEGRADED and status.reason in BROKEN


def _with_condition(
    observed: SlurmJobObservation, status: AttemptStatus, *, now: float
) -> AttemptStatus:
    before = status.conditions
    needed = status.forward is not None and status.phase in _NEEDED and status.port is not None
    if not needed:
        kept = tuple(c for c in before if c.type != ConditionType.TUNNEL_UP)
        return status if len(kept) == len(before) else replace(status, conditions=kept)
    tunnel = best_tunnel(observed, url=status.url)
    problem = broken(observed, status)
    reason, message = problem or (
        Reason.TUNNEL_ESTABLISHED,
        "" if tunnel is None else f"{tunnel.host}: {tunnel.message}",
    )
    up: bool | None = problem is None
    if not up and beginning(observed, now=now):
        up, reason = None, Reason.JOB_STARTING
    conditions = set_condition(
        map(typed, before),
        type=ConditionType.TUNNEL_UP,
        status=up,
        reason=reason,
        message=message,
        now=now,
    )
    return replace(status, conditions=models(conditions))
