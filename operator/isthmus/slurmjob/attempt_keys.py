"""The API key of each attempt on SLURM: derived, written down before it is used, and read.

A key of its own opens nothing but its own engine, so a node that was told it, or somebody who took
the job's port, has learned nothing about the other workers. It is derived from the deployment's key
and can be derived again where it was lost. Apart from the keys of deployments (`keys`), which know
of no job.
"""

import asyncio
import base64
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from weakref import WeakValueDictionary

from isthmus.api import names
from isthmus.api.desired import Desired
from isthmus.api.keys import attempt_key, key_digest
from isthmus.api.slurmjob import SlurmJob
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import Object, annotations, dig, labels, owner_uids, uid
from isthmus.apiserver.resources import SECRETS, SLURM_JOBS
from isthmus.apiserver.secrets import SecretRef, Secrets
from isthmus.apiserver.store import Store
from isthmus.backends.slurm.frozen import FrozenJob
from isthmus.errors import ApiAlreadyExistsError, SecretMissingError
from isthmus.routing.worker_keys import held_keys

_log = logging.getLogger(__name__)

_SEED_ENTRY = "seed"


class InstallationSeed:
    """The installation's own secret: made once, in the operator's namespace, read once.

    Where it is lost a new one is made; what was made with the old one is known by what is written
    down of it.
    """

    def __init__(
        self,
        *,
        api: ApiServer,
        secrets: Secrets,
        namespace: str,
        draw: Callable[[], str],
    ) -> None:
        """Prepare.

        Args:
            api: gated.
            secrets: reads through the same API server.
            namespace: the operator's.
            draw: makes 256 random bits as text.
        """
        self._api = api
        self._secrets = secrets
        self._namespace = namespace
        self._draw = draw
        self._found = ""

    async def text(self) -> str:
        """Return it.

        Raises:
            SecretMissingError: it was emptied by somebody.
            ApiError: as the API server answers.
        """
        if self._found:
            return self._found
        namespace, name = self._namespace, names.KEY_SEED_SECRET
        if await self._secrets.read(namespace=namespace, name=name) is None:
            self._secrets.forget_one(namespace=namespace, name=name)
            obj: Object = {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {
                    "namespace": namespace,
                    "name": name,
                    "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY},
                },
                "type": "Opaque",
                "data": encoded({_SEED_ENTRY: self._draw()}),
            }
            # Made in this moment by another instance, or unheard by ourselves: that one counts.
            with contextlib.suppress(ApiAlreadyExistsError):
                self._secrets.remember(await self._api.create(SECRETS, obj))
        self._found = await self._secrets.text(SecretRef(namespace, name, _SEED_ENTRY))
        return self._found


class AttemptKeys:
    """Derives the keys of attempts, writes them down and reads them."""

    def __init__(
        self, *, store: Store, api: ApiServer, secrets: Secrets, seed: InstallationSeed
    ) -> None:
        """Prepare.

        Args:
            store: read for the attempts of a deployment.
            api: gated.
            secrets: reads through the same API server; told of every write.
            seed: the installation's own secret.
        """
        self._store = store
        self._api = api
        self._secrets = secrets
        self._seed = seed
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def digest(self, desired: Desired, *, job_name: str) -> str | None:
        """Return the digest of the key that a new attempt gets, None for the deployment's own key.

        Raises:
            SecretMissingError: the deployment's key is not written down.
            ApiError: as the API server answers.
        """
        if desired.api_key is None or not desired.endpoint.key_per_attempt:
            return None
        secret = names.worker_keys_secret(desired.name)
        ref = SecretRef(desired.namespace, secret, desired.api_key.digest or "")
        seed = await self._seed.text()
        key = attempt_key(await self._secrets.token(ref), job_name=job_name, seed=seed)
        return key_digest(key, uid=desired.uid, seed=seed)

    async def key(self, job: SlurmJob, frozen: FrozenJob) -> str | None:
        """Return the API key that an attempt's engine is started with, None without one.

        It is written down when this returns, so whoever reads it there finds it.

        Raises:
            SecretMissingError: it is not written down and cannot be derived again.
            ApiError: the API server did not answer.
        """
        shared = frozen.template.key
        if shared is None:
            return None
        namespace, deployment = job.metadata.namespace, job.spec.deployment
        # The label says which key it has; what it was derived from, in an annotation, is needed
        # only where the key is not written down any more.
        digest = job.metadata.labels.get(names.LABEL_KEY) or shared
        ref = SecretRef(namespace, names.worker_keys_secret(deployment), digest)
        try:
            return await self._secrets.token(ref)
        except SecretMissingError:
            if names.ANNOTATION_KEY_SOURCE not in job.metadata.annotations:
                raise
        await self.write_down(namespace=namespace, deployment=deployment)
        return await self._secrets.token(ref)

    async def write_down(self, *, namespace: str, deployment: str) -> None:
        """Write down the keys of all attempts of a deployment that are not, in one write.

        Attempts that come at the same time wait for each other here, and most then find theirs.

        Raises:
            ApiError: as the API server answers.
        """
        place = namespace, deployment
        lock = self._locks.setdefault(place, asyncio.Lock())
        async with lock:
            name = names.worker_keys_secret(deployment)
            held = await self._secrets.read(namespace=namespace, name=name)
            if held is None or not any(self._unwritten(held, place)):
                return
            seed = await self._seed.text()
            missing = dict(self._derived(held, place, seed=seed))
            if missing:
                patch = {"metadata": {"uid": uid(held)}, "data": encoded(missing)}
                self._secrets.forget_one(namespace=namespace, name=name)
                stored = await self._api.patch(SECRETS, namespace=namespace, name=name, patch=patch)
                self._secrets.remember(stored)

    def _unwritten(self, held: Object, place: tuple[str, str]) -> Iterator[Object]:
        """The attempts with a key of their own that the Secret does not hold."""
        for obj in self._store.labelled(SLURM_JOBS, *place):
            digest = labels(obj).get(names.LABEL_KEY)
            if digest and key_source(obj) and not dig(held, "data", digest):
                yield obj

    def _derived(
        self, held: Object, place: tuple[str, str], *, seed: str
    ) -> Iterator[tuple[str, str]]:
        values = held_keys(held).values
        for obj in self._unwritten(held, place):
            digest = labels(obj)[names.LABEL_KEY]
            source = values.get(key_source(obj) or "")
            owner = next(iter({*owner_uids(obj)} & {*owner_uids(held)}), None)
            if source is None or owner is None:
                continue
            key = attempt_key(source, job_name=str(dig(obj, "spec", "jobName")), seed=seed)
            if key_digest(key, uid=owner, seed=seed) == digest:
                yield digest, key
            else:
                _log.warning(
                    "The API key of SlurmJob %s/%s is lost and cannot be derived again: the "
                    "installation's seed is another one now",
                    place[0],
                    dig(obj, "metadata", "name"),
                )


def key_source(slurm_job: Object) -> str | None:
    """Digest of the deployment's key from which an attempt derives its own, None if it does not."""
    return annotations(slurm_job).get(names.ANNOTATION_KEY_SOURCE)


def encoded(data: Mapping[str, str]) -> dict[str, str]:
    """The `data` of a Secret."""
    return {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}
