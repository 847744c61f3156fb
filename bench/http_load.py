"""Clients on kept connections that cost next to nothing, for what is faster than a Python client.

A connection is closed where the server says so, and the next one goes to another address, as one
through a Service does. An answer counts only if it is complete.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Address = tuple[str, int]
TIMEOUT = 30.0
PAUSE_AFTER_FAILURE = 0.1


@dataclass(slots=True)
class Result:
    """What the clients have seen.

    Attributes:
        seconds: of each answered request.
        failures: sentence to how often.
        duration: of the whole run, seconds.
    """

    seconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    duration: float = 0.0

    @property
    def failed(self) -> int:
        """Requests that were not answered to their end."""
        return self.failures.total()

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.seconds) / self.duration if self.duration else 0.0

    def percentile(self, share: float) -> float:
        """Seconds within which that share of the answers was there."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class IncompleteError(Exception):
    """The answer is no complete one; the message says why."""


class Clients:
    """Clients that ask, read to the end, and ask again."""

    def __init__(
        self, targets: Callable[[], Sequence[Address]], *, count: int, tokens: int, streams: bool
    ) -> None:
        """Prepare.

        Args:
            targets: where a new connection may go now.
            count: clients.
            tokens: of each answer.
            streams: whether every second client asks for a stream.
        """
        self.result = Result()
        self._targets = targets
        self._stop = asyncio.Event()
        self._tokens = tokens
        self._streams = streams
        self._begin = time.monotonic()
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(count)]

    async def run(self, seconds: float) -> Result:
        """Go on for that long, then end."""
        await asyncio.sleep(seconds)
        return await self.end()

    async def end(self) -> Result:
        """Read to its end what was asked, and return what was seen."""
        self._stop.set()
        await asyncio.gather(*self._tasks)
        self.result.duration = time.monotonic() - self._begin
        return self.result

    async def _client(self, number: int) -> None:
        request = _request(stream=self._streams and number % 2 == 1, tokens=self._tokens)
        opened = number
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stop.is_set():
            begin = time.monotonic()
            try:
                async with asyncio.timeout(TIMEOUT):
                    if connection is None:
                        targets = self._targets()
                        connection = await asyncio.open_connection(*targets[opened % len(targets)])
                        opened += 1
                    kept = await _ask(*connection, request=request)
            except (OSError, EOFError, TimeoutError, IncompleteError, ValueError) as error:
                self.result.failures[f"{type(error).__name__}: {error}"[:90]] += 1
                kept = False
                await asyncio.sleep(PAUSE_AFTER_FAILURE)
            else:
                self.result.seconds.append(time.monotonic() - begin)
            if not kept and connection is not None:
                connection[1].close()
                connection = None
        if connection is not None:
            connection[1].close()
            with contextlib.suppress(OSError):
                await connection[1].wait_closed()


def _request(*, stream: bool, tokens: int) -> bytes:
    body = json.dumps(
        {
            "model": "llama",
            "stream": stream,
            "max_tokens": tokens,
            "ignore_eos": True,
            "messages": [{"role": "user", "content": "count"}],
        }
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: front\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, request: bytes
) -> bool:
    """Send, read to the end, judge; returns whether the connection may be used again."""
    writer.write(request)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"transfer-encoding: chunked" in head:
        body = await _chunks(reader)
    else:
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        body = await reader.readexactly(int(length))
    if not head.startswith(b"http/1.1 200"):
        raise IncompleteError(f"{head[9:12].decode()} {body[:60].decode(errors='replace')}")
    if b"finish_reason" not in body or b'"error"' in body:
        raise IncompleteError("status 200 without an answer")
    if b"text/event-stream" in head and b"[DONE]" not in body:
        raise IncompleteError("a stream without [DONE]")
    return b"connection: close" not in head


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readuntil(b"\r\n")
    return b"".join(parts)
