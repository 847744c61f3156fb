"""Addresses that an administrator lets the operator connect to when a tenant names them. Pure.

What is judged is the address that a name was resolved to, at the moment of the connection: a name
may lead elsewhere a second later, and `0177.1`, `2130706433` and `::ffff:7f00:1` are all loopback.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, TypeAlias

from isthmus.address_rules import Address, special

PRIVATE: Final = "private"
"""An entry that stands for all private networks."""

DEFAULT: Final = ("svc", "cluster.local", PRIVATE)
"""The cluster's own names, and private addresses."""

_PRIVATE_NETWORKS: Final = (
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "fc00::/7",
)
_SUFFIX: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9])?")
_Network: TypeAlias = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class AllowList:
    """Which addresses may be connected to.

    Attributes:
        networks: that may be.
        suffixes: of host names that may lead to every address but special and protected ones.
        protected: addresses that may only be connected to where an entry is this very address:
            those of the API server.
    """

    networks: tuple[_Network, ...]
    suffixes: tuple[str, ...] = ()
    protected: frozenset[Address] = frozenset()

    def refusal(self, address: Address, *, host: str) -> str:
        """Why a connection to an address, under a host name, may not be made; "" if it may."""
        kind = special(address)
        if kind in ("unspecified", "multicast"):
            return f"leads to {address}, which is no address of a router ({kind})"
        covering = [network for network in self.networks if address in network]
        if kind:
            # 0.0.0.0/0 means every other machine, and not our own loopback.
            if any(special(network.network_address) == kind for network in covering):
                return ""
            return f"leads to {address}, a {kind} address{self._advice(address)}"
        if address in self.protected:
            if any(network.num_addresses == 1 for network in covering):
                return ""
            return f"leads to the API server, {address}{self._advice(address)}"
        name = host.lower().rstrip(".")
        if covering or any(name == one or name.endswith(f".{one}") for one in self.suffixes):
            return ""
        return f"leads to {address}, which is not on the list{self._advice(address)}"

    @staticmethod
    def _advice(address: Address) -> str:
        return (
            f": an administrator can allow it by the setting router-allow of the operator, for "
            f"example with {address}/{address.max_prefixlen}"
        )


def allow_list(entries: Iterable[str], *, protected: Iterable[Address] = ()) -> AllowList:
    """Read entries: CIDRs and addresses, suffixes of host names, `private`.

    Raises:
        ValueError: one is none of these; says which.
    """
    networks: list[_Network] = []
    suffixes: list[str] = []
    for entry in entries:
        text = entry.strip().lower().removeprefix("*").removeprefix(".")
        if text == PRIVATE:
            networks += map(ip_network, _PRIVATE_NETWORKS)
            continue
        try:
            networks.append(ip_network(text, strict=False))
        except ValueError:
            # What looks like an address is one, or a mistake.
            if "/" in text or text[-1:].isdigit() or not _SUFFIX.fullmatch(text):
                raise ValueError(
                    f"{entry!r}: write address ranges (203.0.113.0/24), suffixes of host names "
                    f"(example.org) or {PRIVATE}"
                ) from None
            suffixes.append(text)
    return AllowList(tuple(networks), tuple(suffixes), frozenset(protected))
