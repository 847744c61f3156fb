"""IPv4 and IPv6: where to listen, and how an address stands in a URL. The one place for both.

Its family is known of every address that is reached: a node's from SLURM, a pod's from its cluster.
"""

from collections.abc import Mapping
from enum import StrEnum


class IpFamily(StrEnum):
    """A version of the Internet Protocol."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @property
    def any_address(self) -> str:
        """Listens on all addresses of this family."""
        return "::" if self is IpFamily.IPV6 else "0.0.0.0"

    @property
    def loopback(self) -> str:
        """This machine, or this pod."""
        return "::1" if self is IpFamily.IPV6 else "127.0.0.1"


def family_of(address: str) -> IpFamily:
    """Family of an address; names count as IPv4."""
    return IpFamily.IPV6 if ":" in address else IpFamily.IPV4


def pods_family(environ: Mapping[str, str]) -> IpFamily:
    """Family of the addresses of pods, as a pod knows it; IPv4 outside of a cluster.

    The API server's Service has an address of the family that comes first in its cluster, and so
    have pods and Services that say nothing.
    """
    return family_of(environ.get("KUBERNETES_SERVICE_HOST", ""))


def bracketed(host: str) -> str:
    """A host as it stands before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def host_port(host: str, port: int | str) -> str:
    """`host:port` as it stands in a URL."""
    return f"{bracketed(host)}:{port}"
