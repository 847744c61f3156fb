"""The argument by which an engine binds to an address, the same for each of them. Pure.

Apart from their command lines, because those are frozen before it is known where a job is reached.
"""

from isthmus.api.ip_family import IpFamily


def listen_argument(address: str) -> str:
    """The argument for an address."""
    return f"--host={address}"


def listening_at(command: tuple[str, ...], *, address: str) -> tuple[str, ...]:
    """A command line that was frozen with the default address of `LaunchRequest`, with another."""
    frozen = listen_argument(IpFamily.IPV4.any_address)
    return tuple(listen_argument(address) if each == frozen else each for each in command)
