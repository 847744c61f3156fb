"""The API keys of a deployment's workers, kept in two Secrets.

The *source* is the user's Secret, or one that is made here once, and says which key new workers
get, or derive theirs from (`attempt_keys`). The Secret of *worker keys* is the operator's own: it
holds each key under its digest for as long as a worker has it, so that a worker that is started
again, probes and the front use the key of that worker's revision, whatever the source says by then.
That is how a key is changed without an outage: a new digest is a new revision, and the ordinary
rollout replaces the workers.

Apart from the reconciler, which has no I/O but its actions.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace

from isthmus.api import names
from isthmus.api.client_keys import client_keys
from isthmus.api.desired import ApiKey, Desired
from isthmus.api.keys import configuration_entry, engine_configuration, key_digest, unusable
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.forgetting import when_gone
from isthmus.apiserver.objects import Object, annotations, dig, labels, owner_uids, uid
from isthmus.apiserver.objects import name as name_of
from isthmus.apiserver.resources import DEPLOYMENTS, MODEL_DEPLOYMENTS, PODS, SECRETS, SLURM_JOBS
from isthmus.apiserver.secrets import SecretRef, Secrets
from isthmus.apiserver.store import Store
from isthmus.backends.kubernetes.render import object_metadata
from isthmus.errors import (
    ApiAlreadyExistsError,
    ApiConflictError,
    ApiForbiddenError,
    ApiNotFoundError,
    NameTakenError,
    SecretMissingError,
)
from isthmus.routing.worker_keys import deployments_annotation
from isthmus.slurmjob.attempt_keys import AttemptKeys, InstallationSeed, encoded, key_source


class DeploymentKeys:
    """Makes, keeps and forgets the keys of deployments."""

    def __init__(
        self,
        *,
        store: Store,
        api: ApiServer,
        secrets: Secrets,
        attempts: AttemptKeys,
        seed: InstallationSeed,
        new_key: Callable[[], str],
    ) -> None:
        """Prepare.

        Args:
            store: read for the workers that still have a key.
            api: gated.
            secrets: reads through the same API server; told of every write.
            attempts: writes down the keys of attempts that are missing.
            seed: the installation's own secret.
            new_key: draws an API key.
        """
        self._store = store
        self._api = api
        self._secrets = secrets
        self._attempts = attempts
        self._seed = seed
        self._new_key = new_key
        self._holding: set[str] = set()
        """Uids of deployments whose Secret of worker keys may hold some."""
        when_gone(store, MODEL_DEPLOYMENTS, lambda gone: self._holding.discard(uid(gone)))

    async def settled(self, desired: Desired, *, had_key: bool = False) -> tuple[Desired, str]:
        """Return `desired` with the digest of its key, whose value workers can be given.

        Args:
            desired: what is wanted.
            had_key: whether users were told of a key when this was last looked at.

        Returns:
            The same with `api_key.digest`, and what is wrong with the source, "" if nothing is:
            then workers go on with the key that was the last one.

        Raises:
            NameTakenError: a Secret of a name that we need is not ours.
            SecretMissingError: there is no key yet, and none to be had.
            ApiError: as the API server answers.
        """
        wanted = desired.api_key
        if wanted is None:
            if had_key or desired.uid in self._holding or any(self._digests(desired)):
                await self._retire(desired)
            return desired, ""
        self._holding.add(desired.uid)
        held = await self._held(desired)
        try:
            key = await self._source(desired, wanted)
        except SecretMissingError as error:
            last = annotations(held or {}).get(names.ANNOTATION_CURRENT_KEY, "")
            if held is None or not dig(held, "data", last):
                raise
            await self._tell_front(desired, held)
            again = self._shared_again(desired, held, digest=last)
            await self._write_down(desired)
            found = _with_digest(desired, last, shared_again=again)
            return found, f"{error}; workers keep the key that they have"
        digest = await self._digest(desired, held, key=key)
        again = self._shared_again(desired, held, digest=digest)
        await self._hold(desired, held, digest=digest, key=key, shared_again=again)
        await self._write_down(desired)
        return _with_digest(desired, digest, shared_again=again), ""

    async def _write_down(self, desired: Desired) -> None:
        await self._attempts.write_down(namespace=desired.namespace, deployment=desired.name)

    async def _digest(self, desired: Desired, held: Object | None, *, key: str) -> str:
        """A key keeps the digest under which it is held, whatever became of the seed since.

        So neither a release that makes digests in another way nor a lost seed restarts a worker.
        """
        data = dig(held, "data", default={})
        (encoded_key,) = encoded({"": key}).values()
        entries = data.items() if isinstance(data, Mapping) else ()
        known = sorted(name for name, value in entries if value == encoded_key)
        if known:
            current = annotations(held or {}).get(names.ANNOTATION_CURRENT_KEY, "")
            return current if current in known else known[0]
        before = key_digest(key, uid=desired.uid)
        if before in set(self._digests(desired)):
            return before  # of a release without a seed, whose Secret of worker keys was lost
        return key_digest(key, uid=desired.uid, seed=await self._seed.text())

    def _shared_again(self, desired: Desired, held: Object | None, *, digest: str) -> bool:
        """Whether jobs have to share a key of which others derived theirs."""
        if desired.endpoint.key_per_attempt:
            return False
        if annotations(held or {}).get(names.ANNOTATION_SHARED_KEY) == digest:
            return True
        jobs = self._store.labelled(SLURM_JOBS, desired.namespace, desired.name)
        return any(key_source(job) == digest for job in jobs)

    async def clients_problem(self, desired: Desired) -> str | None:
        """What is wrong with the Secret of clients' keys, "" if nothing is; None without one.

        Raises:
            ApiError: as the API server answers.
        """
        name = desired.endpoint.client_keys
        if name is None:
            return None
        place = f"Secret {desired.namespace}/{name}"
        try:
            found = await self._secrets.read(namespace=desired.namespace, name=name)
        except ApiForbiddenError:
            return f"{place} may not be read by the operator; the front reads it itself"
        if found is None:
            return f"{place} does not exist, so nobody gets in: create it, an entry per client"
        clients = client_keys(dig(found, "data"))
        if not clients.keys and not clients.problems:
            return f"{place} has no entry, so nobody gets in: add one per client"
        told = "; ".join(clients.problems[:3])
        return told and f"{place}: {told}; keys in force: {len(clients.keys)}"

    def in_use(self, desired: Desired) -> bool:
        """Whether workers have a key, which may be none that is wanted any more."""
        return any(self._digests(desired))

    async def forget_unused(self, desired: Desired) -> None:
        """Delete keys that no worker has any more and that new workers do not get.

        Raises:
            ApiError: as the API server answers.
        """
        if desired.api_key is None:
            return
        held = await self._held(desired)
        if held is None:
            return
        used = {desired.api_key.digest, annotations(held).get(names.ANNOTATION_CURRENT_KEY)}
        await self._forget(desired, held, used={*used, *self._digests(desired)})

    async def _forget(
        self, desired: Desired, held: Object, *, used: Collection[str | None]
    ) -> bool:
        """Delete all keys but these; returns whether no other is left."""
        data = dig(held, "data", default={})
        entries = data if isinstance(data, Mapping) else {}
        unused = [entry for entry in entries if entry.partition(".")[0] not in used]
        if not unused:
            return True
        version = dig(held, "metadata", "resourceVersion")
        try:
            await self._patch(
                desired,
                {"metadata": {"resourceVersion": version}, "data": dict.fromkeys(unused)},
            )
        except (ApiConflictError, ApiNotFoundError):
            self._secrets.forget_one(
                namespace=desired.namespace, name=names.worker_keys_secret(desired.name)
            )
            return False
        return True

    def _digests(self, desired: Desired) -> Iterator[str]:
        """Digests of the keys that workers have now."""
        for resource in (DEPLOYMENTS, PODS, SLURM_JOBS):
            for obj in self._store.labelled(resource, desired.namespace, desired.name):
                for digest in (labels(obj).get(names.LABEL_KEY), key_source(obj)):
                    if digest:
                        yield digest

    async def _retire(self, desired: Desired) -> None:
        """Tell the front, before it meets one, that workers from now on have no key.

        The keys of those that have one are kept for as long as one of them is there.
        """
        used = frozenset(self._digests(desired))
        self._holding.add(desired.uid)
        held = await self._secrets.read(
            namespace=desired.namespace, name=names.worker_keys_secret(desired.name)
        )
        if held is not None and desired.uid in owner_uids(held):
            await self._tell_front(desired, held, others_have_none=True)
            # Only now, from what is stored by now: a front is told first.
            held = await self._held(desired)
            if held is not None and not await self._forget(desired, held, used=used):
                return
        if not used:
            self._holding.discard(desired.uid)

    async def _tell_front(
        self, desired: Desired, held: Object, *, others_have_none: bool = False
    ) -> None:
        """Keep up to date which Deployment's pods have which key, where the key itself stays."""
        said = self._deployments(desired, others_have_none=others_have_none)
        if annotations(held).get(names.ANNOTATION_DEPLOYMENT_KEYS) != said:
            changed = {names.ANNOTATION_DEPLOYMENT_KEYS: said}
            await self._patch(desired, {"metadata": {"uid": uid(held), "annotations": changed}})

    async def _source(self, desired: Desired, wanted: ApiKey) -> str:
        """The key that new workers get; made where it is ours to make and is missing."""
        if wanted.generated:
            await self._ensure_generated(desired, wanted)
        ref = SecretRef(desired.namespace, wanted.secret, wanted.key)
        key = await self._secrets.text(ref)
        wrong = unusable(key)
        if wrong:
            raise SecretMissingError(f"{ref}: {wrong}")
        return key

    async def _ensure_generated(self, desired: Desired, wanted: ApiKey) -> None:
        found = await self._secrets.read(namespace=desired.namespace, name=wanted.secret)
        if found is None:
            await self._create(desired, wanted.secret, data={wanted.key: self._new_key()})
        elif desired.uid not in owner_uids(found):
            raise _taken(desired, wanted.secret)

    async def _held(self, desired: Desired) -> Object | None:
        """The Secret of worker keys."""
        name = names.worker_keys_secret(desired.name)
        found = await self._secrets.read(namespace=desired.namespace, name=name)
        if found is not None and desired.uid not in owner_uids(found):
            raise _taken(desired, name)
        return found

    async def _hold(
        self, desired: Desired, held: Object | None, *, digest: str, key: str, shared_again: bool
    ) -> None:
        """Keep a key for workers, and say that it is the one that new ones get."""
        data = {digest: key, configuration_entry(digest): engine_configuration(key)}
        current = {
            names.ANNOTATION_CURRENT_KEY: digest,
            names.ANNOTATION_DEPLOYMENT_KEYS: self._deployments(desired),
            **({names.ANNOTATION_SHARED_KEY: digest} if shared_again else {}),
        }
        if held is None:
            name = names.worker_keys_secret(desired.name)
            held = await self._create(desired, name, data=data, annotations_=current)
        wanted = encoded(data)
        kept = all(dig(held, "data", entry) == value for entry, value in wanted.items())
        if not kept or any(annotations(held).get(name) != text for name, text in current.items()):
            patch = {"metadata": {"uid": uid(held), "annotations": current}, "data": wanted}
            await self._patch(desired, patch)

    def _deployments(self, desired: Desired, *, others_have_none: bool = False) -> str:
        """For the front, which sees no labels of pods: which key the pods of a Deployment have."""
        found = self._store.labelled(DEPLOYMENTS, desired.namespace, desired.name)
        return deployments_annotation(
            ((name_of(obj), labels(obj).get(names.LABEL_KEY, "")) for obj in found),
            others_have_none=others_have_none,
        )

    async def _patch(self, desired: Desired, patch: Object) -> None:
        name = names.worker_keys_secret(desired.name)
        self._secrets.forget_one(namespace=desired.namespace, name=name)
        stored = await self._api.patch(SECRETS, namespace=desired.namespace, name=name, patch=patch)
        self._secrets.remember(stored)

    async def _create(
        self,
        desired: Desired,
        name: str,
        *,
        data: Mapping[str, str],
        annotations_: Mapping[str, str] | None = None,
    ) -> Object:
        """Create a Secret; what is there already is kept as it is, if it is ours."""
        obj = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": object_metadata(desired=desired, name=name, labels={})
            | {"annotations": dict(annotations_ or {})},
            "type": "Opaque",
            "data": encoded(data),
        }
        self._secrets.forget_one(namespace=desired.namespace, name=name)
        try:
            stored = await self._api.create(SECRETS, obj)
        except ApiAlreadyExistsError:
            found = await self._secrets.read(namespace=desired.namespace, name=name)
            if found is None:
                raise
            if desired.uid not in owner_uids(found):
                raise _taken(desired, name) from None
            return found
        self._secrets.remember(stored)
        return stored


def _with_digest(desired: Desired, digest: str, *, shared_again: bool) -> Desired:
    assert desired.api_key is not None
    key = replace(desired.api_key, digest=digest, shared_again=shared_again)
    return replace(desired, api_key=key)


def _taken(desired: Desired, name: str) -> NameTakenError:
    return NameTakenError(
        f"Secret {desired.namespace}/{name} exists and is not ours: rename the ModelDeployment, "
        "remove that Secret, or name another one in endpoint.apiKeySecretRef"
    )
