"""Keeps the routers of `endpoint.type: External` in step with the membership.

A task of its own beside the loop, because a router that does not answer must not hold up a pass
over a deployment, and because a router can change without anybody telling us: it is looked at again
and again. What is in the membership has passed its health probe and the check of its identity, so
only such workers are ever added, and one that fails either is taken out with the next look.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import httpx
from pydantic import ValidationError

from isthmus.api import names
from isthmus.api.defaults import effective
from isthmus.api.desired import Desired
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.apiserver.objects import Object, dig
from isthmus.apiserver.resources import ENDPOINT_SLICES, MODEL_DEPLOYMENTS, Resource
from isthmus.apiserver.secrets import SecretRef, Secrets
from isthmus.errors import ApiError, SecretMissingError
from isthmus.front.workers import Worker, workers
from isthmus.reconcile.store import Store
from isthmus.routing.external import HttpRouter, RouterError, synchronize
from isthmus.routing.slices import slice_service
from isthmus.routing.worker_keys import held_keys

_log = logging.getLogger(__name__)

_LEAVE_ATTEMPTS = 30
"""Cycles in which a router may fail until it is given up after its deployment is gone."""


@dataclass(frozen=True, slots=True)
class _Task:
    """What one router should hold of one deployment.

    Attributes:
        url: of the router.
        owner: uid of the deployment.
        place: its namespace and name.
        secret: where its Bearer token is, None for none.
        wanted: the workers.
    """

    url: str
    owner: str
    place: tuple[str, str]
    model: str
    secret: SecretRef | None
    wanted: tuple[Worker, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """One router and one deployment."""
        return self.url, self.owner


class ExternalRouters:
    """Every router of every deployment, one cycle after another."""

    def __init__(
        self,
        *,
        store: Store,
        client: httpx.AsyncClient,
        secrets: Secrets,
        check: Callable[[], None],
        interval: float,
        operator_namespace: str,
        said: Callable[[str, str], None] = lambda namespace, name: None,
    ) -> None:
        """Prepare.

        Args:
            store: deployments and their slices.
            client: for the routers.
            secrets: their tokens.
            check: raises where this process must not change anything.
            interval: seconds between two cycles while nothing changes.
            operator_namespace: for derived defaults.
            said: called with the namespace and name of a deployment when `problem` has news of it.
        """
        self._store = store
        self._client = client
        self._secrets = secrets
        self._check = check
        self._interval = interval
        self._operator_namespace = operator_namespace
        self._tell = said
        self._changed = asyncio.Event()
        self._known: dict[tuple[str, str], _Task] = {}
        self._leaving: dict[tuple[str, str], int] = {}
        self._said: dict[tuple[str, str], str] = {}
        store.on_change(self._object_changed)

    def _object_changed(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        if resource in (ENDPOINT_SLICES, MODEL_DEPLOYMENTS):
            self._changed.set()

    def problem(self, owner: str) -> str | None:
        """What keeps the router of a deployment (uid) out of step; None without one."""
        found = [text for (_, uid), text in self._said.items() if uid == owner]
        return next((text for text in found if text), found[0]) if found else None

    async def run(self) -> None:
        """Go on for ever; a router that fails is tried again with the next cycle."""
        while True:
            self._changed.clear()
            await self.cycle()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), self._interval)

    async def cycle(self) -> None:
        """Look at each router once and put it right."""
        tasks = {task.key: task for task in self._tasks()}
        for key, task in self._known.items():
            if key not in tasks:
                # The deployment is gone or has another router: take ours out of this one.
                self._leaving.setdefault(key, _LEAVE_ATTEMPTS)
                tasks[key] = replace(task, wanted=())
        self._known |= tasks
        await asyncio.gather(*(self._one(task) for task in tasks.values()))

    async def _one(self, task: _Task) -> None:
        self._check()
        try:
            router = HttpRouter(self._client, url=task.url, token=await self._token(task))
            wanted = await self._with_keys(task)
            await synchronize(router, wanted=wanted, model=task.model, owner=task.owner)
        except (RouterError, SecretMissingError, ApiError) as error:
            self._say(task, str(error))
            if task.key in self._leaving:
                self._leaving[task.key] -= 1
                if self._leaving[task.key] <= 0:
                    self._forget(task)
            return
        self._say(task, "")
        if task.key in self._leaving:
            self._forget(task)

    async def _with_keys(self, task: _Task) -> dict[str, str]:
        """URL and API key of each worker; one whose key is not known yet comes in a later cycle."""
        namespace, name = task.place
        secret = await self._secrets.read(namespace=namespace, name=names.worker_keys_secret(name))
        if secret is None:
            return {f"http://{worker}": "" for worker in task.wanted if not worker.key}
        held = held_keys(secret)
        found = {}
        for worker in task.wanted:
            key = held.key(digest=worker.key, workload=worker.workload)
            if key is not None:
                found[f"http://{worker}"] = key
        return found

    async def _token(self, task: _Task) -> str:
        if task.secret is None:
            return ""
        return (await self._secrets.value(task.secret)).decode(errors="replace").strip()

    def _say(self, task: _Task, problem: str) -> None:
        """Log a problem when it begins, changes and ends."""
        before = self._said.get(task.key)
        if problem == before:
            return
        self._said[task.key] = problem
        self._tell(*task.place)
        if problem:
            _log.warning("External router: %s", problem)
        elif before:
            _log.info("External router %s answers again", task.url)

    def _forget(self, task: _Task) -> None:
        self._known.pop(task.key, None)
        self._leaving.pop(task.key, None)
        if self._said.pop(task.key, None) is not None:
            self._tell(*task.place)

    def _tasks(self) -> Iterator[_Task]:
        for raw in self._store.list(MODEL_DEPLOYMENTS):
            if dig(raw, "spec", "endpoint", "external") is None:
                continue  # nearly all of them: reading thousands in each cycle would take seconds
            try:
                desired = self._store.derived.of(raw, self._meaning)
            except (ValidationError, ValueError):
                continue  # its reconciler says so
            task = self._task(desired)
            if task is not None:
                self._leaving.pop(task.key, None)
                yield task

    def _meaning(self, raw: Object) -> Desired:
        """Read a deployment; for `Derived`, since most have not changed between two cycles.

        Raises:
            ValueError: it cannot be read (also as `pydantic.ValidationError`).
        """
        deployment = ModelDeployment.model_validate(raw)
        return effective(deployment, operator_namespace=self._operator_namespace)

    def _task(self, desired: Desired) -> _Task | None:
        router = desired.endpoint.router
        if router is None or router.url is None or router.kind == "envoy":
            return None
        slices = [
            obj
            for obj in self._store.labelled(ENDPOINT_SLICES, desired.namespace, desired.name)
            if slice_service(obj) == desired.membership_service
        ]
        return _Task(
            url=router.url,
            owner=desired.uid,
            place=(desired.namespace, desired.name),
            model=desired.model.served_names[0],
            secret=None
            if router.secret is None
            else SecretRef(
                namespace=desired.namespace, name=router.secret[0], key=router.secret[1]
            ),
            wanted=workers(slices),
        )
