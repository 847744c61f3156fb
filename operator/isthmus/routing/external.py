"""Routers that are not ours, by the API that sglang-router 0.3.2 and smg 1.13 share.

Level-based: each time the whole list is compared with what it should hold. A router that was
restarted has forgotten everything, a DELETE may be overtaken by an add that was pending (the worker
then registers itself later), and answers only say that something was accepted.

Only entries that carry our label are ever removed, and only workers that are in the membership are
ever added: a router polls what it is given until it is healthy, and with ten dead workers the older
one does nothing else (measured).

What a router says is judged and not repeated: its bodies are in no message and no log line, and an
id of a worker that cannot stand in a path is never put into one.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import httpx

from isthmus.api import names
from isthmus.apiserver.objects import dig
from isthmus.bounded_http import MALFORMED, BoundedAnswer, exchange
from isthmus.errors import HttpFailedError

_log = logging.getLogger(__name__)

OWNER_LABEL = f"{names.GROUP}/owner"
"""Label of a worker in a router: uid of the ModelDeployment that put it there."""

_ACCEPTED = frozenset({200, 201, 202, 409})
"""409 is smg's word for a worker that is there already, where sglang-router says 202 again."""

_ID: Final = re.compile(r"(?!\.{1,2}$)[!-~]{1,256}")
"""Visible ASCII; not what leads to another path, for `..` would."""
_NOT_IN_ID: Final = frozenset("/?#%\\")


@dataclass(frozen=True, slots=True)
class Registered:
    """One worker as a router lists it; `owner` is "" for one that we did not put there.

    `id` is "" for one whose id cannot stand in a path.
    """

    id: str
    url: str
    owner: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What to do in a router: URLs to add, ids to remove.

    `stuck` counts workers that are to be removed and have no id that could be asked for.
    """

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    stuck: int = 0


class RouterError(Exception):
    """A router does not answer, or not as it should; the message holds no secret."""


class Router(Protocol):
    """What is asked of a router. All calls may raise `RouterError`."""

    async def list(self) -> tuple[Registered, ...]:
        """Every worker that it knows; pending ones are not in it."""

    async def add(self, url: str, *, model: str, owner: str, api_key: str = "") -> None:
        """Register a worker that is healthy, or change nothing if it is there."""

    async def remove(self, worker: str) -> None:
        """Remove the worker with that id, or change nothing if it is not there."""


def changes(*, listed: Iterable[Registered], wanted: Iterable[str], owner: str) -> Changes:
    """Compare a router's list with what it should hold of one deployment.

    A wanted worker that somebody else has registered stays theirs: it serves already.

    Args:
        listed: everything in the router.
        wanted: URLs of the workers in the membership.
        owner: uid of the deployment.
    """
    found = tuple(listed)
    wanted_urls = {normal(url) for url in wanted}
    known = {normal(entry.url) for entry in found}
    surplus = [
        entry.id for entry in found if entry.owner == owner and normal(entry.url) not in wanted_urls
    ]
    return Changes(
        add=tuple(sorted(wanted_urls - known)),
        remove=tuple(id for id in surplus if id),
        stuck=surplus.count(""),
    )


async def synchronize(
    router: Router,
    *,
    wanted: Mapping[str, str],
    model: str,
    owner: str,
    check: Callable[[], None] = lambda: None,
) -> Changes:
    """Make the router hold exactly these workers of ours; returns what had to be done.

    Args:
        router: the router.
        wanted: URLs of the workers, each with its API key, "" for none.
        model: the name that they serve.
        owner: uid of their deployment.
        check: called before each change; raises where this process must not make any.

    Raises:
        RouterError: it did not answer, or holds a worker of ours that cannot be removed; the next
            time goes on from what is there then.
    """
    keys = {normal(url): key for url, key in wanted.items()}
    todo = changes(listed=await router.list(), wanted=wanted, owner=owner)
    for worker in todo.remove:
        check()
        await router.remove(worker)
    for url in todo.add:
        check()
        await router.add(url, model=model, owner=owner, api_key=keys.get(url, ""))
    if todo.stuck:
        raise RouterError(
            f"the router lists {todo.stuck} workers that have left, under ids that cannot stand in "
            "a path (more than 256 characters, or others than visible ASCII without / ? # %): "
            "remove them there by hand"
        )
    return todo


def normal(url: str) -> str:
    """A worker's URL as it is compared."""
    return url.rstrip("/")


