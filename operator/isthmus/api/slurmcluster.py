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
    status_list,
    status_text,
    time_limit_rule,
)
from isthmus.api.names import API_VERSION
from isthmus.api.slurm_login import LoginSpec
from isthmus.api.slurm_network import NetworkSpec


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
    job_name: Annotated[str, status_text(128)]
    """Full name of the job in SLURM."""
    reason: Annotated[str, status_text(253)]
    """DeploymentGone or AttemptUnknown."""


class SlurmClusterStatus(StatusModel):
    """What is, written by the operator."""

    observed_generation: Annotated[
        int | None, Field(ge=0, json_schema_extra={"format": "int64"})
    ] = None
    """Generation of the spec that this status is about."""
    conditions: Annotated[
        tuple[ConditionModel, ...],
        status_list(16, x_kubernetes_list_type="map", x_kubernetes_list_map_keys=["type"]),
    ] = ()
    """SlurmReachable, NodesVisible."""
    version: Annotated[str | None, status_text(64)] = None
    """SLURM's version."""
    nodes: Annotated[str | None, status_text(32)] = None
    """Usable and all nodes, such as 4/4; "hidden" where the site shows none."""
    jobs: Annotated[int | None, Field(ge=0, json_schema_extra={"format": "int32"})] = None
    """Our jobs that are in the queue or run."""
    orphans: Annotated[
        tuple[OrphanModel, ...],
        status_list(32, x_kubernetes_list_type="atomic"),
    ] = ()
    """Jobs of this installation that have had no SlurmJob for ten minutes; see orphanPolicy."""
    summary: Annotated[str | None, status_text(1024)] = None
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
