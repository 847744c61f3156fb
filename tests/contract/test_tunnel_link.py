"""A link over a connection that fails when told to: forwards live, reconnects, fail-over.

On the virtual clock: what happens at once happens in the same second, to the last digit.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from isthmus.api.conditions import Reason
from isthmus.errors import SshError
from isthmus.ssh.options import Forward, Identity, Target
from isthmus.tunnels.link import Link, Way
from tests.virtualtime import run_virtual

WAY = Way(identity=Identity(key=Path("/k"), known_hosts=Path("/h")))
ONE, TWO = (Target(host=f"login{n}", port=22, user="svc") for n in (1, 2))


def forward(port: int, host: str = "10.10.0.1") -> Forward:
    return Forward(address="10.9.0.1", port=port, host=host, host_port=41000)


def error(text: str, reason: Reason = Reason.SSH_UNREACHABLE) -> SshError:
    return SshError(text, reason=reason)


class Site:
    """Login hosts that can be taken down, and what was asked of them."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.taken: set[int] = set()
        self.attempts: list[tuple[float, str]] = []
        self.current: FakeConnection | None = None

    def connect(self, target: Target, way: Way, control_path: Path) -> FakeConnection:
        self.attempts.append((asyncio.get_running_loop().time(), target.host))
        self.current = FakeConnection(self, target)
        return self.current


class FakeConnection:
    def __init__(self, site: Site, target: Target) -> None:
        self.site, self.target = site, target
        self.forwards: set[Forward] = set()
        self.ended: asyncio.Future[SshError] = asyncio.get_running_loop().create_future()
        self.closed = False
        self.forbidden = 0

    async def start(self, *, timeout: float) -> None:
        if self.target.host in self.site.down:
            raise error(f"{self.target}: refused")

    async def forward(self, forward: Forward) -> None:
        if forward.port in self.site.taken:
            raise error("port is taken")
        self.forwards.add(forward)

    async def cancel(self, forward: Forward) -> None:
        self.forwards.remove(forward)

    async def wait(self) -> SshError:
        return await asyncio.shield(self.ended)

    async def close(self) -> None:
        self.closed = True

    def die(self) -> None:
        self.ended.set_result(error("Connection reset by peer"))


async def until(look: object, *, seconds: float = 500.0) -> None:
    async with asyncio.timeout(seconds):
        while not (look() if callable(look) else look):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def virtual(test: Callable[[Link, Site], Awaitable[None]]) -> Callable[[], None]:
    """Run a test of a link that has been started, on the virtual clock."""

    async def main() -> None:
        site = Site()

        async def prepare() -> Way:
            return WAY

        link = Link(
            name="hpc",
            hosts=[ONE, TWO],
            prepare=prepare,
            connect=site.connect,
            control_path=Path("/c"),
            on_change=lambda: None,
            clock=asyncio.get_running_loop().time,
            pause=30.0,
        )
        link.start()
        try:
            await test(link, site)
        finally:
            await link.close()

    def run() -> None:
        run_virtual(main)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@virtual
async def test_forwards_are_added_and_cancelled_live(link: Link, site: Site) -> None:
    link.want({"a": forward(20001), "b": forward(20002)})
    await until(lambda: len(link.established) == 2)
    link.want({"b": forward(20002), "c": forward(20003)})
    await until(lambda: set(link.established) == {"b", "c"})
    assert site.current is not None
    assert site.current.forwards == {forward(20002), forward(20003)}
    assert len(site.attempts) == 1


@virtual
async def test_a_worker_that_moved_gets_its_new_target(link: Link, site: Site) -> None:
    link.want({"a": forward(20001)})
    await until(lambda: link.established)
    link.want({"a": forward(20001, host="10.10.0.2")})
    await until(lambda: link.established.get("a") == forward(20001, host="10.10.0.2"))
    assert site.current is not None
    assert site.current.forwards == {forward(20001, host="10.10.0.2")}


@virtual
async def test_the_first_reconnect_is_immediate(link: Link, site: Site) -> None:
    link.want({"a": forward(20001)})
    await until(lambda: link.established)
    assert site.current is not None
    old, begun = site.current, asyncio.get_running_loop().time()
    old.die()
    await until(lambda: site.current is not old and link.established)
    assert old.closed
    assert site.attempts[-1][0] == begun


@virtual
async def test_another_host_is_used_at_once_when_the_first_fails(link: Link, site: Site) -> None:
    await until(lambda: link.connected)
    assert link.through == ONE
    site.down.add("login1")
    assert site.current is not None
    site.current.die()
    await until(lambda: link.through == TWO)
    link.want({"a": forward(20001)})
    await until(lambda: link.established)


@virtual
async def test_each_host_is_tried_once_per_pause(link: Link, site: Site) -> None:
    await until(lambda: link.connected)
    site.down |= {"login1", "login2"}
    assert site.current is not None
    site.current.die()
    await until(lambda: len(site.attempts) >= 7)
    for host in ("login1", "login2"):
        failed = [at for at, tried in site.attempts[1:] if tried == host]
        gaps = [b - a for a, b in itertools.pairwise(failed)]
        assert gaps == [pytest.approx(30.0)] * len(gaps)
    assert "refused" in link.problem
    site.down.clear()
    await until(lambda: link.connected)


@virtual
async def test_a_port_that_is_taken_is_tried_again(link: Link, site: Site) -> None:
    site.taken.add(20001)
    link.want({"a": forward(20001), "b": forward(20002)})
    await until(lambda: "a" in link.problems and "b" in link.established)
    site.taken.clear()
    await until(lambda: "a" in link.established)
    assert not link.problems


@virtual
async def test_a_restart_opens_another_connection(link: Link, site: Site) -> None:
    link.want({"a": forward(20001)})
    await until(lambda: link.established)
    old = site.current
    link.restart()
    await until(lambda: site.current is not old and link.established)
    assert link.connections == 2


@virtual
async def test_an_end_leaves_no_task(link: Link, site: Site) -> None:
    link.want({"a": forward(20001)})
    await until(lambda: link.established)
    await link.close()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left
