"""How the ranks of a multi-node engine find each other, and notice when one is gone.

Rank 0 listens on the address that all ranks are given (`--dist-init-addr`, or `--master-addr` and
`--master-port`); the others connect and keep the connection open. That is enough to show what an
operator must cope with: nothing becomes ready before all are there, and no rank survives another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

FAREWELL = b"bye\n"


class RendezvousError(Exception):
    """The ranks did not find each other in time."""


class Leader:
    """Rank 0: waits for the other ranks."""

    def __init__(self, *, ranks: int, lost: Callable[[str], None]) -> None:
        """`ranks` counts the others; `lost` is called with the name of one that is gone."""
        self._missing = set(range(1, ranks + 1))
        self._lost = lost
        self._writers: list[asyncio.StreamWriter] = []
        self._complete = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def gather(self, *, port: int, seconds: float) -> None:
        """Listen on all interfaces and wait for every rank.

        Raises:
            RendezvousError: not all came within `seconds`.
        """
        self._server = await asyncio.start_server(self._greet, None, port)
        try:
            async with asyncio.timeout(seconds):
                await self._complete.wait()
        except TimeoutError:
            missing = ", ".join(map(str, sorted(self._missing)))
            raise RendezvousError(f"timed out waiting for node rank {missing}") from None

    async def dismiss(self) -> None:
        """Tell the other ranks that the end is wanted."""
        self._lost = lambda _rank: None
        for writer in self._writers:
            with contextlib.suppress(ConnectionError, TimeoutError):
                writer.write(FAREWELL)
                async with asyncio.timeout(1):
                    await writer.drain()
                writer.close()
        if self._server is not None:
            self._server.close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ValueError):
            rank = int((await reader.readline()).strip() or b"-1")
            if rank in self._missing:
                self._missing.discard(rank)
                self._writers.append(writer)
                if not self._missing:
                    self._complete.set()
                with contextlib.suppress(ConnectionError):
                    await reader.read()
                self._lost(f"node rank {rank}")
        writer.close()


async def follow(*, host: str, port: int, rank: int, seconds: float) -> bool:
    """Join rank 0 and stay until it is gone; True if it ended on purpose.

    Raises:
        RendezvousError: rank 0 could not be reached within `seconds`.
    """
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await _connect(host=host, port=port)
    except TimeoutError:
        raise RendezvousError(f"could not reach node rank 0 at {host}:{port}") from None
    try:
        writer.write(f"{rank}\n".encode())
        await writer.drain()
        return (await reader.readline()) == FAREWELL
    except ConnectionError:
        return False
    finally:
        writer.close()


async def _connect(*, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.2)
