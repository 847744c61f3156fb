"""The kind SlurmCluster: how one SLURM cluster is reached and what its site wants.

The administrator's object. Shell and site directives stand only here, never in a user's object;
who may write a SlurmCluster may run commands as its user.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from isthmus.api.base import (
    ConditionModel,
    ObjectMeta,
    ObjectName,
    Rule,
    SlurmName,
    SpecModel,
    StatusModel,
    absolute_path,
    duration_between,
    matches,
    rules,
    slurm_word,
    time_limit_rule,
)
from isthmus.api.names import API_VERSION

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


class CommandsSpec(SpecModel):
    """How SLURM's commands are called."""

    bin_dir: Annotated[
        str,
        Field(
            min_length=1,
            max_length=256,
            json_schema_extra=rules(absolute_path("commands.binDir")),
        ),
    ] = "/usr/bin"
    """Folder of squeue, sinfo, sbatch and scancel."""
    poll_interval: Annotated[
        str,
        Field(max_length=16, json_schema_extra=rules(duration_between("15s", "5m", "30s"))),
    ] = "30s"
    """Time between two looks at the cluster, whatever the number of deployments."""
    timeout: Annotated[
        str,
        Field(max_length=16, json_schema_extra=rules(duration_between("5s", "5m", "25s"))),
    ] = "25s"
    """Time limit of a query."""
    submit_timeout: Annotated[
        str,
        Field(max_length=16, json_schema_extra=rules(duration_between("10s", "5m", "60s"))),
    ] = "60s"
    """Time limit of sbatch."""


class FilesSpec(SpecModel):
    """Files of the jobs."""

    work_directory: Annotated[
        str,
        Field(
            min_length=1,
            max_length=200,
            json_schema_extra=rules(absolute_path("files.workDirectory")),
        ),
    ]
    """Folder for scripts and logs that login host and compute nodes share."""


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


class DefaultsSpec(SpecModel):
    """What jobs get that do not say otherwise."""

    partition: Annotated[
        SlurmName | None, Field(json_schema_extra=rules(slurm_word("defaults.partition")))
    ] = None
    """Partition."""
    account: Annotated[
        SlurmName | None, Field(json_schema_extra=rules(slurm_word("defaults.account")))
    ] = None
    """Account."""
    qos: Annotated[SlurmName | None, Field(json_schema_extra=rules(slurm_word("defaults.qos")))] = (
        None
    )
    """Quality of service."""
    time_limit: Annotated[
        str,
        Field(
            max_length=16,
            json_schema_extra=rules(time_limit_rule("defaults.timeLimit")),
        ),
    ] = "8h"
    """Time that a job gets."""


class SiteSpec(SpecModel):
    """How the site wants jobs to be written."""

    gpu_directive: Literal["gres", "gpus-per-node", "none"] = "gres"
    """Option of sbatch by which GPUs are asked for."""
    gpu_types: Annotated[
        dict[str, SlurmName],
        Field(
            max_length=32,
            json_schema_extra=rules(
                Rule(
                    "self.all(key, key.size() <= 63 && key.matches('^[A-Za-z0-9][A-Za-z0-9._-]*$') "
                    "&& self[key].matches('^[A-Za-z0-9][A-Za-z0-9._-]*$'))",
                    "site.gpuTypes maps worker.gpuType to SLURM's GPU type, both of letters, "
                    "digits and ._-: write for example {h100: h100}",
                )
            ),
        ),
    ] = Field(default_factory=dict)
    """SLURM's GPU type for each worker.gpuType."""
    memory_directive: Literal["mem", "mem-per-gpu", "none"] = "mem"
    """Option of sbatch by which memory is asked for."""
    exclusive: bool = False
    """Whether each job gets whole nodes."""
    modules: Annotated[
        tuple[
            Annotated[
                str,
                Field(
                    min_length=1,
                    max_length=128,
                    json_schema_extra=rules(
                        matches(
                            "^[A-Za-z0-9][A-Za-z0-9._/+-]*$",
                            "site.modules holds module names such as cuda/12.8: letters, digits "
                            "and ._/+-",
                        )
                    ),
                ),
            ],
            ...,
        ],
        Field(max_length=32, json_schema_extra=rules(x_kubernetes_list_type="atomic")),
    ] = ()
    """Environment modules that a job loads, in this order."""
    setup: Annotated[
        str,
        Field(
            max_length=4096,
            json_schema_extra=rules(
                matches(
                    r"^[^\x00-\x08\x0b-\x1f\x7f]*$",
                    "site.setup must be shell text with line feeds, without carriage returns or "
                    "other control characters",
                )
            ),
        ),
    ] = ""
    """Shell lines that each job runs before the engine, with the rights of its user."""


