"""Routers, URLs and Secrets that are hostile or odd, beside an honest router that must not notice.

Findings C1, C2, H7, M5 and B1 of docs/security.md. The routers are raw servers on loopback, so that
what is sent is sent to the byte.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import subprocess
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from isthmus.allow_list import DEFAULT, allow_list
from isthmus.apiserver.resources import ENDPOINT_SLICES, MODEL_DEPLOYMENTS
from isthmus.apiserver.secrets import Secrets
from isthmus.apiserver.store import Store
from isthmus.bounded_http import bounded_client
from isthmus.errors import EngineAnswerError, NotLeaderError
from isthmus.probing.client import HttpProbeClient
from isthmus.routing import keep_external as external_routers
from isthmus.routing.external import OWNER_LABEL
from isthmus.routing.keep_external import ExternalRouters, Gaps, RouterClients, RouterTimes
from isthmus.routing.slices import worker_slice
from tests.canaries import CANARY, SHAPES, assert_unseen

WORKER = "http://10.0.0.1:8000"

Say = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Reads the head of each request and answers with what the test says."""

    def __init__(self, say: Say) -> None:
        self.say, self.asked, self.url = say, [], ""
        self.asked: list[bytes]

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            await self.say(writer)
            await writer.drain()
        writer.close()


def answer(
    body: bytes, *, status: str = "200 OK", kind: str = "application/json", extra: str = ""
) -> Say:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}"

    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)

    return say


def listing(*workers: object) -> bytes:
    return json.dumps({"workers": workers}).encode()


def ours(id: object) -> dict[str, object]:
    """A worker of the bad deployment that has left, so that it is to be removed by its id."""
    return {"id": id, "url": "http://10.9.9.9:1", "labels": {OWNER_LABEL: "uid-bad"}}


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        writer.write(b"[" * 65536)
        await writer.drain()


def bomb() -> bytes:
    packer = zlib.compressobj(wbits=31)
    pieces = [packer.compress(bytes(1 << 20)) for _ in range(96)]
    return b"".join(pieces) + packer.flush()


class Lab:
    """The operator's store with a bad and a good deployment, and the part that is tested."""

    def __init__(self) -> None:
        self.store = Store(watched=[MODEL_DEPLOYMENTS, ENDPOINT_SLICES])
        self.version = 0
        self.objects: dict[str, Any] = {}
        self.leading = True

    def deployment(self, name: str, url: str, *, secret: bool = False, ca: str = "") -> None:
        external: dict[str, object] = {"kind": "smg", "url": url}
        if ca:
            external["caSecretRef"] = {"name": ca}
        if secret:
            external["authSecretRef"] = {"name": "token", "key": "token"}
        spec = {
            "model": {"source": "hf://org/model", "servedNames": ["llama"]},
            "pools": [{"name": "hpc", "slurm": {"clusterRef": {"name": "hpc"}}}],
            "endpoint": {"type": "External", "external": external},
        }
        self.put(MODEL_DEPLOYMENTS, {"metadata": {"name": name}, "spec": spec})
        owner = {"name": f"{name}-0", "uid": f"uid-{name}-0"}
        made = worker_slice(
            namespace="team-a",
            deployment=name,
            service=name,
            owner=owner,
            address="10.0.0.1",
            port=8000,
        )
        self.put(ENDPOINT_SLICES, made)

    def put(self, resource: Any, obj: Any) -> None:
        self.version += 1
        meta = {**obj["metadata"], "namespace": "team-a", "resourceVersion": str(self.version)}
        meta.setdefault("uid", f"uid-{meta['name']}")
        self.store.put(resource, {**obj, "metadata": meta})

    async def get(self, resource: Any, *, namespace: str, name: str) -> Any:
        """The API server, as far as Secrets are concerned."""
        return self.objects.get(name)

    def check(self) -> None:
        if not self.leading:
            raise NotLeaderError("the lease is lost")