def parse_workers(answer: object) -> tuple[Registered, ...]:
    """The answer to `GET /workers` of either router.

    Raises:
        RouterError: it is no such answer. An empty list would have us add everything again.
    """
    listed = dig(answer, "workers")
    if not isinstance(listed, list):
        raise RouterError("the answer to GET /workers holds no list of workers")
    return tuple(
        Registered(
            id=_usable(dig(worker, "id")), url=_text(dig(worker, "url")), owner=_owner(worker)
        )
        for worker in listed
    )


def _usable(id: object) -> str:
    """An id as it can be asked for, "" for one that cannot."""
    if type(id) is int and abs(id) < 2**63:
        return str(id)
    text = _text(id)
    return text if _ID.fullmatch(text) and _NOT_IN_ID.isdisjoint(text) else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _owner(worker: object) -> str:
    """sglang-router gives labels back as `metadata`, smg as `labels`."""
    for place in ("labels", "metadata"):
        found = dig(worker, place, OWNER_LABEL)
        if isinstance(found, str):
            return found
    return ""


class HttpRouter:
    """A router over HTTP."""

    def __init__(
        self, client: httpx.AsyncClient, *, url: str, token: str = "", timeout: float = 5.0
    ) -> None:
        """Prepare.

        Args:
            client: shared by all routers.
            url: where `/workers` answers.
            token: sent as Bearer; "" for none.
            timeout: seconds for one call.
        """
        self._client = client
        self._url = normal(url)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = timeout

    async def list(self) -> tuple[Registered, ...]:
        """See `Router`."""
        answer = await self._call("GET", "/workers")
        self._require(answer, frozenset({200}), "GET /workers")
        listed = answer.json()
        if listed is MALFORMED:
            raise RouterError(f"{self._url}: the answer to GET /workers is not JSON")
        return parse_workers(listed)

    async def add(self, url: str, *, model: str, owner: str, api_key: str = "") -> None:
        """See `Router`."""
        body: dict[str, object] = {"url": url, "model_id": model, "labels": {OWNER_LABEL: owner}}
        if api_key:
            body["api_key"] = api_key
        answer = await self._call("POST", "/workers", body=body)
        self._require(answer, _ACCEPTED, f"POST /workers with {url}")
        _log.info("%s: added %s", self._url, url)

    async def remove(self, worker: str) -> None:
        """See `Router`."""
        answer = await self._call("DELETE", f"/workers/{worker}")
        self._require(answer, _ACCEPTED | {204, 404}, "DELETE of a worker of ours")
        _log.info("%s: removed a worker", self._url)

    async def _call(
        self,
        method: Literal["GET", "POST", "DELETE"],
        path: str,
        *,
        body: Mapping[str, object] | None = None,
    ) -> BoundedAnswer:
        try:
            return await exchange(
                self._client,
                method=method,
                url=self._url + path,
                body=body,
                headers=self._headers,
                timeout=self._timeout,
            )
        except HttpFailedError as error:
            raise RouterError(f"{self._url} does not answer {method} /workers: {error}") from None

    def _require(self, answer: BoundedAnswer, good: frozenset[int], what: str) -> None:
        """Of an answer that is not good only its number is told.

        Whoever may read a deployment's status could else read through us what he cannot reach.
        """
        if answer.status in good:
            return
        if answer.status in (401, 403):
            raise RouterError(
                f"{self._url} refuses us ({answer.status} to {what}): write its key into the "
                "Secret of endpoint.external.authSecretRef"
            )
        raise RouterError(f"{self._url} answers {what} with status {answer.status}")
