"""The reconciler of SlurmJob: one attempt and one SLURM job, brought together.

Observing (`observe.py`) and planning (`plan.py`) need no I/O; what the plan asks for is done here,
in its order, by `execute.py` and `submit.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from isthmus.api.slurmjob import SlurmJob
from isthmus.apiserver.clusters import cluster_of
from isthmus.apiserver.forgetting import when_gone
from isthmus.apiserver.key import Key, spread
from isthmus.apiserver.objects import Object, dig
from isthmus.apiserver.reading import read_job
from isthmus.apiserver.resources import SLURM_JOBS
from isthmus.apiserver.statuses import tell_unreadable, write_status
from isthmus.errors import NameTakenError, SlurmError
from isthmus.rules.actions import AddFinalizer, RemoveFinalizer
from isthmus.slurmcluster.submission_line import LOOK_AGAIN, Turn
from isthmus.slurmjob.action_failures import ActionFailures
from isthmus.slurmjob.actions import CloseGate, Submit
from isthmus.slurmjob.execute import SlurmJobActions
from isthmus.slurmjob.forward_ports import ForwardPorts
from isthmus.slurmjob.key_files import KeyStaging
from isthmus.slurmjob.observation import SlurmJobObservation, SlurmJobPlan
from isthmus.slurmjob.observe import Parts, SlurmJobObserver
from isthmus.slurmjob.ownership import ownership
from isthmus.slurmjob.plan import plan_slurm_job
from isthmus.slurmjob.policy.forwarding import detours
from isthmus.slurmjob.policy.polling import LEAST, LOOK_EVERY, look_in
from isthmus.slurmjob.probes import WorkerProbes
from isthmus.slurmjob.record import AttemptStatus
from isthmus.slurmjob.refused_jobs import refuse
from isthmus.slurmjob.sides import ApiSide, Installation, SlurmSide
from isthmus.slurmjob.start_gate import waits_for
from isthmus.slurmjob.stored_status import is_stored, stored_status
from isthmus.slurmjob.submit import Submissions
from isthmus.telemetry.report import report


@dataclass(frozen=True, slots=True)
class _Done:
    """What has become of a plan's actions.

    Attributes:
        raw: the SlurmJob as it is stored now.
        status: to be written; None where the pass ends with what was done.
        again: seconds until the next look at one whose pass ends so, None for the next change.
    """

    raw: Object
    status: AttemptStatus | None
    again: float | None = None


class SlurmJobReconciler:
    """Observes, plans and acts for one SlurmJob per call."""

    def __init__(
        self,
        *,
        api: ApiSide,
        slurm: SlurmSide,
        probes: WorkerProbes,
        staging: KeyStaging,
        ports: ForwardPorts,
        installation: Installation,
        clock: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            api: the API server.
            slurm: the clusters.
            probes: probes of running workers.
            staging: brings API keys to the jobs.
            ports: of forwards.
            installation: what is set for all of them.
            clock: wall clock, epoch seconds.
        """
        self._api = api
        self._slurm = slurm
        self._probes = probes
        self._staging = staging
        self._ports = ports
        self._installation = installation
        self._clock = clock
        self._observer = SlurmJobObserver(
            store=api.store,
            slurm=slurm,
            probes=probes,
            ports=ports,
            installation=installation,
            clock=clock,
        )
        self._actions = SlurmJobActions(api=api, slurm=slurm)
        self._submissions = Submissions(
            api=api, slurm=slurm, staging=staging, installation=installation, clock=clock
        )
        self._failures = ActionFailures()
        when_gone(api.store, SLURM_JOBS, self._forget)

    async def reconcile(self, key: Key) -> float | None:
        """Make one pass over the SlurmJob."""
        raw = self._api.store.get(SLURM_JOBS, key.namespace, key.name)
        if raw is None:
            self._probes.forget(key)
            self._ports.release(key)
            self._failures.forget(key)
            return None
        try:
            return await self._pass(key, raw)
        except (SlurmError, NameTakenError) as error:
            await self._tell_failure(key, error)
            raise

    async def _tell_failure(self, key: Key, error: SlurmError | NameTakenError) -> None:
        """Say what is tried in vain, beside what is known of the attempt."""
        raw = self._api.store.get(SLURM_JOBS, key.namespace, key.name)
        job = None if raw is None else self._api.store.derived.of(raw, read_job).value
        if raw is None or job is None:
            return
        status = stored_status(raw, store=self._api.store)
        told = self._failures.told(key, status, error, now=self._clock())
        await self._write(raw, told, before=job)

    async def _pass(self, key: Key, raw: Object) -> float | None:
        store, resync = self._api.store, spread(self._installation.resync, key=key)
        owned = ownership(raw, store=store, installation_id=self._installation.identity)
        if owned.problem:
            self._probes.forget(key)
            self._ports.release(key)
            await refuse(self._api.api, store, raw, problem=owned.problem)
            return resync
        job = store.derived.of(raw, read_job)
        if job.value is None:
            await tell_unreadable(self._api.api, SLURM_JOBS, raw, job.problem)
            return None
        parts = self._observer.parts(raw, job.value, unread=job.problem)
        observed = self._observer.observe(key, parts, owner_is_there=owned.owner_is_there)
        plan = plan_slurm_job(observed, now=self._clock())
        await self._probe(key, parts, observed, plan)
        done = await self._carry_out(key, parts, plan)
        if done.status is None:
            return done.again
        status = self._failures.settled(key, done.status, done=plan.actions, now=self._clock())
        if done.raw is not raw or not is_stored(raw, status, store=store):
            await self._write(done.raw, status, before=parts.job)
        await self._staging.keep(
            job=parts.job, frozen=parts.frozen, cluster=parts.cluster, status=status
        )
        again = self._again(parts, observed, status=status, requeue_after=plan.requeue_after)
        # Not everything that makes a difference is a change: a snapshot only grows old.
        return resync if again is None else min(again, resync)

    async def _probe(
        self, key: Key, parts: Parts, observed: SlurmJobObservation, plan: SlurmJobPlan
    ) -> None:
        around = detours(observed, plan.status)
        await self._probes.watch(key, parts.probed(plan.status, detours=around))
        if plan.probe_now:
            self._probes.probe_now(key)

    async def _carry_out(self, key: Key, parts: Parts, plan: SlurmJobPlan) -> _Done:
        """Do what the plan asks for, in its order."""
        reference = parts.job.spec.cluster
        raw, status = parts.raw, plan.status
        if not any(isinstance(action, Submit) for action in plan.actions):
            self._submissions.withdraw(key, reference)
        for action in plan.actions:
            self._failures.begin(key, action, planned=plan.status)
            if isinstance(action, RemoveFinalizer):
                await self._release(key, parts, raw)
                return _Done(raw, None)
            if isinstance(action, AddFinalizer):
                raw = await self._actions.finalizer(raw, present=True)
            elif isinstance(action, Submit):
                turn = self._submissions.enter(key, reference)
                if turn is Turn.WAITING:  # of one that has just joined nothing is written
                    await self._write(raw, status)
                if turn is not Turn.NOW:
                    return _Done(raw, None, LOOK_AGAIN)
                raw, status = await self._submissions.make(key, parts, action, waiting=status)
            elif isinstance(action, CloseGate):
                gate = await self._actions.close_gate(parts)
                if (found := waits_for(gate, action, status, now=self._clock())) is not None:
                    await self._write(raw, found)
                    self._slurm.clusters.poke(reference)
                    return _Done(raw, None, LOOK_EVERY)
            else:
                await self._actions.execute(parts, action)
        return _Done(raw, status)

    async def _release(self, key: Key, parts: Parts, raw: Object) -> None:
        """Let the object go: nothing of its attempt is left."""
        await self._staging.remove(job=parts.job, frozen=parts.frozen, cluster=parts.cluster)
        await self._actions.finalizer(raw, present=False)
        self._probes.forget(key)

    async def _write(
        self, raw: Object, status: AttemptStatus, *, before: SlurmJob | None = None
    ) -> None:
        """Write a status. `before` has the one against which changes are told."""
        told = status.write()
        raw = await write_status(self._api.api, SLURM_JOBS, obj=raw, status=told)
        if before is not None:
            report(self._api.events, raw, before=before.status, after=told)

    def _again(
        self,
        parts: Parts,
        observed: SlurmJobObservation,
        *,
        status: AttemptStatus,
        requeue_after: float | None,
    ) -> float | None:
        """When to look again; a start that is awaited has its cluster looked at sooner."""
        soon = look_in(observed, status=status, now=self._clock())
        if soon is None:
            return requeue_after
        if soon == 0.0:
            self._slurm.clusters.poke(parts.job.spec.cluster)
            soon = LEAST
        return soon if requeue_after is None else min(soon, requeue_after)

    def _forget(self, gone: Object) -> None:
        """Of an attempt whose object is gone, however it went."""
        job_name = str(dig(gone, "spec", "jobName", default=""))
        self._staging.forget(job_name)
        self._slurm.states.forget_job(cluster_of(gone), job_name)
