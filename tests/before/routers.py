"""External routers: what their URLs, answers and tokens do to the part that keeps them in step."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import yaml

from isthmus.api import names
from isthmus.apiserver.resources import ENDPOINT_SLICES, MODEL_DEPLOYMENTS
from isthmus.apiserver.secrets import Secrets
from isthmus.cli.validate import findings as validated
from isthmus.routing.external import HttpRouter, RouterError, parse_workers
from isthmus.routing.worker_keys import held_keys
from tests.before.findings import any_of, finding, takes

Say = Callable[[asyncio.StreamWriter], Awaitable[None]]

PEM = "-----BEGIN PRIVATE KEY-----\nMIIBVAIBADANBgkqhkiG9w0\n-----END PRIVATE KEY-----\n"


def _deployment(name: str, url: str) -> dict[str, Any]:
    external = {"kind": "smg", "url": url, "authSecretRef": {"name": "token", "key": "token"}}
    return {
        "apiVersion": "isthmus.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "uid": f"uid-{name}",
            "resourceVersion": "1",
        },
        "spec": {
            "model": {"source": "hf://org/model", "servedNames": ["llama"]},
            "pools": [{"name": "k8s", "kubernetes": {}}],
            "endpoint": {"type": "External", "external": external},
        },
    }


class _Objects:
    """The API server, as far as Secrets are concerned."""

    def __init__(self, token: str) -> None:
        self._token = base64.b64encode(token.encode()).decode()

    async def get(self, resource: Any, *, namespace: str, name: str) -> Any:
        found = {"metadata": {"name": name}, "data": {"token": self._token}}
        return found if name == "token" else None


def _keeper(client: httpx.AsyncClient, *, url: str, token: str = "sk-1") -> Any:
    """What keeps routers in step, with one deployment of that URL."""
    made = any_of(
        "isthmus.routing.keep_external:ExternalRouters",
        "isthmus.reconcile.external_routers:ExternalRouters",
    )
    store = any_of("isthmus.apiserver.store:Store", "isthmus.reconcile.store:Store")(
        watched=[MODEL_DEPLOYMENTS, ENDPOINT_SLICES]
    )
    store.put(MODEL_DEPLOYMENTS, _deployment("bad", url))
    usual: dict[str, Any] = {
        "store": store,
        "secrets": Secrets(_Objects(token), clock=lambda: 0.0),  # type: ignore[arg-type]
        "check": lambda: None,
        "operator_namespace": "isthmus-system",
    }
    if takes(made, "client"):
        return made(client=client, interval=0.05, **usual)
    clients = any_of("isthmus.routing.keep_external:RouterClients")(usual=client)
    times = any_of("isthmus.routing.keep_external:RouterTimes")(interval=0.05)
    return made(clients=clients, times=times, **usual)


@asynccontextmanager
async def _listening(say: Say, asked: list[bytes] | None = None) -> AsyncIterator[str]:
    """The URL of a server that reads the head of a request and then does what it likes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            if asked is not None:
                asked.append(head)
            await say(writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def _answer(body: bytes, *, status: str = "200 OK") -> Say:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"

    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode() + body)
        await writer.drain()

    return say


async def _drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.1)


async def _ends(url: str) -> bool:
    """Whether the part ends by an error, which ends the operator's process."""
    async with httpx.AsyncClient() as client:
        running = asyncio.create_task(_keeper(client, url=url).run())
        await asyncio.wait({running}, timeout=1.0)
        failed = running.done() and running.exception() is not None
        running.cancel()
        with suppress(BaseException):
            await running
        return failed


@finding("C1", "`http://router:port` in one object ends the process of the operator")
async def url_ends_the_operator() -> bool:
    return await _ends("http://router:port")


@finding("C1", "JSON of 100 000 levels from a router ends the process of the operator")
async def nested_answer_ends_the_operator() -> bool:
    nested = b'{"workers":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    async with _listening(_answer(nested)) as url:
        return await _ends(url)


