"""Pools of which no worker answers while the jobs go on: one successor shows whose fault it is.

A worker is given up for silence only where another one of its cluster answers
(`slurmjob.policy.degraded`): else it may be our view that fails, and ending it would end an engine
that serves. Where there is no other, nothing would ever answer, so one is made. If it answers, the
rule there does the rest, with a fresh question to the silent one; if the silent ones answer again,
there is one too many. At most one at a time for a pool, since a view that fails makes all of them
silent at once.
"""

from isthmus.api.reasons import Reason
from isthmus.api.times import rfc3339
from isthmus.modeldeployment.observation import ModelDeploymentObservation
from isthmus.modeldeployment.policy.displacement.base import Displacement


def displaced(observed: ModelDeploymentObservation) -> tuple[Displacement, ...]:
    """The worker that has been silent for longest, of each pool in which none else is ready.

    It is due once it has been silent for as long as a start may take (`health.startupTimeout`), and
    stays so while its successor serves, until it was asked again: when our view heals, the newer
    one is asked more often and answers first.
    """
    found = []
    for pool in observed.desired.pools:
        view = observed.clusters.get(pool.name)
        if pool.backend != "slurm" or view is None or not view.reachable:
            continue
        live = observed.group(pool=pool).live_workers
        silent = {worker.name: worker.silent_since for worker in live if worker.silent_since}
        if any(worker.ready and worker.replaces not in silent for worker in live):
            continue
        tried = {worker.replaces for worker in live}
        for name in sorted(silent, key=lambda one: (one not in tried, silent[one], one))[:1]:
            since = silent[name]
            found.append(
                Displacement(
                    worker=name,
                    reason=Reason.PROBE_FAILED,
                    message=f"no worker of the pool has answered since {rfc3339(int(since))}; "
                    "another one shows whether they fail or the connection to them does",
                    ready_by=since + observed.desired.health.startup_timeout,
                    on_trial=True,
                )
            )
    return tuple(found)
