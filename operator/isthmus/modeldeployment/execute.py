"""Executes what a ModelDeployment's plan asks for, one action at a time.

Objects are created, never applied over what is there: a foreign object under a name that we need
is a conflict to be told, not to be overwritten.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from isthmus.api import names
from isthmus.api.desired import Desired, Pool
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import (
    Object,
    deletion_timestamp,
    dig,
    labels,
    metadata,
    name,
    namespace,
    owner_uids,
    uid,
)
from isthmus.apiserver.resources import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    MODEL_DEPLOYMENTS,
    SERVICES,
    SLURM_CLUSTERS,
    SLURM_JOBS,
    Resource,
)
from isthmus.apiserver.statuses import set_finalizer
from isthmus.apiserver.store import Store
from isthmus.backends.kubernetes import render
from isthmus.backends.slurm import frozen as freezing
from isthmus.errors import (
    ApiAlreadyExistsError,
    ApiForbiddenError,
    ApiInvalidError,
    ApiNotFoundError,
    ApiUnclearError,
    NameTakenError,
)
from isthmus.modeldeployment.actions import (
    CreateDeployment,
    CreateRevision,
    CreateSlurmJob,
    DeleteDeployment,
    DeleteFront,
    DeleteRevision,
    DeleteSlurmJob,
    DeploymentAction,
    EnsureFront,
    EnsureService,
    FreezeDeployment,
    ScaleDeployment,
)
from isthmus.modeldeployment.execute_front import delete_front, ensure_front
from isthmus.rules.actions import AddFinalizer, RemoveFinalizer
from isthmus.settings import Settings

_UNANSWERED = 64
"""Intents without an answer from which on those of deployments that are gone are forgotten."""


class AttemptDigest(Protocol):
    """Tells which key of its own a new attempt gets."""

    async def __call__(self, desired: Desired, *, job_name: str) -> str | None:
        """Return its digest, None where it gets the deployment's key, or none."""