@asynccontextmanager
async def routers(
    lab: Lab,
    *,
    timeout: float = 0.5,
    allow: Sequence[str] = (*DEFAULT, "127.0.0.1"),
    gaps: Gaps | None = None,
) -> AsyncIterator[ExternalRouters]:
    allowed = allow_list(allow)
    async with bounded_client(allowed) as client:
        yield ExternalRouters(
            store=lab.store,
            clients=RouterClients(
                usual=client, trusting=lambda context: bounded_client(allowed, verify=context)
            ),
            secrets=Secrets(lab, clock=lambda: 0.0),  # type: ignore[arg-type]
            check=lab.check,
            times=RouterTimes(interval=0.05, timeout=timeout, gaps=gaps or Gaps()),
            operator_namespace="isthmus-system",
        )


HONEST = answer(listing())


async def looked(
    lab: Lab, *, url: str = "", say: Say | None = None, secret: bool = False
) -> tuple[str, list[bytes]]:
    """One cycle with a bad router beside an honest one; the bad one's problem and what it heard."""
    async with AsyncExitStack() as stack:
        good = await stack.enter_async_context(Server(HONEST).listening())
        bad = Server(say or HONEST)
        if not url:
            url = (await stack.enter_async_context(bad.listening())).url
        lab.deployment("bad", url, secret=secret)
        lab.deployment("good", good.url)
        task = await stack.enter_async_context(routers(lab))
        await task.cycle()
        assert any(b"POST /workers" in request for request in good.asked)
        assert task.problem("uid-good") == ""
        return task.problem("uid-bad") or "", bad.asked


@pytest.mark.parametrize(
    "url",
    [
        "http://router:port",  # B1: a plain typo
        "http://router:0",
        "http://router:65536",
        "http://[::1",
        "http://[]:80",
        "http://[::::]:80",
        "http://a:b:c",
        "http://xn--a:80",
        "http://xn--999999999:80",
        f"http://{'a' * 64}:80",
    ],
)
async def test_c1_b1_a_url_that_cannot_be_asked_is_the_deployments_problem(url: str) -> None:
    problem, _ = await looked(Lab(), url=url)
    assert "endpoint.external.url" in problem


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"[" * 5000, "not JSON"),
        (b'{"workers": ' + b"[" * 100_000, "not JSON"),
        (b'{"workers": [{"id": ' + b"9" * 5000 + b"}]}", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"{}", "no list of workers"),
        (listing(ours("a\nb")), "by hand"),
        (listing(ours("x" * 70_000)), "by hand"),
        (listing(ours("\ud800")), "by hand"),
        (listing(ours("../..")), "by hand"),
        (listing(ours("..")), "by hand"),
        (listing(ours("a?b")), "by hand"),
        (listing(ours({"a": []})), "by hand"),
        (listing(ours(None)), "by hand"),
    ],
    ids=lambda value: str(value[:24]),
)
async def test_c1_an_answer_that_cannot_be_used_is_told(body: bytes, told: str) -> None:
    problem, asked = await looked(Lab(), say=answer(body))
    assert told in problem
    assert not any(request.startswith(b"DELETE") for request in asked)


@pytest.mark.parametrize("charset", ["hex", "zlib", "rot13", "idna", "undefined", "\xff"])
async def test_c1_m5_of_a_refusal_only_its_number_is_told(charset: str) -> None:
    body = f"404 page not found: {CANARY} \x1b[31m\n".encode()
    say = answer(body, status="500 Oops", kind=f"text/plain; charset={charset}")
    problem, _ = await looked(Lab(), say=say)
    assert "status 500" in problem
    assert CANARY not in problem


