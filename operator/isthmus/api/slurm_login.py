"""How the commands of a SLURM cluster are reached: `SlurmCluster.spec.login`, and refs to Secrets.

Apart from the kind, which says what a site wants of its jobs.
"""

from typing import Annotated

from pydantic import ConfigDict, Field

from isthmus.api.base import (
    Rule,
    SpecModel,
    matches,
    rules,
)

SecretName = Annotated[str, Field(min_length=1, max_length=253)]
SecretKey = Annotated[str, Field(min_length=1, max_length=253)]


class LocalLogin(SpecModel):
    """SLURM's commands run where the operator runs."""


class KeySecretRef(SpecModel):
    """Where the private key is, in a Secret beside the SlurmCluster."""

    name: SecretName
    """Name of the Secret."""
    key: SecretKey = "ssh-privatekey"
    """Key in it."""


class KnownHostsRef(SpecModel):
    """Where the login hosts' public keys are, in a Secret beside the SlurmCluster."""

    name: SecretName
    """Name of the Secret."""
    key: SecretKey = "known_hosts"
    """Key in it."""


class SshLogin(SpecModel):
    """SLURM's commands run on a login node, over ssh."""

    hosts: Annotated[
        tuple[
            Annotated[
                str,
                Field(
                    min_length=1,
                    max_length=253,
                    json_schema_extra=rules(
                        matches(
                            "^[A-Za-z0-9]([A-Za-z0-9.:_-]*[A-Za-z0-9])?$",
                            "login.ssh.hosts holds host names or addresses, without user and "
                            "port: write for example login1.example.org",
                        )
                    ),
                ),
            ],
            ...,
        ],
        Field(min_length=1, max_length=8, json_schema_extra=rules(x_kubernetes_list_type="atomic")),
    ]
    """Login nodes of the cluster; one is used, the next if it cannot be reached."""
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    """Port of sshd."""
    user: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            json_schema_extra=rules(
                matches(
                    "^[A-Za-z0-9_][A-Za-z0-9_.@-]*$",
                    "login.ssh.user must be one account name: letters, digits and _.@-",
                )
            ),
        ),
    ]
    """Account whose jobs are submitted."""
    key_secret_ref: KeySecretRef
    """Private key that the account lets in, without a passphrase."""
    known_hosts_ref: KnownHostsRef
    """The only host keys that are accepted, in the form of known_hosts."""


class LoginSpec(SpecModel):
    """Where SLURM's commands run: exactly one of local and ssh."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.local) != has(self.ssh)",
                "login needs exactly one of local and ssh: write local: {} where the operator runs "
                "beside SLURM's commands, or ssh: {hosts: [login1], user: svc, keySecretRef: "
                "{name: hpc-ssh}, knownHostsRef: {name: hpc-ssh}}",
            )
        )
    )

    local: LocalLogin | None = None
    """On the operator's own host: write {}."""
    ssh: SshLogin | None = None
    """On a login node."""
