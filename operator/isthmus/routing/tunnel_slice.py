"""What a tunnel supervisor publishes of one forward, as a record. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TunnelSlice:
    """What one tunnel supervisor publishes of the worker's forward.

    Attributes:
        host: id of the supervisor.
        address: of the supervisor.
        port: of the forward on it.
        ready: it gets requests.
        up: the way through it works.
        message: what is wrong, or which way it takes.
        target: address and port of the engine that it leads to, None where the slice does not say.
    """

    host: str
    address: str
    port: int
    ready: bool
    up: bool
    message: str = ""
    target: tuple[str, int] | None = None
