"""What a supervisor says of a forward in its slice. Pure; `rules` has what it concludes."""

from collections.abc import Mapping
from typing import Final

from isthmus.ssh.options import Target
from isthmus.tunnels.rules import Health, Outcome

_MEANING: Final[Mapping[Outcome | None, str]] = {
    None: "not asked yet",
    Outcome.ANSWERED: "answers",
    Outcome.CLOSED: "the engine does not listen",
    Outcome.SILENT: "connections are taken and nothing answers",
    Outcome.REFUSED: "nothing listens on the forward's port",
}


def of_call(health: Health, *, up: bool) -> str:
    """Of a job that calls its bastion."""
    if up:
        return "the job calls"
    return f"the job does not call, or is cut off: {_MEANING[health.last]}"


def of_forward(health: Health, *, through: Target, forbidden: bool) -> str:
    """Of a forward over a connection that is open.

    Args:
        health: of the forward.
        through: where the connection leads.
        forbidden: the server's rules refuse connections to the engine.
    """
    if forbidden:
        return (
            f"sshd of {through} forbids forwarding to the engine's port (administratively "
            "prohibited): have AllowTcpForwarding, PermitOpen or the options of the key changed "
            "there, or set network.mode: Reverse"
        )
    return f"through {through}" + ("" if health.serves else f": {_MEANING[health.last]}")
