"""`/healthz` of an instance that waits for the Lease.

The endpoint of the watch is there only while an instance leads; without this one, the kubelet would
restart every instance that stands by, and an update that adds the new one first would never end.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from isthmus.listening import listening_socket


@asynccontextmanager
async def standing_by(port: int | None) -> AsyncIterator[None]:
    """Answer GET /healthz on all addresses inside the context; None for no endpoint.

    Raises:
        OSError: the port is taken.
    """
    if port is None:
        yield
        return
    application = web.Application()
    application.router.add_get("/healthz", _stands_by)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, listening_socket(port)).start()
        yield
    finally:
        await runner.cleanup()


async def _stands_by(_: web.Request) -> web.Response:
    return web.Response(text="standing by\n")
