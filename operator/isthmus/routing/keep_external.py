"""Keeps the routers of `endpoint.type: External` in step with the membership.

Beside the loop, because a router that does not answer must not hold up a pass over a deployment,
and because a router can change without anybody telling us: it is looked at again and again. Each
has a task of its own: routers are chosen by tenants, and one that drips, or answers what nobody has
thought of, holds up nobody else's. Whatever fails over one is told in its deployment's status; only
a lost lease leaves its task, and ends the process.

What is in the membership has passed its health probe and the check of its identity, so only such
workers are ever added, and one that fails either is taken out with the next look.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import httpx

from isthmus.api import names
from isthmus.api.defaults import effective
from isthmus.api.desired import Desired
from isthmus.api.endpoint import EndpointSpec
from isthmus.apiserver.objects import Object, dig, uid
from isthmus.apiserver.reading import read_deployment
from isthmus.apiserver.resources import ENDPOINT_SLICES, MODEL_DEPLOYMENTS, Resource
from isthmus.apiserver.secrets import SecretRef, Secrets
from isthmus.apiserver.store import Store
from isthmus.errors import ApiError, NotLeaderError, SecretMissingError
from isthmus.guarded import where
from isthmus.routing.external import HttpRouter, RouterError, synchronize
from isthmus.routing.members import Worker, workers
from isthmus.routing.slices import slice_service
from isthmus.routing.trust import trust
from isthmus.routing.worker_keys import held_keys

_log = logging.getLogger(__name__)

_LEAVE_ATTEMPTS = 30
"""Looks in which a router may fail until it is given up after its deployment is gone."""

_LOOK_SECONDS = 60.0
"""For one look with all its requests; the next one goes on with the membership of then."""
_MOST_BACKOFF = 3
"""A router that fails is asked every so many intervals at least."""


@dataclass(frozen=True, slots=True)
class _Task:
    """What one router should hold of one deployment.

    Attributes:
        url: of the router.
        owner: uid of the deployment.
        place: its namespace and name.
        secret: where its Bearer token is, None for none.
        ca: where the CAs of its certificate are, None for the system's.
        problem: why it cannot be asked at all, "" if it can.
        wanted: the workers.
    """

    url: str
    owner: str
    place: tuple[str, str]
    model: str
    secret: SecretRef | None
    ca: SecretRef | None = None
    problem: str = ""
    wanted: tuple[Worker, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """One router and one deployment."""
        return self.url, self.owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """Least seconds between two of a kind, however often something changes.

    Attributes:
        looks: at one router.
        readings: of all deployments.
    """

    looks: float = 1.0
    readings: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterTimes:
    """Times of the looks at routers, in seconds.

    Attributes:
        interval: between two looks at a router while nothing changes.
        timeout: for one request to a router, with its answer.
        gaps: how often it may look at all.
    """

    interval: float
    timeout: float = 5.0
    gaps: Gaps = field(default_factory=Gaps)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterClients:
    """How routers are asked.

    Attributes:
        usual: for routers whose CA everybody believes, see `bounded_client`.
        trusting: makes a client that believes other CAs, for routers that have theirs.
    """

    usual: httpx.AsyncClient
    trusting: Callable[[ssl.SSLContext], httpx.AsyncClient] | None = None


@dataclass(slots=True)
class _Follower:
    """The task of one router, and what wakes it before its time."""

    task: "asyncio.Task[None]"
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class ExternalRouters:
    """Every router of every deployment, each followed by a task of its own."""

    def __init__(
        self,
        *,
        store: Store,
        clients: RouterClients,
        secrets: Secrets,
        check: Callable[[], None],
        times: RouterTimes,
        operator_namespace: str,
        said: Callable[[str, str], None] = lambda namespace, name: None,
    ) -> None:
        """Prepare.

        Args:
            store: deployments and their slices.
            clients: for the routers.
            secrets: their tokens.
            check: raises where this process must not change anything.
            times: how often, and how long.
            operator_namespace: for derived defaults.
            said: called with the namespace and name of a deployment when `problem` has news of it.
        """
        self._store = store
        self._clients = clients
        self._secrets = secrets
        self._check = check
        self._times = times
        self._operator_namespace = operator_namespace
        self._tell = said
        self._changed = asyncio.Event()
        self._known: dict[tuple[str, str], _Task] = {}
        self._followers: dict[tuple[str, str], _Follower] = {}
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
        """Go on for ever; a router that fails is tried again, after more and more time.

        Raises:
            NotLeaderError: the lease is lost.
        """
        try:
            while True:
                self._changed.clear()
                self._follow_all()
                ended = [one.task for one in self._followers.values()]
                changed = asyncio.create_task(self._changed.wait(), name="routers changed")
                try:
                    await asyncio.wait(
                        [changed, *ended],
                        timeout=self._times.interval,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                finally:
                    changed.cancel()
                self._take_ends()
                await asyncio.sleep(self._times.gaps.readings)
        finally:
            tasks = [one.task for one in self._followers.values()]
            self._followers.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def cycle(self) -> None:
        """Look at each router once and put it right.

        Raises:
            NotLeaderError: the lease is lost.
        """
        self._take_wanted()
        await asyncio.gather(*(self._one(task) for task in tuple(self._known.values())))

    def _take_wanted(self) -> frozenset[tuple[str, str]]:
        """Read what each router should hold; returns the keys of those where that changed."""
        tasks = {task.key: task for task in self._tasks()}
        for key, task in self._known.items():
            if key not in tasks:
                # The deployment is gone or has another router: take ours out of this one.
                self._leaving.setdefault(key, _LEAVE_ATTEMPTS)
                tasks[key] = replace(task, wanted=())
        changed = frozenset(key for key, task in tasks.items() if self._known.get(key) != task)
        self._known |= tasks
        return changed

    def _follow_all(self) -> None:
        for key in self._take_wanted():
            follower = self._followers.get(key)
            if follower is not None:
                follower.changed.set()
        for key in self._known.keys() - self._followers.keys():
            changed = asyncio.Event()
            task = asyncio.create_task(self._follow(key, changed), name=f"router {key[0]}")
            self._followers[key] = _Follower(task, changed)

    def _take_ends(self) -> None:
        for key, follower in list(self._followers.items()):
            if follower.task.done():
                del self._followers[key]
                follower.task.result()

    async def _follow(self, key: tuple[str, str], changed: asyncio.Event) -> None:
        """Look at one router again and again, until nothing is wanted of it."""
        failures = 0
        while (task := self._known.get(key)) is not None:
            changed.clear()
            failures = 0 if await self._one(task) else failures + 1
            await asyncio.sleep(self._times.gaps.looks)
            rest = self._times.interval * min(2.0 ** max(0, failures - 1), _MOST_BACKOFF)
            rest -= self._times.gaps.looks
            if failures > 1:
                await asyncio.sleep(max(0.0, rest))  # changes wait, too
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), max(0.0, rest))

    async def _one(self, task: _Task) -> bool:
        """Put one router right; returns whether that was done. What fails is told, and no more."""
        self._check()
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._look(task)
        except NotLeaderError:
            raise
        except (RouterError, SecretMissingError, ApiError) as error:
            problem = str(error)
        except TimeoutError:
            problem = f"{task.url}: not everything was done within {_LOOK_SECONDS:g} s; continuing"
        except Exception as error:  # whatever a tenant's input leads to is the tenant's alone
            problem = (
                f"{task.url} cannot be kept in step: unexpected {type(error).__name__}; the "
                "operator's log has where"
            )
            if self._said.get(task.key) != problem:
                _log.error("External router of %s/%s: %s", *task.place, where(error))
        else:
            self._say(task, "")
            if task.key in self._leaving:
                self._forget(task)
            return True
        self._say(task, problem)
        if task.key in self._leaving:
            self._leaving[task.key] -= 1
            if self._leaving[task.key] <= 0 or task.problem:
                self._forget(task)
        return False

    async def _look(self, task: _Task) -> None:
        if task.problem:
            raise RouterError(task.problem)
        token = await self._token(task)
        async with contextlib.AsyncExitStack() as stack:
            client = self._clients.usual
            if task.ca is not None and self._clients.trusting is not None:
                context = await trust(self._secrets, task.ca)
                client = await stack.enter_async_context(self._clients.trusting(context))
            router = HttpRouter(client, url=task.url, token=token, timeout=self._times.timeout)
            wanted = await self._with_keys(task)
            await synchronize(
                router, wanted=wanted, model=task.model, owner=task.owner, check=self._check
            )

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
        return await self._secrets.token(task.secret)

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
                task = self._task(self._store.derived.of(raw, self._meaning))
            except Exception as error:
                # Its reconciler says so. What its routers hold stays: it is not known to be wrong.
                _log.debug("A deployment with a router cannot be read: %s", where(error))
                yield from (
                    known
                    for key, known in self._known.items()
                    if known.owner == uid(raw) and key not in self._leaving
                )
                continue
            if task is not None:
                self._leaving.pop(task.key, None)
                yield task

    def _meaning(self, raw: Object) -> Desired:
        """Read a deployment; for `Derived`, since most have not changed between two cycles.

        What cannot be read of the rest of it keeps no router from being kept in step; what cannot
        be read of its endpoint may say how that router is to be asked.

        Raises:
            ValueError: it cannot be read (also as `pydantic.ValidationError`).
        """
        found = read_deployment(raw)
        if found.value is None:
            raise ValueError(found.problem)
        if found.problem:
            EndpointSpec.model_validate(dig(raw, "spec", "endpoint"))
        return effective(found.value, operator_namespace=self._operator_namespace)

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
            secret=_ref(desired, router.secret),
            ca=_ref(desired, router.ca),
            problem=router.problem,
            wanted=workers(slices),
        )


def _ref(desired: Desired, place: tuple[str, str] | None) -> SecretRef | None:
    if place is None:
        return None
    return SecretRef(namespace=desired.namespace, name=place[0], key=place[1])