@pytest.mark.parametrize(
    ("say", "told"),
    [
        (answer(b"", status="302 Found", extra="Location: http://xn--a/\r\n"), ""),
        (answer(b"", status="302 Found", extra="Location: http://[::\r\n"), ""),
        (answer(b"", status="307 Go", extra="Location: /else\r\n"), "status 307"),
        (answer(b"", status=f"{CANARY}"), "not HTTP"),
        (answer(b"", extra=f"{CANARY}\r\n"), "not HTTP"),
        (answer(b"", extra="Content-Length: 7\r\n"), "not HTTP"),
        (endless, "larger than"),
        (drip, "no complete answer within"),
    ],
)
async def test_c1_what_is_no_http_is_told_in_words_of_ours(
    say: Say, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    problem, asked = await looked(Lab(), say=say)
    assert problem
    assert told in problem
    assert len(asked) == 1  # no redirect was followed
    assert CANARY not in problem + caplog.text


async def test_c1_a_bomb_of_gzip_is_not_unpacked() -> None:
    say = answer(bomb(), extra="Content-Encoding: gzip\r\n")
    tracemalloc.start()
    try:
        problem, asked = await looked(Lab(), say=say)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "not JSON" in problem
    assert b"accept-encoding: identity" in asked[0].lower()
    assert peak < 32 << 20, f"{peak >> 20} MiB"


async def test_c1_keys_that_are_nested_deeply_are_no_keys() -> None:
    lab = Lab()
    nested = '{"a": ' + "[" * 50_000
    notes = {"isthmus.dev/deployment-keys": nested}
    lab.objects["bad-worker-keys"] = {"metadata": {"annotations": notes}, "data": {"a": "é"}}
    problem, asked = await looked(lab)
    assert problem == ""
    assert any(b"POST /workers" in request for request in asked)


CANARIES = {**SHAPES, "blank": f"{CANARY} x".encode()}


@pytest.mark.parametrize("value", CANARIES.values(), ids=CANARIES)
async def test_c2_no_secret_in_status_log_or_request(
    value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    lab = Lab()
    lab.objects["token"] = {"data": {"token": base64.b64encode(value).decode()}}
    problem, asked = await looked(lab, secret=True)
    assert "Secret team-a/token, key token" in problem
    assert asked == []  # nothing that is no token was sent anywhere
    assert_unseen(problem, caplog.text)


async def test_c2_a_token_is_sent_and_told_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    lab = Lab()
    lab.objects["token"] = {"data": {"token": base64.b64encode(f"{CANARY}\n".encode()).decode()}}
    problem, asked = await looked(lab, secret=True, say=answer(b"", status="401 No"))
    assert f"Bearer {CANARY}".encode() in asked[0]
    assert "authSecretRef" in problem
    assert CANARY not in problem + caplog.text


async def test_c2_an_unexpected_error_is_told_without_its_text(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes next that nobody has thought of."""

    class OddRouter:
        def __init__(self, *_: object, url: str, **__: object) -> None:
            self.url = url

        async def list(self) -> tuple[object, ...]:
            if "bad" in self.url:
                raise AssertionError(f"Illegal header value b'{CANARY}'")
            return ()

        async def add(self, url: str, **_: object) -> None:
            added.append(url)

    added: list[str] = []
    monkeypatch.setattr(external_routers, "HttpRouter", OddRouter)
    lab = Lab()
    lab.deployment("bad", "http://bad")
    lab.deployment("good", "http://good")
    async with routers(lab) as task:
        await task.cycle()
        assert added == [WORKER]
        problem = task.problem("uid-bad") or ""
    assert "unexpected AssertionError" in problem
    assert "in list" in caplog.text or " list" in caplog.text  # where it was
    assert CANARY not in problem + caplog.text


async def test_c2_an_engine_that_is_no_server_is_told_in_words_of_ours() -> None:
    async with (
        Server(answer(b"", extra=f"bad header {CANARY}\r\n")).listening() as server,
        HttpProbeClient() as client,
    ):
        for headers in ({}, {"X-Key": f"{CANARY}\nX: {CANARY}"}):
            with pytest.raises(EngineAnswerError) as caught:
                await client.get(server.url, headers=headers)
            assert CANARY not in str(caught.value)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  # what raw servers heard, not an event of ours
            await asyncio.sleep(0.01)


FAST = Gaps(looks=0.01, readings=0.01)


async def test_h7_a_router_that_drips_holds_up_nobody_else() -> None:
    lab = Lab()
    async with (
        Server(drip).listening() as bad,
        Server(HONEST).listening() as good,
        routers(lab, timeout=5.0, gaps=FAST) as task,
    ):
        lab.deployment("bad", bad.url)
        lab.deployment("good", good.url)
        running = asyncio.create_task(task.run())
        try:
            await until(lambda: len(bad.asked) == 1)
            heard = len(good.asked)
            await until(lambda: len(good.asked) >= heard + 6)  # three more looks
            assert len(bad.asked) == 1  # and the first question still hangs
            assert task.problem("uid-good") == ""
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_h7_a_router_that_drips_is_told_and_another_change_does_not_wake_it() -> None:
    lab = Lab()
    async with Server(drip).listening() as bad, routers(lab, timeout=0.2, gaps=FAST) as task:
        lab.deployment("bad", bad.url)
        running = asyncio.create_task(task.run())
        try:
            await until(
                lambda: "no complete answer within 0.2 s" in (task.problem("uid-bad") or "")
            )
            lab.put(MODEL_DEPLOYMENTS, {"metadata": {"name": "bad"}, "spec": {"endpoint": {}}})
            await until(lambda: len(bad.asked) >= 3)  # what is to leave is tried again as well
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_only_a_lost_lease_ends_it() -> None:
    lab = Lab()
    async with Server(answer(b"[" * 5000)).listening() as bad, routers(lab, gaps=FAST) as task:
        lab.deployment("bad", bad.url)
        running = asyncio.create_task(task.run())
        await until(lambda: len(bad.asked) >= 2)
        assert not running.done()
        lab.leading = False
        with pytest.raises(NotLeaderError):
            await asyncio.wait_for(running, 20)


async def test_no_worker_is_added_after_the_lease_is_lost() -> None:
    lab = Lab()

    async def lose(writer: asyncio.StreamWriter) -> None:
        lab.leading = False  # while the router is asked
        await HONEST(writer)

    async with Server(lose).listening() as router, routers(lab) as task:
        lab.deployment("good", router.url)
        with pytest.raises(NotLeaderError):
            await task.cycle()
        assert [request.split()[0] for request in router.asked] == [b"GET"]


async def test_workers_stay_while_their_deployment_cannot_be_read() -> None:
    """An object of a newer schema is not one that has left its router."""
    lab = Lab()
    there = {"id": "a", "url": WORKER, "labels": {OWNER_LABEL: "uid-good"}}
    async with Server(answer(listing(there))).listening() as router, routers(lab) as task:
        lab.deployment("good", router.url)
        await task.cycle()
        external = {"kind": "smg", "url": router.url, "newer": {}}
        odd = {"spec": {"endpoint": {"type": "External", "external": external}}}
        lab.put(MODEL_DEPLOYMENTS, {"metadata": {"name": "good"}, **odd})
        await task.cycle()
        assert [request.split()[0] for request in router.asked] == [b"GET", b"GET"]


async def test_b5_a_newer_field_elsewhere_keeps_no_router_from_being_kept_in_step() -> None:
    """Its new workers would get no requests, and those that have ended would go on getting them."""
    lab = Lab()
    gone = {"id": "a", "url": "http://10.9.9.9:1", "labels": {OWNER_LABEL: "uid-good"}}
    async with Server(answer(listing(gone))).listening() as router, routers(lab) as task:
        lab.deployment("good", router.url)
        stored = lab.store.get(MODEL_DEPLOYMENTS, "team-a", "good")
        assert stored is not None
        lab.put(MODEL_DEPLOYMENTS, {**stored, "spec": {**stored["spec"], "newer": {"a": 1}}})
        await task.cycle()
        assert {request.split()[0] for request in router.asked} == {b"GET", b"POST", b"DELETE"}


async def refused(url: str, *, allow: Sequence[str]) -> str:
    lab = Lab()
    async with routers(lab, allow=allow) as task:
        lab.deployment("bad", url)
        await task.cycle()
        return task.problem("uid-bad") or ""


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "0177.0.0.1",
        "2130706433",
        "0x7f.1",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::]",
    ],
)
async def test_m5_no_form_of_our_own_loopback_is_asked(host: str) -> None:
    async with Server(HONEST).listening() as server:
        port = server.url.rpartition(":")[2]
        problem = await refused(f"http://{host}:{port}", allow=DEFAULT)
        assert not server.asked
    sentences = ("the host leads to", "cannot be resolved", "the URL cannot be asked")
    assert any(sentence in problem for sentence in sentences), problem


async def test_m5_the_address_that_was_judged_is_the_one_that_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that leads elsewhere a moment later, as whoever answers for it may have it."""
    loop, answers = asyncio.get_running_loop(), ["10.0.0.9", "127.0.0.1"]
    original, asked = loop.getaddrinfo, list[str]()

    async def rebinding(host: Any, port: Any, **others: Any) -> Any:
        if host != "router.example.org":
            return await original(host, port, **others)
        asked.append(host)
        return await original(answers[min(len(asked), len(answers)) - 1], port, **others)

    monkeypatch.setattr(loop, "getaddrinfo", rebinding)
    connected: list[str] = []

    async def connect(self: object, request: httpx.Request) -> httpx.Response:
        connected.append(request.url.host)
        assert request.headers["Host"] == "router.example.org:30000"
        raise httpx.ConnectError("nobody is there")

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", connect)
    problem = await refused("http://router.example.org:30000", allow=DEFAULT)
    assert connected == ["10.0.0.9"]
    assert "no connection can be made" in problem
    problem = await refused("http://router.example.org:30000", allow=DEFAULT)
    assert connected == ["10.0.0.9"], "judged again at the next connection"
    assert "127.0.0.1" in problem
    assert "router-allow" in problem


class Authority:
    """A CA of a site, and a server's certificate for 127.0.0.1 and localhost."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.server = folder / "ca.crt", folder / "server.pem"
        extension = folder / "san"
        extension.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        key, ask, made = folder / "key", folder / "csr", folder / "crt"
        authority = ["-x509", "-days", "2", "-subj", "/CN=Site", "-keyout", folder / "ca.key"]
        signed = ["-CA", self.ca, "-CAkey", folder / "ca.key", "-CAcreateserial", "-days", "2"]
        for argv in (
            [*new, *authority, "-out", self.ca],
            [*new, "-subj", "/CN=router", "-keyout", key, "-out", ask],
            ["x509", "-req", "-in", ask, *signed, "-extfile", extension, "-out", made],
        ):
            subprocess.run(["openssl", *argv], check=True, capture_output=True, timeout=60)
        self.server.write_text(key.read_text() + made.read_text())

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.server)
        serve = Server(HONEST)._serve
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"
        server.close()


async def https(lab: Lab, url: str, *, ca: bytes | None) -> str:
    if ca is not None:
        lab.objects["site-ca"] = {"data": {"ca.crt": base64.b64encode(ca).decode()}}
    async with routers(lab, timeout=5.0) as task:
        lab.deployment("good", url, ca="site-ca")
        await task.cycle()
        return task.problem("uid-good") or ""


async def test_l11_a_router_of_a_private_ca(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (other := tmp_path / "other").mkdir()
    async with authority.listening() as url:
        assert await https(Lab(), url, ca=authority.ca.read_bytes()) == ""
        assert "TLS fails" in await https(Lab(), url, ca=Authority(other).ca.read_bytes())
        assert "does not exist" in await https(Lab(), url, ca=None)
        lab = Lab()
        async with routers(lab, timeout=5.0) as task:
            lab.deployment("good", url)
            await task.cycle()
            assert "TLS fails" in (task.problem("uid-good") or ""), "the system's CAs by default"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"cAnArY-7f3a",
        b"\xff\xfe\x00cAnArY-7f3a",
        b"-----BEGIN CERTIFICATE-----\ncAnArY/7f3a\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PRIVATE KEY-----\ncAnArY7f3a\n-----END PRIVATE KEY-----\n",
        b"cAnArY-7f3a" * 10_000,
    ],
)
async def test_l11_what_is_no_ca_is_told_and_not_shown(
    content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    problem = await https(Lab(), "https://localhost:1", ca=content)
    assert "Secret" in problem
    assert "cAnArY" not in problem + caplog.text
