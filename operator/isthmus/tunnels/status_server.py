"""/metrics and /healthz of a supervisor."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from isthmus.listening import listening_socket


class StatusServer:
    """A small HTTP server on all addresses; the supervisor's state is read when it is asked."""

    def __init__(
        self,
        *,
        port: int,
        counts: Callable[[], dict[str, int]],
        healthy: Callable[[], bool],
    ) -> None:
        """Prepare.

        Args:
            port: to listen on.
            counts: see `Supervisor.counts`.
            healthy: whether the process does its work.
        """
        self._port, self._counts, self._healthy = port, counts, healthy
        self._registry = CollectorRegistry()
        self._forwards = Gauge(
            "isthmus_tunnels_forwards",
            "Forwards of this supervisor by state.",
            ["state"],
            registry=self._registry,
        )
        self._connections = Gauge(
            "isthmus_tunnels_connections",
            "Connections of clients that run through forwards now.",
            registry=self._registry,
        )
        self._links = Gauge(
            "isthmus_tunnels_links",
            "Open ssh connections to login hosts and nodes.",
            registry=self._registry,
        )
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", self._health)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.SockSite(self._runner, listening_socket(self._port)).start()

    async def close(self) -> None:
        """Stop."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        counts = self._counts()
        for state in ("up", "down"):
            self._forwards.labels(state=state).set(counts[state])
        self._connections.set(counts["connections"])
        self._links.set(counts["links"])
        text = generate_latest(self._registry)
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _health(self, _: web.Request) -> web.Response:
        good = self._healthy()
        return web.Response(status=200 if good else 503, text="ok\n" if good else "stuck\n")
