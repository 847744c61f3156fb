"""One forward as its supervisor holds it between two rounds.

Apart from the loop, which changes these records and nothing else of its own.
"""

from dataclasses import dataclass, field

from isthmus.ssh.options import Forward
from isthmus.tunnels.desired import Wanted
from isthmus.tunnels.links import LinkKey
from isthmus.tunnels.rules import Health


@dataclass(slots=True)
class Held:
    """What is known of it.

    Attributes:
        wanted: where it leads, as its SlurmJob says now.
        connection: number of its link's connection and the forward on that; None where it is not
            established, or its job calls us.
        health: what the requests through it showed, since that connection.
        proven: it was ready here and was not found to be unwell since.
        moved: its port or its engine's place is another one, of which nothing was shown yet.
    """

    wanted: Wanted
    connection: tuple[int, Forward] | None = None
    health: Health = field(default_factory=Health)
    proven: bool = False
    moved: bool = False

    @property
    def reverse(self) -> bool:
        """Whether the job calls us, so that there is no link of ours to it."""
        return self.wanted.mode == "Reverse"

    @property
    def established(self) -> bool:
        """Whether requests can be sent into it."""
        return self.reverse or self.connection is not None

    @property
    def link(self) -> LinkKey:
        """The connection that it is a part of."""
        node = self.wanted.host if self.wanted.mode == "NodeSSH" else ""
        return LinkKey(cluster=self.wanted.cluster, node=node)

    def want(self, wanted: Wanted) -> None:
        """Take in what its SlurmJob says now; of another place nothing has been shown."""
        if _place(self.wanted) != _place(wanted):
            self.proven, self.moved = False, True
        self.wanted = wanted

    def connected(self, connection: tuple[int, Forward] | None) -> None:
        """Take in what it is established on; health is of one connection only."""
        if connection != self.connection:
            self.connection, self.health = connection, Health()

    def forward(self, address: str) -> Forward:
        """As ssh is asked for it, listening on an address of ours."""
        host = "127.0.0.1" if self.wanted.mode == "NodeSSH" else self.wanted.host
        return Forward(
            address=address,
            port=self.wanted.port,
            host=host,
            host_port=self.wanted.engine_port,
        )


def _place(wanted: Wanted) -> tuple[int, str, int]:
    return wanted.port, wanted.host, wanted.engine_port
