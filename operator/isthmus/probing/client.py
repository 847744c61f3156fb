"""How an engine is asked: one GET, with a connection of its own.

Apart from the prober, which knows what to ask and what the answers mean. By aiohttp, which takes a
fifth of httpx's processor time for it (docs/benchmarks.md): one process asks thousands of workers
every few seconds. The same bounds hold as in `bounded_http`, and what the library says in its
exceptions goes no further here either: it quotes what the other side sent, and what we did.
"""

import os
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import aiohttp

from isthmus.errors import EngineAnswerError, EngineRefusedError

MOST_BYTES = 1_000_000
_PIECE = 65_536


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """Status code and body of an answer."""

    status: int
    body: bytes


class ProbeClient(Protocol):
    """Asks engines. Has no time limit of its own: the prober's covers a probe as a whole."""

    async def get(self, url: str, *, headers: Mapping[str, str]) -> EngineAnswer:
        """Ask for a page.

        Raises:
            EngineRefusedError: no connection could be made.
            EngineAnswerError: what came is no answer, or is larger than `MOST_BYTES`.
        """

    async def stream(
        self, url: str, *, headers: Mapping[str, str], take: Callable[[bytes], bool]
    ) -> int:
        """Ask for a page of any size, of which nothing is kept; returns its status code.

        Args:
            url: the page.
            headers: sent with the question.
            take: told each piece of the body as it comes, whatever the status; False ends it.

        Raises:
            EngineRefusedError: no connection could be made.
            EngineAnswerError: what came is no answer, or not all of it came.
        """


class HttpProbeClient:
    """A `ProbeClient` over HTTP: no redirects, no cookies, no proxies from the environment.

    A connection of its own for each question, because an engine that no longer accepts connections
    may well go on answering on an old one.
    """

    def __init__(self) -> None:
        """Prepare; must be called within the loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self, url: str, *, headers: Mapping[str, str]) -> EngineAnswer:
        """See `ProbeClient`."""
        body = b""

        def take(piece: bytes) -> bool:
            nonlocal body
            body += piece
            return len(body) <= MOST_BYTES

        status = await self.stream(url, headers=headers, take=take)
        if len(body) > MOST_BYTES:
            raise EngineAnswerError(f"{url} answers with more than {MOST_BYTES} bytes")
        return EngineAnswer(status, body)

    async def stream(
        self, url: str, *, headers: Mapping[str, str], take: Callable[[bytes], bool]
    ) -> int:
        """See `ProbeClient`. Whatever listens there must not be able to fill our memory."""
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False) as answer:
                async for piece in answer.content.iter_chunked(_PIECE):
                    if not take(piece):
                        break
                return answer.status
        except aiohttp.ClientConnectorError as error:
            raise EngineRefusedError(_connecting(error.os_error)) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise EngineAnswerError(_answering(error)) from None


def _connecting(error: OSError) -> str:
    """Why no connection can be made, by the type of the error and the system's own word for it."""
    if isinstance(error, socket.gaierror):
        return "the host name cannot be resolved"
    if isinstance(error, ssl.SSLError):
        return "TLS fails"
    return os.strerror(error.errno) if error.errno else "no connection can be made"


def _answering(error: Exception) -> str:
    """What is wrong with an answer, by the type of the error."""
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer broke off"
    if isinstance(error, aiohttp.ServerDisconnectedError | OSError):
        return "the connection was closed before an answer came"
    if isinstance(error, aiohttp.ClientResponseError):
        return "what came is not HTTP"
    return f"the question cannot be asked, or its answer not be read ({type(error).__name__})"
