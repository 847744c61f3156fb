"""How the workers of a SLURM cluster are reached: `SlurmCluster.spec.network`.

Apart from the kind, which says what a site wants of its jobs.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from isthmus.api.base import (
    Rule,
    SpecModel,
    matches,
    rules,
)
from isthmus.api.slurm_login import KeySecretRef


class PortRange(SpecModel):
    """Ports that engines may listen on."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "self.from + 15 <= self.to",
                "network.ports needs at least 16 ports: to must be at least from + 15",
            )
        )
    )

    # "from" is a word of Python, so the attributes have other names.
    first: Annotated[int, Field(ge=1024, le=65535, alias="from")] = 41000
    """First port."""
    last: Annotated[int, Field(ge=1024, le=65535, alias="to")] = 41999
    """Last port."""


class BastionSpec(SpecModel):
    """Where jobs call for mode Reverse: an sshd that the tunnel supervisor runs."""

    host: Annotated[
        str,
        Field(
            min_length=1,
            max_length=253,
            json_schema_extra=rules(
                matches(
                    "^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$",
                    "network.bastion.host must be a host name or address without user and port",
                )
            ),
        ),
    ]
    """Name or address by which compute nodes reach it."""
    port: Annotated[int, Field(ge=1, le=65535)] = 2222
    """Port by which compute nodes reach it."""
    listen_port: Annotated[int | None, Field(ge=1024, le=65535)] = None
    """Port that the supervisor listens on, where a load balancer changes it; default: port."""
    user: Annotated[
        str,
        Field(
            min_length=1,
            max_length=32,
            json_schema_extra=rules(
                matches(
                    "^[a-z_][a-z0-9_-]*$",
                    "network.bastion.user must be one account name: lower-case letters, digits "
                    "and _-",
                )
            ),
        ),
    ] = "isthmus"
    """Account that the supervisor runs as."""
    host_key: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1024,
            json_schema_extra=rules(
                matches(
                    "^(ssh-ed25519|ecdsa-sha2-nistp256|ssh-rsa) [A-Za-z0-9+/=]+$",
                    "network.bastion.hostKey must be a public key in one line: write for example "
                    "ssh-ed25519 AAAA..., as ssh-keygen -y prints it",
                )
            ),
        ),
    ]
    """Its public host key, the only one that jobs accept."""
    host_key_secret_ref: KeySecretRef
    """The private one, in a Secret beside the SlurmCluster; only the supervisor reads it."""

    @property
    def listening(self) -> int:
        """Port that the supervisor listens on."""
        return self.listen_port or self.port


NetworkMode = Literal["Auto", "Direct", "Tunnel", "NodeSSH", "Reverse"]


class NetworkSpec(SpecModel):
    """How workers on compute nodes are reached."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.mode) || self.mode != 'Reverse' || has(self.bastion)",
                "network.mode Reverse needs network.bastion: write bastion: {host: "
                "tunnels.example.org, port: 2222, hostKey: ssh-ed25519 AAAA..., "
                "hostKeySecretRef: {name: bastion}}",
            )
        )
    )

    mode: NetworkMode = "Auto"
    """Direct: pods reach compute nodes. Tunnel: through the login host, which forwards to them.
    Auto: Tunnel where login is ssh, else Direct. NodeSSH: through ssh to the node itself, by way of
    the login host. Reverse: jobs call a bastion, for sites that forbid forwarding."""
    node_ssh_port: Annotated[int, Field(ge=1, le=65535, alias="nodeSSHPort")] = 22
    """Port of sshd on compute nodes, for NodeSSH."""
    bastion: BastionSpec | None = None
    """Where jobs call for mode Reverse."""
    ports: PortRange = PortRange()
    """Ports that engines may listen on."""
    node_cidrs: Annotated[
        tuple[
            Annotated[
                str,
                Field(
                    min_length=1,
                    max_length=64,
                    json_schema_extra=rules(
                        Rule(
                            "isCIDR(self)",
                            "network.nodeCIDRs holds address ranges: write for example "
                            "10.20.0.0/16",
                        )
                    ),
                ),
            ],
            ...,
        ],
        Field(
            alias="nodeCIDRs",
            max_length=32,
            json_schema_extra=rules(x_kubernetes_list_type="set"),
        ),
    ] = ()
    """Addresses that compute nodes may have; default: any."""
