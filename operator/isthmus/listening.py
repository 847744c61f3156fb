"""Where our own servers listen: on all addresses of both families.

Apart from the servers: `::` alone would do, but asyncio makes that IPv6 only, and kernels without
IPv6 have no such address.
"""

import socket


def any_address() -> str:
    """Address on which a program that takes both families listens on all."""
    return "::" if socket.has_dualstack_ipv6() else "0.0.0.0"


def listening_socket(port: int) -> socket.socket:
    """A TCP socket on all addresses.

    Raises:
        OSError: the port is taken.
    """
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))