@finding("C1", "an answer with `charset=hex` ends the process of the operator")
async def odd_charset_ends_the_operator() -> bool:
    odd = _answer(b"x", status="500 Error\r\nContent-Type: text/plain; charset=hex")
    async with _listening(odd) as url:
        return await _ends(url)


@finding("C1", "a router is offered gzip, of which 600 kB fill the memory of the operator")
async def gzip_is_offered() -> bool:
    asked: list[bytes] = []
    async with httpx.AsyncClient() as client, _listening(_answer(b"{}"), asked) as url:
        with suppress(RouterError):
            await HttpRouter(client, url=url).list()
    (head,) = asked
    return b"gzip" in head


@finding("C1", "a deeply nested annotation of a Secret ends the operator and all fronts")
def nested_annotation_ends_the_operator() -> bool:
    notes = {names.ANNOTATION_DEPLOYMENT_KEYS: "[" * 100_000 + "]" * 100_000}
    try:
        held_keys({"metadata": {"annotations": notes}, "data": {}})
    except RecursionError:
        return True
    return False


@finding("B1", "`isthmus validate` lets `http://router:port` pass")
def wrong_port_is_valid() -> bool:
    text = yaml.safe_dump(_deployment("a", "http://router:port"))
    return not any(one.is_problem for one in validated(text))


@finding("C2", "a Secret of several lines stands in the status of the deployment")
async def secret_in_the_status() -> bool:
    async with httpx.AsyncClient() as client, _listening(_answer(b'{"workers":[]}')) as url:
        keeper = _keeper(client, url=url, token=PEM)
        await keeper.cycle()
        told = keeper.problem("uid-bad")
        assert told, "a Secret that cannot be a header is told"
        return "MIIBVAIBADANBgkqhkiG9w0" in told


@finding("H7", "a router that drips holds a look at it, and with it all others, beyond any limit")
async def drip_has_no_limit() -> bool:
    async with httpx.AsyncClient() as client, _listening(_drip) as url:
        router = HttpRouter(client, url=url, timeout=0.5)
        try:
            async with asyncio.timeout(3):
                await router.list()
        except TimeoutError:
            return True
        except RouterError:
            return False
    return False


async def _refused(body: bytes) -> str:
    refused = _answer(body, status="404 Not Found")
    async with httpx.AsyncClient() as client, _listening(refused) as url:
        try:
            await HttpRouter(client, url=url).list()
        except RouterError as error:
            return str(error)
    raise AssertionError("404 is an answer like any other")


@finding("M5", "the page of any address stands in the status")
async def page_in_the_status() -> bool:
    return "internal page" in await _refused(b"internal page of another service")


@finding("M5", "the operator asks its own loopback for whoever names it as a router")
async def loopback_is_asked() -> bool:
    asked: list[bytes] = []
    async with _operators_client() as client, _listening(_answer(b"{}"), asked) as url:
        with suppress(RouterError):
            await HttpRouter(client, url=url).list()
    return bool(asked)


def _operators_client() -> Any:
    """The client for routers, as the operator makes it by default."""
    try:
        made = any_of("isthmus.bounded_http:bounded_client")
    except LookupError:
        return httpx.AsyncClient()
    return made(any_of("isthmus.allow_list:allow_list")(any_of("isthmus.allow_list:DEFAULT")))


@finding("L1", "line feeds and ESC of a router stand in status and log")
async def escape_in_the_status() -> bool:
    return not {"\n", "\x1b"}.isdisjoint(await _refused(b"one\ntwo \x1b[2J"))


@finding("L11", "a router's id of a worker leads DELETE to another path of its host")
async def id_is_a_path() -> bool:
    (listed,) = parse_workers({"workers": [{"id": "../../admin/x", "url": "http://10.0.0.1:1"}]})
    asked: list[bytes] = []
    async with httpx.AsyncClient() as client, _listening(_answer(b""), asked) as url:
        if listed.id:
            await HttpRouter(client, url=url).remove(listed.id)
    return any(head.startswith(b"DELETE /admin/x ") for head in asked)
