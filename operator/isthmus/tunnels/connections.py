"""Connections that run through forwards now, read from the kernel's tables."""

import ipaddress
from collections.abc import Collection
from pathlib import Path

_ESTABLISHED = "01"
_IPV4, _IPV6 = Path("/proc/net/tcp"), Path("/proc/net/tcp6")


def count_established(table: str, *, address: str, ports: Collection[int]) -> int:
    """Number of established connections to some ports of a local address.

    Args:
        table: text of /proc/net/tcp or tcp6.
        address: of this host; another supervisor may have the same ports on another one.
        ports: of forwards.
    """
    wanted = frozenset(f"{_hexadecimal(address)}:{port:04X}" for port in ports)
    lines = (line.split() for line in table.splitlines()[1:])
    return sum(len(f) > 3 and f[3] == _ESTABLISHED and f[1] in wanted for f in lines)


def open_connections(address: str, ports: Collection[int]) -> int:
    """Number of connections that clients have open to these ports of a local address."""
    try:
        table = (_IPV6 if ":" in address else _IPV4).read_text(encoding="ascii")
    except OSError:
        return 0
    return count_established(table, address=address, ports=ports)


def _hexadecimal(address: str) -> str:
    """An address as the kernel prints it: words of four bytes in the machine's (little) order."""
    packed = ipaddress.ip_address(address).packed
    words = (packed[start : start + 4] for start in range(0, len(packed), 4))
    return "".join(word[::-1].hex().upper() for word in words)
