"""The reconciler of ModelDeployment: observes, plans, acts, writes once."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from isthmus.api.conditions import PendingClass, Reason
from isthmus.api.desired import Desired
from isthmus.api.modeldeployment_status import ModelDeploymentStatus
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.key import Key, spread
from isthmus.apiserver.objects import Object, deletion_timestamp, dig
from isthmus.apiserver.reading import to_be_deleted
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS
from isthmus.apiserver.statuses import write_status
from isthmus.errors import SecretMissingError
from isthmus.guarded import unreadable
from isthmus.modeldeployment.actions import (
    AsksForWorkers,
    DeploymentAction,
    ReleasePod,
    may_wait,
)
from isthmus.modeldeployment.drain_events import tell_of_cut_pod
from isthmus.modeldeployment.execute import DeploymentActions
from isthmus.modeldeployment.execute_pods import PodAction, PodActions
from isthmus.modeldeployment.failures import REFUSALS, Failure, Failures, failure, with_failures
from isthmus.modeldeployment.keys import DeploymentKeys
from isthmus.modeldeployment.observation import ModelDeploymentObservation, ModelDeploymentPlan
from isthmus.modeldeployment.observe import DeploymentObserver, Meaning, status_of
from isthmus.modeldeployment.plan import plan_model_deployment
from isthmus.rules.actions import RemoveFinalizer
from isthmus.telemetry.events import EventSink
from isthmus.telemetry.report import report

_REFUSED_RETRY_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Executors:
    """Who does what a plan asks for: of a deployment's objects, and of its pods."""

    objects: DeploymentActions
    pods: PodActions


class _End(Enum):
    """How far the actions of a pass came."""

    WHOLE = auto()
    ASKED = auto()
    """Workers are asked for: those of others come before our Service and status."""
    GONE = auto()
    """The object was let go."""


class ModelDeploymentReconciler:
    """One pass over one ModelDeployment per call."""

    def __init__(
        self,
        *,
        observer: DeploymentObserver,
        api: ApiServer,
        executors: Executors,
        keys: DeploymentKeys,
        events: EventSink,
        clock: Callable[[], float],
        resync: float,
    ) -> None:
        """Prepare.

        Args:
            observer: reads what there is.
            api: gated; its answers go into the store.
            executors: do what is planned.
            keys: the API keys of the workers.
            events: told of each transition.
            clock: the wall clock, epoch seconds.
            resync: seconds after which a deployment is looked at again although nothing changed.
        """
        self._observer = observer
        self._api = api
        self._executors = executors
        self._keys = keys
        self._events = events
        self._clock = clock
        self._resync = resync

    async def reconcile(self, key: Key) -> float | None:
        """Make one pass over the ModelDeployment."""
        raw = self._observer.find(key)
        if raw is None:
            return None
        try:
            meaning = self._observer.meaning(raw)
        except ValueError as error:
            if deletion_timestamp(raw) is None:
                # An object of another release's schema: nothing that runs is touched.
                await self._say(raw, _invalid(unreadable(error)))
                return None
            meaning = Meaning(desired=to_be_deleted(raw), current={}, status=status_of(raw))
        if lost := self._observer.unreadable_jobs(meaning.desired):
            # They may run, and nobody could say of which pool they are.
            await self._say(raw, _invalid(lost))
            return None
        failures, clients = Failures(), None
        if not meaning.desired.deleting:
            try:
                meaning = await self._with_key(raw, meaning, failures)
            except (*REFUSALS, SecretMissingError) as error:
                # Without a key nothing new can be made, and what runs is not touched.
                await self._say(raw, failure(error))
                return _REFUSED_RETRY_SECONDS
            clients = await self._keys.clients_problem(meaning.desired)
        observed = self._observer.observe(raw, meaning, client_keys_problem=clients)
        self._observer.follow_draining(observed)
        now = self._clock()
        plan = plan_model_deployment(observed, now=now)
        raw, came_to = await self._execute(plan, raw, failures, desired=observed.desired)
        if came_to is not _End.WHOLE:
            return None if came_to is _End.GONE else 0.0
        again = await self._finish(plan, raw, failures, observed=observed, now=now)
        resync = spread(self._resync, key=key)
        return resync if again is None else min(again, resync)

    async def _with_key(self, raw: Object, meaning: Meaning, failures: Failures) -> Meaning:
        """The same with the digest of the workers' key, which is part of their revisions."""
        told = dig(raw, "status", "apiKey") is not None
        desired, lacks = await self._keys.settled(meaning.desired, had_key=told)
        if lacks:
            failures.note(Failure(Reason.API_KEY_UNUSABLE, PendingClass.NEVER, lacks))
        return meaning.with_key(desired)

    async def _execute(
        self, plan: ModelDeploymentPlan, raw: Object, failures: Failures, *, desired: Desired
    ) -> tuple[Object, "_End"]:
        """Execute the actions, first those that workers wait for; the object as it is then."""
        for waits in (False, True):
            asked = False
            for action in (each for each in plan.actions if may_wait(each) is waits):
                if failures.hinder(action):
                    continue
                try:
                    raw = await self._act(action, raw=raw, desired=desired)
                except (*REFUSALS, SecretMissingError) as error:
                    failures.add(action, error)
                    continue
                if isinstance(action, RemoveFinalizer):
                    return raw, _End.GONE
                asked = asked or isinstance(action, AsksForWorkers)
            if asked:
                return raw, _End.ASKED
        return raw, _End.WHOLE

    async def _finish(
        self,
        plan: ModelDeploymentPlan,
        raw: Object,
        failures: Failures,
        *,
        observed: ModelDeploymentObservation,
        now: float,
    ) -> float | None:
        """Forget keys, write the status and report; when to look again, None: on change."""
        status, again = self._with_last_key(plan.status, observed), plan.requeue_after
        try:
            await self._keys.forget_unused(observed.desired)
        except REFUSALS as error:
            failures.note(failure(error))
        if failures.found:
            status = with_failures(status, failures.found, before=observed.status, now=now)
            again = min(again or _REFUSED_RETRY_SECONDS, _REFUSED_RETRY_SECONDS)
        await write_status(self._api, MODEL_DEPLOYMENTS, obj=raw, status=status)
        report(self._events, raw, before=observed.status, after=status)
        return again

    def _with_last_key(
        self, status: ModelDeploymentStatus, observed: ModelDeploymentObservation
    ) -> ModelDeploymentStatus:
        """Clients are told of the key until no worker has it; by that it is known to be there."""
        last = observed.status.api_key
        if status.api_key is not None or last is None or observed.desired.deleting:
            return status
        in_use = self._keys.in_use(observed.desired)
        return status.model_copy(update={"api_key": last}) if in_use else status

    async def _act(self, action: DeploymentAction, *, raw: Object, desired: Desired) -> Object:
        """Execute one action; returns the ModelDeployment as it is stored then."""
        if isinstance(action, PodAction):
            await self._executors.pods.execute(action, desired=desired)
            if isinstance(action, ReleasePod):
                tell_of_cut_pod(self._events, raw, action)
            return raw
        return await self._executors.objects.execute(action, raw=raw, desired=desired)

    async def _say(self, raw: Object, failed: Failure) -> None:
        """Write a failure into the conditions and leave the rest of the status as it is."""
        status = status_of(raw)
        told = with_failures(status, [failed], before=status, now=self._clock())
        await write_status(self._api, MODEL_DEPLOYMENTS, obj=raw, status=told)


def _invalid(problem: str) -> Failure:
    return Failure(Reason.INVALID_SPEC, PendingClass.NEVER, problem)