class DeploymentActions:
    """Executes actions through a gated API server."""

    def __init__(
        self,
        *,
        store: Store,
        api: ApiServer,
        settings: Settings,
        new_attempt: Callable[[], str],
        attempt_digest: AttemptDigest,
    ) -> None:
        """Prepare.

        Args:
            store: read for objects that actions name.
            api: gated; its answers go into the store.
            settings: the operator's.
            new_attempt: draws an attempt token, six characters of [a-z0-9].
            attempt_digest: which key of its own an attempt gets, see `AttemptKeys.digest`.
        """
        self._store = store
        self._api = api
        self._settings = settings
        self._new_attempt = new_attempt
        self._attempt_digest = attempt_digest
        # A create without an answer may have been committed: the same token is used again until
        # the API server has answered, so that one intent never becomes two.
        self._unanswered: dict[tuple[str, str, int], str] = {}  # uid, pool, slot → token

    async def execute(self, action: DeploymentAction, *, raw: Object, desired: Desired) -> Object:
        """Execute one action; returns the ModelDeployment as it is stored then.

        Raises:
            NameTakenError: an object of a name that we need is not ours.
            ApiError: as the API server answers.
        """
        if isinstance(action, AddFinalizer | RemoveFinalizer):
            return await set_finalizer(
                self._api,
                MODEL_DEPLOYMENTS,
                obj=raw,
                finalizer=names.FINALIZER_DEPLOYMENT,
                present=isinstance(action, AddFinalizer),
            )
        if isinstance(action, EnsureService):
            await self._ensure_service(desired)
        elif isinstance(action, EnsureFront):
            await ensure_front(self._api, desired=desired, settings=self._settings)
        elif isinstance(action, DeleteFront):
            await delete_front(self._api, desired=desired)
        elif isinstance(action, CreateRevision):
            await self._create_revision(desired, action)
        elif isinstance(action, FreezeDeployment):
            await self._freeze_deployment(desired, action)
        elif isinstance(action, CreateDeployment):
            await self._create_deployment(desired, action)
        elif isinstance(action, ScaleDeployment):
            await self._scale(desired, action)
        elif isinstance(action, CreateSlurmJob):
            await self._create_slurm_job(desired, action)
        elif isinstance(action, DeleteSlurmJob):
            await self._delete(SLURM_JOBS, desired.namespace, action.name, planned=action.uid)
        elif isinstance(action, DeleteDeployment):
            if (found := self._deployment(desired, action)) is not None:
                await self._delete(DEPLOYMENTS, desired.namespace, name(found))
        elif isinstance(action, DeleteRevision):
            name_ = _revision_name(desired, action)
            await self._delete(CONTROLLER_REVISIONS, desired.namespace, name_)
        return raw

    def _deployment(
        self, desired: Desired, action: FreezeDeployment | ScaleDeployment | DeleteDeployment
    ) -> Object | None:
        """By its labels: one that an earlier release made may have another name."""
        wanted = {names.LABEL_POOL: action.pool, names.LABEL_REVISION: action.revision}
        for obj in self._store.labelled(DEPLOYMENTS, desired.namespace, desired.name):
            if desired.uid in owner_uids(obj) and wanted.items() <= labels(obj).items():
                return obj
        return None

    async def _create(self, resource: Resource, obj: Object, *, owner: str) -> None:
        """Create, or take in what is there if it is ours already."""
        try:
            await self._api.create(resource, obj)
        except ApiAlreadyExistsError:
            found = await self._api.get(resource, namespace=namespace(obj), name=name(obj))
            if found is None:
                raise
            if owner not in owner_uids(found):
                raise NameTakenError(
                    f"{resource.kind} {namespace(obj)}/{name(obj)} exists and is not ours: rename "
                    "the ModelDeployment, or remove that object"
                ) from None
            self._store.put(resource, await self._labelled(resource, found, wanted=labels(obj)))

    async def _labelled(
        self, resource: Resource, found: Object, *, wanted: Mapping[str, str]
    ) -> Object:
        """An object of ours with the labels by which it is found, should somebody have taken them.

        Without them no watch or list of ours shows it, and it would be made again and again.
        """
        lost = {key: value for key, value in wanted.items() if labels(found).get(key) != value}
        if not lost or resource is CONTROLLER_REVISIONS:  # those we have no right to change
            return found
        return await self._api.patch(
            resource,
            namespace=namespace(found),
            name=name(found),
            patch={"metadata": {"uid": uid(found), "labels": lost}},
        )

    async def _delete(
        self, resource: Resource, namespace_: str, name_: str, *, planned: str | None = None
    ) -> None:
        """Delete what is stored; where a uid was planned, only the object with exactly that one."""
        found = self._store.get(resource, namespace_, name_)
        if found is None or deletion_timestamp(found) is not None:
            return
        if planned is not None and uid(found) != planned:
            return
        try:
            await self._api.delete(resource, namespace=namespace_, name=name_, uid=uid(found))
        except ApiNotFoundError:
            return

    async def _ensure_service(self, desired: Desired) -> None:
        wanted = render.service(desired=desired)
        found = self._store.get(SERVICES, desired.namespace, desired.name)
        if found is not None and desired.uid in owner_uids(found):
            await self._api.apply(SERVICES, wanted)
            return
        await self._create(SERVICES, wanted, owner=desired.uid)
        stored = self._store.get(SERVICES, desired.namespace, desired.name)
        if stored is not None and dig(stored, "spec", "selector") != dig(
            wanted, "spec", "selector"
        ):
            await self._api.apply(SERVICES, wanted)

    async def _create_revision(
        self,
        desired: Desired,
        action: CreateRevision | FreezeDeployment,
        *,
        template: Object | None = None,
    ) -> None:
        number = len(self._store.labelled(CONTROLLER_REVISIONS, desired.namespace, desired.name))
        await self._create(
            CONTROLLER_REVISIONS,
            revision_object(
                desired=desired,
                pool=_pool(desired, action.pool),
                revision=action.revision,
                number=number + 1,
                template=template,
            ),
            owner=desired.uid,
        )

    async def _freeze_deployment(self, desired: Desired, action: FreezeDeployment) -> None:
        """From what is stored, not rendered again: an upgrade may have come in between."""
        known = self._deployment(desired, action)
        if known is None:
            raise ApiNotFoundError(f"the Deployment of revision {action.revision} is gone")
        found = await self._api.get(DEPLOYMENTS, namespace=desired.namespace, name=name(known))
        template = dig(found, "spec", "template")
        if found is None or desired.uid not in owner_uids(found) or not isinstance(template, dict):
            raise ApiNotFoundError(f"Deployment {name(known)} is gone")
        await self._create_revision(desired, action, template=template)

    async def _create_deployment(self, desired: Desired, action: CreateDeployment) -> None:
        obj = render.deployment(
            desired=desired,
            pool=action.pool,
            revision=action.revision,
            template=self._template(desired, action),
            replicas=action.replicas,
        )
        await self._create(DEPLOYMENTS, obj, owner=desired.uid)

    def _template(self, desired: Desired, action: CreateDeployment) -> Object:
        """The frozen one, so that a Deployment that was lost comes back as it was."""
        frozen = self._store.get(
            CONTROLLER_REVISIONS, desired.namespace, _revision_name(desired, action)
        )
        template = dig(frozen, "data", "podTemplate")
        if frozen is not None and desired.uid in owner_uids(frozen) and isinstance(template, dict):
            return template
        return render.pod_template(
            desired=desired,
            pool=_pool(desired, action.pool),
            revision=action.revision,
            pre_stop_seconds=int(self._settings.pre_stop_seconds),
            shutdown_seconds=int(self._settings.termination_grace),
            family=self._settings.family,
        )

    async def _scale(self, desired: Desired, action: ScaleDeployment) -> None:
        found = self._deployment(desired, action)
        if found is None:
            raise ApiNotFoundError(f"the Deployment of revision {action.revision} is gone")
        await self._api.patch(
            DEPLOYMENTS,
            namespace=desired.namespace,
            name=name(found),
            patch={
                "metadata": {"resourceVersion": metadata(found).get("resourceVersion")},
                "spec": {"replicas": action.replicas},
            },
        )

    async def _create_slurm_job(self, desired: Desired, action: CreateSlurmJob) -> None:
        if len(self._unanswered) > _UNANSWERED:
            alive = {uid(obj) for obj in self._store.list(MODEL_DEPLOYMENTS)}
            self._unanswered = {k: v for k, v in self._unanswered.items() if k[0] in alive}
        intent = desired.uid, action.pool, action.slot
        attempt = self._unanswered.get(intent) or self._new_attempt()
        job_name = names.slurm_job_name(
            deployment=desired.name,
            installation_id=self._settings.installation_id,
            namespace=desired.namespace,
            uid=desired.uid,
            slot=action.slot,
            attempt=attempt,
        )
        obj = slurm_job_object(
            desired=desired,
            pool=_pool(desired, action.pool),
            action=action,
            attempt=attempt,
            job_name=job_name,
            key=await self._attempt_digest(desired, job_name=job_name),
            work_directory=self._work_directory(desired, action),
        )
        self._unanswered[intent] = attempt
        try:
            await self._create(SLURM_JOBS, obj, owner=desired.uid)
        except (ApiUnclearError, ApiInvalidError, ApiForbiddenError):
            # One that may be there is found under its name. One that was refused is not there, and
            # would with a new name be another refusal in words: told, seen and tried again at once.
            raise
        except Exception:
            self._unanswered.pop(intent, None)
            raise
        self._unanswered.pop(intent, None)

    def _work_directory(self, desired: Desired, action: CreateSlurmJob) -> str | None:
        """The folder of the pool's cluster now, None where there is no such cluster."""
        placement = _pool(desired, action.pool).slurm
        if placement is None:
            return None
        cluster = placement.cluster
        found = self._store.get(SLURM_CLUSTERS, cluster.namespace, cluster.name)
        folder = dig(found, "spec", "files", "workDirectory")
        return folder if isinstance(folder, str) else None


