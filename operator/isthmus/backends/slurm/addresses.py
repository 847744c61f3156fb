"""Addresses of nodes: where slurm.conf has host names, they are looked up and remembered.

An EndpointSlice takes addresses only, and a name would make every probe depend on the resolver.
Apart from the commands, because names are resolved where the operator runs, wherever the commands
run.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address

from isthmus.backends.slurm.records import NodeRecord

Lookup = Callable[[str], Awaitable[str | None]]

LOOKUP_SECONDS = 2.0
FOUND_SECONDS = 300.0
NOT_FOUND_SECONDS = 30.0


async def system_lookup(name: str) -> str | None:
    """The first address that the resolver gives, IPv4 before IPv6; None if none in time."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(LOOKUP_SECONDS):
            found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        return None
    addresses = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
    return str(addresses[0][4][0]) if addresses else None


def is_address(text: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


class AddressBook:
    """Looks names up at most once in a while."""

    def __init__(self, *, clock: Callable[[], float], lookup: Lookup = system_lookup) -> None:
        """Make an empty book; `clock` gives seconds."""
        self._clock = clock
        self._lookup = lookup
        self._known: dict[str, tuple[str | None, float]] = {}

    async def resolved(self, nodes: Mapping[str, NodeRecord]) -> dict[str, NodeRecord]:
        """The nodes with addresses; one whose name is not found keeps its name."""
        now = self._clock()
        names = {node.address for node in nodes.values() if not is_address(node.address)}
        unknown = sorted(n for n in names if self._known.get(n, (None, 0.0))[1] <= now)
        found = await asyncio.gather(*(self._lookup(name) for name in unknown))
        for name, address in zip(unknown, found, strict=True):
            lasts = FOUND_SECONDS if address else NOT_FOUND_SECONDS
            self._known[name] = address, now + lasts
        return {
            key: replace(
                node, address=self._known.get(node.address, (None, 0.0))[0] or node.address
            )
            for key, node in nodes.items()
        }