class AllowedNamespaces(SpecModel):
    """Namespaces whose deployments may use this cluster, besides its own."""

    names: Annotated[
        tuple[ObjectName, ...],
        Field(max_length=64, json_schema_extra=rules(x_kubernetes_list_type="set")),
    ] = ()
    """Their names."""


class AccessSpec(SpecModel):
    """Who may use this cluster."""

    allowed_namespaces: AllowedNamespaces = AllowedNamespaces()
    """Namespaces whose deployments may use this cluster, besides its own."""


class SlurmClusterSpec(SpecModel):
    """How the cluster is reached and what its site wants."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.network) || !has(self.network.mode) || "
                "!(self.network.mode in ['Tunnel', 'NodeSSH']) || has(self.login.ssh)",
                "network.mode Tunnel and NodeSSH go through the login host: write login: {ssh: "
                "{...}}, or network.mode Direct",
            )
        )
    )

    login: LoginSpec
    """Where SLURM's commands run."""
    commands: CommandsSpec = CommandsSpec()
    """How SLURM's commands are called."""
    files: FilesSpec
    """Files of the jobs."""
    network: NetworkSpec = NetworkSpec()
    """How workers on compute nodes are reached."""
    defaults: DefaultsSpec = DefaultsSpec()
    """What jobs get that do not say otherwise."""
    site: SiteSpec = SiteSpec()
    """How the site wants jobs to be written."""
    models: Annotated[
        dict[str, Annotated[str, Field(min_length=1, max_length=256)]],
        Field(
            max_length=128,
            json_schema_extra=rules(
                Rule(
                    "self.all(key, key.size() <= 256 && "
                    "(key.startsWith('hf://') || key.startsWith('/')) && "
                    "self[key].matches('^(/[A-Za-z0-9._+@=:,-]+)+/?$'))",
                    "models maps model.source to an absolute path on the cluster: write for "
                    'example {"hf://organisation/name": /models/name}',
                )
            ),
        ),
    ] = Field(default_factory=dict)
    """Where models lie on this cluster, by model.source."""
    access: AccessSpec = AccessSpec()
    """Who may use this cluster."""
    orphan_policy: Literal["Cancel", "Report"] = "Cancel"
    """What to do with jobs of this installation that have had no SlurmJob for ten minutes."""


class OrphanModel(StatusModel):
    """A job of this installation without a SlurmJob."""

    job_id: Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]
    """Job id in SLURM."""
    job_name: Annotated[str, Field(max_length=128)]
    """Full name of the job in SLURM."""
    reason: Annotated[str, Field(max_length=253)]
    """DeploymentGone or AttemptUnknown."""


class SlurmClusterStatus(StatusModel):
    """What is, written by the operator."""

    observed_generation: Annotated[
        int | None, Field(ge=0, json_schema_extra={"format": "int64"})
    ] = None
    """Generation of the spec that this status is about."""
    conditions: Annotated[
        tuple[ConditionModel, ...],
        Field(
            max_length=16,
            json_schema_extra=rules(
                x_kubernetes_list_type="map", x_kubernetes_list_map_keys=["type"]
            ),
        ),
    ] = ()
    """SlurmReachable."""
    version: Annotated[str | None, Field(max_length=64)] = None
    """SLURM's version."""
    nodes: Annotated[str | None, Field(max_length=32)] = None
    """Usable and all nodes, such as 4/4."""
    jobs: Annotated[int | None, Field(ge=0, json_schema_extra={"format": "int32"})] = None
    """Our jobs that are in the queue or run."""
    orphans: Annotated[
        tuple[OrphanModel, ...],
        Field(max_length=32, json_schema_extra=rules(x_kubernetes_list_type="atomic")),
    ] = ()
    """Jobs of this installation that have had no SlurmJob for ten minutes; see orphanPolicy."""
    summary: Annotated[str | None, Field(max_length=1024)] = None
    """The state in a few words."""


class SlurmCluster(StatusModel):
    """One SLURM cluster: how it is reached and what its site wants."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && "
                "self.metadata.name.size() <= 63",
                "metadata.name must be at most 63 lower-case letters, digits and '-': it becomes "
                "a label",
            )
        )
    )

    api_version: str = API_VERSION
    kind: Literal["SlurmCluster"] = "SlurmCluster"
    metadata: ObjectMeta
    spec: SlurmClusterSpec
    """How the cluster is reached and what its site wants."""
    status: SlurmClusterStatus | None = None
    """What is, written by the operator."""


def network_mode(spec: SlurmClusterSpec) -> str:
    """Return how workers of the cluster are reached; never Auto."""
    if spec.network.mode != "Auto":
        return spec.network.mode
    return "Direct" if spec.login.ssh is None else "Tunnel"
