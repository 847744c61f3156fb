"""Addresses of nodes: where slurm.conf has host names, they are looked up and remembered.

An EndpointSlice takes addresses only, and a name would make every probe depend on the resolver.
The cluster's own resolver is asked first where the commands run on a login node: names of compute
nodes are often known nowhere else.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address

from isthmus.api.ip_family import IpFamily, family_of
from isthmus.backends.slurm.executor import CommandExecutor
from isthmus.backends.slurm.records import NodeRecord
from isthmus.errors import SlurmUnavailableError

Lookup = Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]
"""From names to addresses; a name that is not found is missing."""

LOOKUP_SECONDS = 2.0
REMOTE_SECONDS = 20.0
FOUND_SECONDS = 300.0
NOT_FOUND_SECONDS = 30.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")

_GETENT = """
for name; do
  found=
  while read -r address _; do
    case $address in
      *:*) found=${found:-$address} ;;
      *) found=$address; break ;;
    esac
  done < <(getent ahosts "$name")
  [ -z "$found" ] || printf '%s %s\n' "$name" "$found"
done
"""


async def system_lookup(names: Sequence[str]) -> Mapping[str, str]:
    """What the resolver says, of families that this machine has; IPv4 before IPv6."""
    found = await asyncio.gather(*(_system_address(name) for name in names))
    return {name: address for name, address in zip(names, found, strict=True) if address}


async def _system_address(name: str) -> str | None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(LOOKUP_SECONDS):
            found = await loop.getaddrinfo(
                name, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
    except (OSError, TimeoutError, ValueError):  # a name with an empty or a long part, too
        return None
    addresses = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
    return str(addresses[0][4][0]) if addresses else None


def login_lookup(executor: CommandExecutor) -> Lookup:
    """Ask the resolver where `executor` runs its commands, and ours for what that does not know."""

    async def lookup(names: Sequence[str]) -> Mapping[str, str]:
        plain = [name for name in names if _NAME.fullmatch(name)]
        argv = ("/bin/bash", "--noprofile", "--norc", "-c", _GETENT, "isthmus", *plain)
        try:
            output = (await executor.run(argv, timeout=REMOTE_SECONDS)).stdout
        except (OSError, SlurmUnavailableError):
            output = ""
        pairs = (line.split() for line in output.splitlines())
        found = {p[0]: p[1] for p in pairs if len(p) == 2 and p[0] in plain and is_address(p[1])}
        rest = [name for name in names if name not in found]
        return {**await system_lookup(rest), **found}

    return lookup


def is_address(text: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address, without a scope id, which may be any text."""
    if "%" in text:
        return False
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def nodes_family(nodes: Iterable[NodeRecord]) -> IpFamily:
    """IPv6 where that is the address of every node; else, and where none is known, IPv4."""
    families = {family_of(node.address) for node in nodes}
    return IpFamily.IPV6 if families == {IpFamily.IPV6} else IpFamily.IPV4


class AddressBook:
    """Looks names up at most once in a while."""

    def __init__(self, *, clock: Callable[[], float], lookup: Lookup = system_lookup) -> None:
        """Make an empty book; `clock` gives seconds."""
        self._clock = clock
        self._lookup = lookup
        self._known: dict[str, tuple[str | None, float]] = {}

    async def resolved(self, nodes: Mapping[str, NodeRecord]) -> dict[str, NodeRecord]:
        """The nodes with addresses; one whose name is not found keeps its name."""
        found = await self.by_name([node.address for node in nodes.values()])
        return {
            key: replace(node, address=found.get(node.address, node.address))
            for key, node in nodes.items()
        }

    async def by_name(self, hosts: Sequence[str]) -> dict[str, str]:
        """The address of each; of one that is an address, or is not found, what was given."""
        now = self._clock()
        names = {host for host in hosts if not is_address(host)}
        unknown = sorted(n for n in names if self._known.get(n, (None, 0.0))[1] <= now)
        found = await self._lookup(unknown) if unknown else {}
        for name in unknown:
            lasts = FOUND_SECONDS if name in found else NOT_FOUND_SECONDS
            self._known[name] = found.get(name), now + lasts
        return {host: self._known.get(host, (None, 0.0))[0] or host for host in hosts}
