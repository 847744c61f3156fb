"""Executes what a plan asks for of attempts on SLURM: the intents to run one and to stop one.

An intent is a SlurmJob object. Its creation may be committed without an answer, so the attempt's
token is kept until there is one: one intent never becomes two.
"""

from collections.abc import Callable
from typing import Protocol

from isthmus.api import names
from isthmus.api.desired import Desired, Pool
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import deletion_timestamp, dig, uid
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS, SLURM_CLUSTERS, SLURM_JOBS
from isthmus.apiserver.store import Store
from isthmus.backends.kubernetes import render
from isthmus.errors import (
    ApiForbiddenError,
    ApiInvalidError,
    ApiNotFoundError,
    ApiUnclearError,
)
from isthmus.modeldeployment.actions import CreateSlurmJob, DeleteSlurmJob, RestoreLabels
from isthmus.modeldeployment.ours import created_or_found
from isthmus.modeldeployment.policy.lost_labels import job_labels
from isthmus.settings import Settings

_UNANSWERED = 64
"""Intents without an answer from which on those of deployments that are gone are forgotten."""


class AttemptDigest(Protocol):
    """Tells which key of its own a new attempt gets."""

    async def __call__(self, desired: Desired, *, job_name: str) -> str | None:
        """Return its digest, None where it gets the deployment's key, or none."""


class JobActions:
    """Creates and deletes SlurmJobs through a gated API server."""

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

    async def create(self, desired: Desired, action: CreateSlurmJob) -> None:
        """Record the intent to run one attempt.

        Raises:
            NameTakenError: a SlurmJob of its name is not ours.
            ApiError: as the API server answers.
        """
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
            pool=desired.pool(action.pool),
            action=action,
            attempt=attempt,
            job_name=job_name,
            key=await self._attempt_digest(desired, job_name=job_name),
            work_directory=self._work_directory(desired, action),
        )
        self._unanswered[intent] = attempt
        try:
            found = await created_or_found(self._api, SLURM_JOBS, obj, owner=desired.uid)
            if found is not None:
                self._store.put(SLURM_JOBS, found)
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
        placement = desired.pool(action.pool).slurm
        if placement is None:
            return None
        cluster = placement.cluster
        found = self._store.get(SLURM_CLUSTERS, cluster.namespace, cluster.name)
        folder = dig(found, "spec", "files", "workDirectory")
        return folder if isinstance(folder, str) else None

    async def restore_labels(self, desired: Desired, action: RestoreLabels) -> None:
        """Give an attempt the labels back by which it is found.

        Raises:
            SecretMissingError: the deployment's key is not written down.
            ApiError: as the API server answers.
        """
        wanted = dict(action.labels)
        if action.key_of is not None:
            own = await self._attempt_digest(desired, job_name=action.key_of)
            wanted |= render.key_label(desired) if own is None else {names.LABEL_KEY: own}
        try:
            await self._api.patch(
                SLURM_JOBS,
                namespace=desired.namespace,
                name=action.name,
                patch={"metadata": {"uid": action.uid, "labels": wanted}},
            )
        except ApiNotFoundError:
            return

    async def delete(self, desired: Desired, action: DeleteSlurmJob) -> None:
        """Record the intent to stop one attempt: of exactly that uid.

        Raises:
            ApiError: as the API server answers.
        """
        found = self._store.get(SLURM_JOBS, desired.namespace, action.name)
        if found is None or deletion_timestamp(found) is not None or uid(found) != action.uid:
            return
        try:
            await self._api.delete(
                SLURM_JOBS, namespace=desired.namespace, name=action.name, uid=action.uid
            )
        except ApiNotFoundError:
            return


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
            **job_labels(
                deployment=desired.name,
                pool=pool.name,
                revision=action.revision,
                slot=action.slot,
                cluster=cluster.name,
            ),
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
