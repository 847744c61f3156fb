"""How a Deployment comes to fewer pods without cutting a request.

Pods that serve leave the rotation first: marked, without their traffic label, the cheapest to
delete. When the mark is old enough and their requests are done (policy.drain), `replicas` goes
down, and the ReplicaSet takes them. Until then nothing is lost: a pod that is wanted again gets its
label back. So does one that was released and that the ReplicaSet did not take, for it prefers pods
that are not ready. Pods that serve nobody, and replicas without a pod, need no drain.

If the operator cannot reach the pods, their metrics are silent: then the hook inside the pod, which
asks for itself, does the waiting.
"""

from collections.abc import Callable
from dataclasses import dataclass

from isthmus.backends.base import Load, Worker, WorkerGroup
from isthmus.modeldeployment.actions import (
    DeploymentAction,
    DrainPods,
    ReleasePod,
    ReturnPod,
    ScaleDeployment,
    ShortenPod,
)
from isthmus.rules.clocks import TOLERANCE
from isthmus.rules.drain import DrainTimes, Proceed, Wait, decide

_PATIENCE = 15.0
"""Seconds in which a ReplicaSet takes a released pod, if it takes it at all."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Actions in order, and when to look again (seconds, None: on change)."""

    actions: tuple[DeploymentAction, ...] = ()
    again: float | None = None


def steps(
    group: WorkerGroup,
    *,
    count: int,
    order: Callable[[Worker], tuple[float | str, ...]],
    times: DrainTimes,
    shutdown: float,
    now: float,
) -> Steps:
    """Bring the pods of one existing Deployment to a number, and what drains along.

    Args:
        group: the pods; `wanted` is without those that drain.
        count: pods to keep.
        order: the cheapest worker to lose first, where their loads do not tell.
        times: floor and budget of the drain.
        shutdown: seconds for a pod that has used up its budget, from its deletion on.
        now: epoch seconds.
    """
    early = _of_the_future(group, now=now)
    if early:
        return Steps(actions=early)
    late, patience = _left_behind(group, shutdown=shutdown, now=now)
    back = tuple(action for action in late if isinstance(action, ReturnPod))
    if back:
        # First: a scaling that was refused for long must not come to pass on a pod that returns.
        return Steps(actions=back)
    waiting = sorted(group.waiting, key=lambda w: (w.draining.since if w.draining else 0.0, w.name))
    key = {"pool": group.pool, "revision": group.revision}
    replicas = group.wanted + len(waiting)
    actions: list[DeploymentAction] = []
    if count > group.wanted:
        kept = waiting[-(count - group.wanted) :]
        waiting = waiting[: len(waiting) - len(kept)]
        actions += [ReturnPod(name=worker.name, uid=worker.uid) for worker in kept]
        wanted_now = count + len(waiting)
    else:
        leave = group.wanted - count
        serving = [worker for worker in group.live_workers if worker.serving]
        unused = min(leave, max(0, group.wanted - len(serving)))
        wanted_now = replicas - unused
        if leave > unused:
            names = tuple(worker.name for worker in sorted(serving, key=order))
            actions.append(DrainPods(**key, count=leave - unused, candidates=names, since=now))
    released, again = _released(tuple(waiting), times=times, now=now)
    actions += released
    wanted_now -= len(released)
    if wanted_now != replicas:
        actions.append(ScaleDeployment(**key, replicas=wanted_now))
    actions += late
    waits = [moment for moment in (again, patience) if moment is not None]
    return Steps(actions=tuple(actions), again=min(waits, default=None))


def _of_the_future(group: WorkerGroup, *, now: float) -> tuple[ReturnPod, ...]:
    """Pods that our clock, set back since, marked later than now: back, to be marked anew.

    They would be waited for as long as it was set back by (`clocks`; simulation, seed 1803).
    """
    return tuple(
        ReturnPod(name=worker.name, uid=worker.uid)
        for worker in group.workers
        if worker.draining is not None
        and worker.draining.grace is None
        and not worker.failed
        and max(worker.draining.since, worker.draining.released_at or 0.0) > now + TOLERANCE
    )


def _released(
    waiting: tuple[Worker, ...], *, times: DrainTimes, now: float
) -> tuple[list[ReleasePod], float | None]:
    """The pods that may go now, and seconds until the others are looked at again."""
    released, again = [], None
    for worker in waiting:
        assert worker.draining is not None
        decision = decide(
            out_since=worker.draining.since,
            now=now,
            load=worker.load or Load(requests=None),
            times=times,
        )
        if isinstance(decision, Wait):
            again = decision.seconds if again is None else min(again, decision.seconds)
        else:
            released.append(_release(worker, decision, now=now, budget=times.budget))
    return released, again


def _release(worker: Worker, decision: Proceed, *, now: float, budget: float) -> ReleasePod:
    cut = decision.cut if decision.over else None
    return ReleasePod(name=worker.name, uid=worker.uid, at=now, cut=cut or None, budget=budget)


def _left_behind(
    group: WorkerGroup, *, shutdown: float, now: float
) -> tuple[list[DeploymentAction], float | None]:
    """Released pods: taken with a budget that is used up already, or not taken at all."""
    actions: list[DeploymentAction] = []
    again = None
    for worker in group.workers:
        state = worker.draining
        if state is None or state.released_at is None or worker.failed:
            continue
        if state.grace is not None:
            if state.cut and state.grace > shutdown:
                actions.append(ShortenPod(name=worker.name, uid=worker.uid, seconds=int(shutdown)))
            continue
        left = state.released_at + _PATIENCE - now
        if left <= 0:
            actions.append(ReturnPod(name=worker.name, uid=worker.uid))
        else:
            again = left if again is None else min(again, left)
    return actions, again
