"""Executes what a ModelDeployment's plan asks for, one action at a time.

Objects are created, never applied over what is there: a foreign object under a name that we need
is a conflict to be told, not to be overwritten.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

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
    Resource,
)
from isthmus.apiserver.statuses import set_finalizer
from isthmus.apiserver.store import Store
from isthmus.backends.kubernetes import render
from isthmus.backends.slurm import frozen as freezing
from isthmus.errors import ApiNotFoundError
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
    RestoreLabels,
    ScaleDeployment,
)
from isthmus.modeldeployment.execute_front import delete_front, ensure_front
from isthmus.modeldeployment.execute_jobs import JobActions
from isthmus.modeldeployment.ours import created_or_found
from isthmus.rules.actions import AddFinalizer, RemoveFinalizer
from isthmus.settings import Settings

Handler: TypeAlias = Callable[[Desired, Any], Awaitable[None]]


class DeploymentActions:
    """Executes actions through a gated API server."""

    def __init__(
        self, *, store: Store, api: ApiServer, settings: Settings, jobs: JobActions
    ) -> None:
        """Prepare.

        Args:
            store: read for objects that actions name.
            api: gated; its answers go into the store.
            settings: the operator's.
            jobs: executes what is asked of attempts.
        """
        self._store = store
        self._api = api
        self._settings = settings
        self._handlers: Mapping[type[DeploymentAction], Handler] = {
            EnsureService: self._ensure_service,
            EnsureFront: self._ensure_front,
            DeleteFront: self._delete_front,
            CreateRevision: self._create_revision,
            FreezeDeployment: self._freeze_deployment,
            DeleteRevision: self._delete_revision,
            CreateDeployment: self._create_deployment,
            ScaleDeployment: self._scale,
            DeleteDeployment: self._delete_deployment,
            CreateSlurmJob: jobs.create,
            DeleteSlurmJob: jobs.delete,
            RestoreLabels: jobs.restore_labels,
        }

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
        await self._handlers[type(action)](desired, action)
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
        found = await created_or_found(self._api, resource, obj, owner=owner)
        if found is not None:
            self._store.put(resource, await self._labelled(resource, found, wanted=obj))

    async def _labelled(self, resource: Resource, found: Object, *, wanted: Object) -> Object:
        """An object of ours with the labels by which it is found, should somebody have taken them.

        Without them no watch or list of ours shows it, and it would be made again and again.
        """
        lost = {
            label: text
            for label, text in labels(wanted).items()
            if labels(found).get(label) != text
        }
        if not lost:
            return found
        place, called = namespace(found), name(found)
        if resource is CONTROLLER_REVISIONS:
            # Those we have no right to change: made once more, of what it has frozen.
            await self._api.delete(resource, namespace=place, name=called, uid=uid(found))
            return await self._api.create(resource, {**wanted, "data": dig(found, "data")})
        patch = {"metadata": {"uid": uid(found), "labels": lost}}
        return await self._api.patch(resource, namespace=place, name=called, patch=patch)

    async def _delete(self, resource: Resource, namespace_: str, name_: str) -> None:
        """Delete what is stored."""
        found = self._store.get(resource, namespace_, name_)
        if found is None or deletion_timestamp(found) is not None:
            return
        try:
            await self._api.delete(resource, namespace=namespace_, name=name_, uid=uid(found))
        except ApiNotFoundError:
            return

    async def _delete_deployment(self, desired: Desired, action: DeleteDeployment) -> None:
        found = self._deployment(desired, action)
        if found is not None:
            await self._delete(DEPLOYMENTS, desired.namespace, name(found))

    async def _delete_revision(self, desired: Desired, action: DeleteRevision) -> None:
        await self._delete(CONTROLLER_REVISIONS, desired.namespace, _revision_name(desired, action))

    async def _ensure_front(self, desired: Desired, _: EnsureFront) -> None:
        await ensure_front(self._api, desired=desired, settings=self._settings)

    async def _delete_front(self, desired: Desired, _: DeleteFront) -> None:
        await delete_front(self._api, desired=desired)

    async def _ensure_service(self, desired: Desired, _: EnsureService) -> None:
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
                pool=desired.pool(action.pool),
                revision=action.revision,
                number=number + 1,
                template=template,
            ),
            owner=desired.uid,
        )

    async def _freeze_deployment(self, desired: Desired, action: FreezeDeployment) -> None:
        """From what is stored, not rendered again: an upgrade may have come in between."""
        template = dig(self._deployment(desired, action), "spec", "template")
        if not isinstance(template, dict):
            raise ApiNotFoundError(f"the Deployment of revision {action.revision} is gone")
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
            pool=desired.pool(action.pool),
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
