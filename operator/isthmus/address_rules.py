"""What kind of address an address is, whatever its form. Pure, and at the root: three parts ask it.

The forms of one address are many (`::ffff:127.0.0.1` is loopback, a scope id may be any text), so
rules are about the parsed one and nothing is compared as text.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

_NAT64: Final = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
_SIX_TO_FOUR: Final = ip_network("2002::/16")
_COMPATIBLE: Final = ip_network("::/96")


def parse_address(text: str) -> Address | None:
    """An address in its plain form, None for what is none or has a scope id.

    An IPv6 address that stands for an IPv4 one becomes that.
    """
    if "%" in text:
        return None
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return found if isinstance(found, IPv4Address) else _embedded(found) or found


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address to which a packet to this one may come, None for none."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _SIX_TO_FOUR:
        return address.sixtofour
    if any(address in network for network in _NAT64) or (
        address in _COMPATIBLE and int(address) > 0xFFFF
    ):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def special(address: Address) -> str:
    """What an address is that no other machine has, or that is none of one: a word, "" if none."""
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address.is_unspecified or (int(address) < 1 << 24 and address.version == 4):
        return "unspecified"
    if address.is_multicast or address == IPv4Address("255.255.255.255"):
        return "multicast"
    return ""


def within(address: Address, networks: Iterable[str]) -> bool:
    """Whether an address lies in one of these, each a valid CIDR."""
    return any(address in ip_network(network, strict=False) for network in networks)
