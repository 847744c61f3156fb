"""One HTTP request through a forward, at intervals: the only proof that it works."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import httpx

from isthmus.tunnels.rules import Outcome

PATH = "/ping"
"""Any answer will do, also 404 and 401; vLLM and SGLang answer at once, without their engines."""


async def check(client: httpx.AsyncClient, *, url: str, timeout: float) -> Outcome:
    """Ask once.

    Args:
        client: without connections that are kept: an old one proves nothing about a new one.
        url: `http://address:port`.
        timeout: seconds for all of it.
    """
    try:
        async with asyncio.timeout(timeout):
            async with client.stream("GET", f"{url}{PATH}", headers={"Connection": "close"}):
                return Outcome.ANSWERED
    except (TimeoutError, httpx.TimeoutException):
        return Outcome.SILENT
    except httpx.ConnectError:
        return Outcome.REFUSED
    except Exception:  # httpx raises more than its own, for a Location that is no URL for instance
        return Outcome.CLOSED


def check_client() -> httpx.AsyncClient:
    """A client for `check`."""
    return httpx.AsyncClient(
        follow_redirects=False,
        trust_env=False,
        timeout=None,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
    )


class Checks:
    """Asks through a changing set of forwards, each in a task of its own."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        interval: float,
        timeout: float,
        on_outcome: Callable[[str, Outcome], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare.

        Args:
            client: see `check_client`.
            interval: seconds between two requests; a quarter while there was no answer yet.
            timeout: seconds for one.
            on_outcome: told each outcome, with the key of the forward.
            sleep: waits for some seconds.
        """
        self._client = client
        self._interval, self._timeout = interval, timeout
        self._on_outcome = on_outcome
        self._sleep = sleep
        self._tasks: dict[str, tuple[str, asyncio.Task[None]]] = {}

    def watch(self, urls: dict[str, str]) -> None:
        """Ask through exactly these from now on: key to URL."""
        for key, (url, task) in list(self._tasks.items()):
            if urls.get(key) != url:
                task.cancel()
                del self._tasks[key]
        for key, url in urls.items():
            if key not in self._tasks:
                task = asyncio.create_task(self._run(key, url), name=f"check {url}")
                self._tasks[key] = url, task

    async def close(self) -> None:
        """Stop all."""
        tasks = [task for _, task in self._tasks.values()]
        self.watch({})
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self, key: str, url: str) -> None:
        answered = False
        while True:
            outcome = await check(self._client, url=url, timeout=self._timeout)
            answered = outcome is Outcome.ANSWERED
            self._on_outcome(key, outcome)
            await self._sleep(self._interval if answered else self._interval / 4)
