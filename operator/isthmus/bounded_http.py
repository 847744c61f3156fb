"""HTTP to whatever a tenant names: bounded in time and size, and nothing of it is believed.

For everything that is not the API server. The other side chooses each byte of the answer and may be
hostile, and the request may hold a Secret, so

* one time limit covers a call as a whole: a limit for each read is none against one that drips;
* the body is taken as it comes, at most `MOST_BYTES`, and never decompressed: 600 kB of gzip are
  600 MB;
* no redirect is followed, no cookie kept, no proxy of the environment used;
* a connection is made to an address that was judged (`allow_list`), and to no other: the name is
  resolved once, here, so it cannot lead elsewhere between the look and the connection;
* text is UTF-8 whatever the answer says of itself, and JSON that cannot be read is a value;
* what a library says in an exception never gets any further, for h11 quotes the header that it
  refuses: kinds of exceptions become sentences of ours.
"""

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final, Literal

import httpx

from isthmus.address_rules import Address, parse_address
from isthmus.allow_list import AllowList
from isthmus.errors import AddressRefusedError, HttpFailedError

MOST_BYTES: Final = 2 * 1024 * 1024
"""Of one body: 2048 workers as a router lists them are below 1 MiB. JSON of this size may take 50
times as much while it is read."""


class Malformed:
    """What is no JSON; the only value is `MALFORMED`."""

    __slots__ = ()


MALFORMED: Final = Malformed()


@dataclass(frozen=True, slots=True)
class BoundedAnswer:
    """Status code and body of an answer."""

    status: int
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The body as text; what is not UTF-8 in it becomes U+FFFD."""
        return self.body.decode("utf-8", errors="replace")

    def json(self) -> object:
        """The body as JSON, `MALFORMED` if it is none, or is nested too deeply to be read."""
        try:
            value: object = json.loads(self.text)
        except (ValueError, RecursionError):
            return MALFORMED
        return value


def bounded_client(
    allowed: AllowList, *, verify: ssl.SSLContext | None = None
) -> httpx.AsyncClient:
    """A client for `exchange`: no cookies, no redirects, no proxies, nobody waits for a place.

    Args:
        allowed: the addresses that it may connect to.
        verify: whose certificates are believed; by default the system's.
    """
    return httpx.AsyncClient(
        transport=_JudgedTransport(allowed, verify=verify),
        trust_env=False,
        follow_redirects=False,
        timeout=None,
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
    )


class _JudgedTransport(httpx.AsyncBaseTransport):
    """Connects to the addresses of a host that are allowed, one after the other."""

    def __init__(self, allowed: AllowList, *, verify: ssl.SSLContext | None) -> None:
        self._allowed = allowed
        # A connection is kept by its address, and two hosts may have the same: so none is kept.
        self._inner = httpx.AsyncHTTPTransport(
            verify=verify or True,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request to the first address that takes it.

        Raises:
            AddressRefusedError: none of them is allowed.
        """
        url, failed = request.url, None
        host = url.raw_host.decode("ascii")
        # The certificate is of the name, and so is the header Host, which stands already.
        request.extensions = {**request.extensions, "sni_hostname": host}
        for address in await self._addresses(host, url.port):
            request.url = url.copy_with(host=address)
            try:
                return await self._inner.handle_async_request(request)
            except httpx.ConnectError as error:
                failed = error
        raise failed or httpx.ConnectError("no address")

    async def aclose(self) -> None:
        """Close what is open."""
        await self._inner.aclose()

    async def _addresses(self, host: str, port: int | None) -> list[str]:
        found = await asyncio.get_running_loop().getaddrinfo(
            host.strip("[]"), port or 0, type=socket.SOCK_STREAM
        )
        refusal, allowed = "", list[str]()
        for text in dict.fromkeys(str(place[0]) for *_, place in found):
            address = parse_address(text)
            if address is None:  # with a scope id, that is link-local
                refusal = "leads to an address that means something on one machine only"
                continue
            why = self._allowed.refusal(address, host=host)
            refusal = why or refusal
            if not why:
                allowed.append(text)
        if not allowed:
            raise AddressRefusedError(f"the host {refusal or 'has no address'}")
        return allowed


async def addresses_of(host: str) -> frozenset[Address]:
    """All addresses of a host of ours; none where it cannot be resolved."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return frozenset()
    parsed = (parse_address(str(place[0])) for *_, place in found)
    return frozenset(address for address in parsed if address is not None)


async def exchange(
    client: httpx.AsyncClient,
    *,
    method: Literal["GET", "POST", "DELETE"],
    url: str,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, object] | None = None,
    most_bytes: int = MOST_BYTES,
) -> BoundedAnswer:
    """Make one request and read its answer.

    Args:
        client: see `bounded_client`.
        method: of the request.
        url: a whole URL.
        timeout: seconds for all of it, from the look-up of the name to the last byte.
        headers: sent beside ours.
        body: sent as JSON.
        most_bytes: from which on an answer is too large.

    Raises:
        HttpFailedError: no answer, or none that fits; the message is ours from end to end.
    """
    sent = {**(headers or {}), "Accept-Encoding": "identity"}
    found = bytearray()
    try:
        async with (
            asyncio.timeout(timeout),
            client.stream(
                method, url, headers=sent, json=body, timeout=None, follow_redirects=False
            ) as answer,
        ):
            async for piece in answer.aiter_raw():
                found += piece
                if len(found) > most_bytes:
                    break
            status = answer.status_code
    except AddressRefusedError as error:
        raise HttpFailedError(str(error)) from None
    except Exception as error:  # of libraries alone; all that they say is left behind
        raise HttpFailedError(failure_sentence(error, timeout=timeout)) from None
    if len(found) > most_bytes:
        raise HttpFailedError(f"the answer is larger than {most_bytes} bytes")
    return BoundedAnswer(status=status, body=bytes(found))


def failure_sentence(error: BaseException, *, timeout: float) -> str:
    """Say in words of ours what an exception of a library means, by nothing but its type."""
    for one in _chain(error):
        for kind, sentence in _SENTENCES:
            if isinstance(one, kind):
                return sentence.format(timeout=timeout)
    return f"the answer cannot be read ({type(error).__name__})"


_SENTENCES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (socket.gaierror, "the host name cannot be resolved"),
    (ssl.SSLError, "TLS fails: its certificate is not trusted, or it does not speak TLS there"),
    (TimeoutError, "no complete answer within {timeout:g} s"),
    (httpx.TimeoutException, "no complete answer within {timeout:g} s"),
    (httpx.ConnectError, "no connection can be made: check the host and the port"),
    (httpx.NetworkError, "the connection was lost before the answer was complete"),
    (httpx.LocalProtocolError, "the request cannot be sent as HTTP"),
    (httpx.RemoteProtocolError, "what it sends is not HTTP, or is not complete"),
    (httpx.InvalidURL, "the URL cannot be asked: check its host and port"),
    (httpx.UnsupportedProtocol, "the URL cannot be asked: it must be http:// or https://"),
    (UnicodeError, "the URL or the answer has a host name that is none"),
)
"""The first that fits an exception, or one that it was made from. The narrow ones come first: a
name that is not found is a `ConnectError` too, and a `UnicodeError` has no cause."""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """What an exception was made from, the innermost first, so that the narrowest word is said."""
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found and len(found) < 16:
        found.append(current)
        current = current.__cause__ or current.__context__
    for one in list(found):
        if isinstance(one, BaseExceptionGroup):
            found.extend(one.exceptions)
    return reversed(found)
