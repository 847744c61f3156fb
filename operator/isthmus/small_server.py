"""A small HTTP server of our own: a few paths, each answered by a function at once.

Apart from what is answered, so that those who answer know no HTTP.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from isthmus.listening import listening_socket


@dataclass(frozen=True, slots=True)
class Page:
    """What is answered.

    Attributes:
        body: as it is sent.
        content_type: with its parameters.
    """

    body: bytes
    content_type: str = "text/plain; charset=utf-8"


@asynccontextmanager
async def serving(port: int | None, pages: Mapping[str, Callable[[], Page]]) -> AsyncIterator[None]:
    """Answer GET on all addresses inside the context.

    Args:
        port: to listen on, None for no server.
        pages: by path.

    Raises:
        OSError: the port is taken.
    """
    if port is None:
        yield
        return
    application = web.Application()
    for path, page in pages.items():
        application.router.add_get(path, _handler(page))
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, listening_socket(port)).start()
        yield
    finally:
        await runner.cleanup()


def _handler(page: Callable[[], Page]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        found = page()
        return web.Response(body=found.body, headers={"Content-Type": found.content_type})

    return answer