def _pool(desired: Desired, name_: str) -> Pool:
    return next(pool for pool in desired.pools if pool.name == name_)


def _revision_name(desired: Desired, action: CreateDeployment | DeleteRevision) -> str:
    return names.revision_object_name(
        deployment=desired.name, pool=action.pool, revision=action.revision
    )


def revision_object(
    *, desired: Desired, pool: Pool, revision: str, number: int, template: Object | None = None
) -> dict[str, object]:
    """The ControllerRevision that freezes a pool: what was written and what it renders to.

    `template` is the pod template of a pool on Kubernetes.
    """
    data: dict[str, object] = {
        "written": {"model": dict(desired.model.written or {}), "pool": dict(pool.written or {})}
    }
    if template is not None:
        data["podTemplate"] = template
    else:
        data["job"] = freezing.to_json(freezing.freeze(desired=desired, pool=pool))
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": render.object_metadata(
            desired=desired,
            name=names.revision_object_name(
                deployment=desired.name, pool=pool.name, revision=revision
            ),
            labels={names.LABEL_POOL: pool.name, names.LABEL_REVISION: revision},
        ),
        "revision": number,
        "data": data,
    }


def slurm_job_object(
    *,
    desired: Desired,
    pool: Pool,
    action: CreateSlurmJob,
    attempt: str,
    job_name: str,
    key: str | None,
    work_directory: str | None,
) -> dict[str, object]:
    """The SlurmJob that is the intent to run one attempt, with where its start gate will be.

    `key` is the digest of the attempt's own key, None where it has the deployment's, or none.
    """
    placement = pool.slurm
    if placement is None:
        raise ValueError(f"pool {pool.name} is not on SLURM")
    cluster = placement.cluster
    obj_metadata = render.object_metadata(
        desired=desired,
        name=names.slurm_job_object_name(
            deployment=desired.name, pool=pool.name, slot=action.slot, attempt=attempt
        ),
        labels={
            names.LABEL_POOL: pool.name,
            names.LABEL_REVISION: action.revision,
            names.LABEL_SLOT: str(action.slot),
            names.LABEL_CLUSTER: cluster.name,
            **(render.key_label(desired) if key is None else {names.LABEL_KEY: key}),
        },
    )
    notes = {}
    if key is not None and desired.api_key is not None:
        notes[names.ANNOTATION_KEY_SOURCE] = desired.api_key.digest
    if action.replaces is not None:
        notes[names.ANNOTATION_REPLACES] = action.replaces
    if notes:
        obj_metadata["annotations"] = notes
    return {
        "apiVersion": names.API_VERSION,
        "kind": "SlurmJob",
        "metadata": {**obj_metadata, "finalizers": [names.FINALIZER_SLURM_JOB]},
        "spec": {
            "clusterRef": {"namespace": cluster.namespace, "name": cluster.name},
            "deployment": desired.name,
            "pool": pool.name,
            "slot": action.slot,
            "attempt": attempt,
            "revision": action.revision,
            "jobName": job_name,
            **({} if work_directory is None else {"workDirectory": work_directory}),
        },
    }
