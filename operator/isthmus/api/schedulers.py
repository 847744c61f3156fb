"""The scheduler's part of a pool: where its pods or its SLURM jobs may run.

Apart from modeldeployment.py because the rules against harmful sbatch options stand here.
"""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from isthmus.api.base import (
    ObjectName,
    Rule,
    SlurmName,
    SpecModel,
    cel_string,
    matches,
    rules,
    slurm_word,
    time_limit_rule,
)
from isthmus.api.reserved_options import SBATCH_ALLOWED, SBATCH_PROTECTED, joined


class TolerationSpec(SpecModel):
    """A toleration, as in a pod, of a taint that is named."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.key) && self.key != ''",
                "a toleration needs the taint's key, such as nvidia.com/gpu: one without a key "
                "tolerates every taint, that of control plane nodes too",
            )
        )
    )

    key: Annotated[str | None, Field(max_length=316)] = None
    operator: Literal["Exists", "Equal"] | None = None
    value: Annotated[str | None, Field(max_length=63)] = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[
        int | None, Field(ge=0, json_schema_extra={"format": "int64"})
    ] = None


_Subdomain = Annotated[
    str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]
_Id = Annotated[int, Field(ge=0, le=2**31 - 1, json_schema_extra={"format": "int64"})]


class SeccompProfileSpec(SpecModel):
    """Which system calls the pods' programs may make."""

    type: Literal["RuntimeDefault", "Unconfined"]
    """RuntimeDefault: those that the container runtime lets through."""


class SecurityContextSpec(SpecModel):
    """As whom the pods' programs run, in the words of a pod."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!(has(self.runAsNonRoot) && self.runAsNonRoot && has(self.runAsUser)"
                " && self.runAsUser == 0)",
                "runAsUser 0 is root, which runAsNonRoot forbids: write the number of another user "
                "that the image works with, or leave runAsNonRoot away",
            )
        )
    )

    run_as_non_root: bool | None = None
    """Refuse to run as root. With it the pods satisfy the Pod Security level `restricted`: all
    capabilities are dropped and seccompProfile is RuntimeDefault unless it is given."""
    run_as_user: _Id | None = None
    """Number of the user; default: the image's."""
    run_as_group: _Id | None = None
    """Number of the user's first group; default: the image's."""
    fs_group: _Id | None = None
    """Group that the pods' volumes belong to."""
    seccomp_profile: SeccompProfileSpec | None = None
    """Default: the node's, which is mostly Unconfined."""


class PullSecretRef(SpecModel):
    """Reference to a Secret of the pods' namespace."""

    name: _Subdomain
    """Name of a Secret of type kubernetes.io/dockerconfigjson."""


class KubernetesSpec(SpecModel):
    """Where pods of this pool may run."""

    gpu_resource: Annotated[
        str,
        Field(
            min_length=1,
            max_length=316,
            json_schema_extra=rules(
                matches(
                    "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
                    "kubernetes.gpuResource must be an extended resource: write for example "
                    "nvidia.com/gpu or amd.com/gpu",
                )
            ),
        ),
    ] = "nvidia.com/gpu"
    """Extended resource that a GPU is requested by."""
    node_selector: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=16)
    ] = Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: Annotated[
        tuple[TolerationSpec, ...],
        Field(max_length=16, json_schema_extra=rules(x_kubernetes_list_type="atomic")),
    ] = ()
    """Taints that the pods tolerate; each is named by its key."""
    image_pull_secrets: Annotated[
        tuple[PullSecretRef, ...],
        Field(max_length=8, json_schema_extra=rules(x_kubernetes_list_type="atomic")),
    ] = ()
    """Secrets of the namespace by which engine.image is pulled."""
    runtime_class_name: _Subdomain | None = None
    """RuntimeClass of the pods, such as nvidia where GPUs need a runtime of their own."""
    security_context: SecurityContextSpec | None = None
    """As whom the engine runs; default: as the image says, and never with more rights than at its
    start."""


class ClusterRef(SpecModel):
    """Reference to a SlurmCluster."""

    name: ObjectName
    """Name of the SlurmCluster."""
    namespace: ObjectName | None = None
    """Its namespace; default: the operator's."""


_SBATCH_OPTION_RULES: Final = (
    matches(
        r"^--[a-z][a-z0-9-]*(=[A-Za-z0-9_.,:/@%+*=&|!\[\]()][A-Za-z0-9_.,:/@%+*=&|!\[\]()-]*)?$",
        "an sbatch option must be one entry of the form --name or --name=value, in its long form, "
        "without white space, quotes or other special characters: write for example "
        "--constraint=a100",
    ),
    Rule(
        f"!('{joined(SBATCH_PROTECTED)}').contains('|' + self.split('=')[0])",
        "this sbatch option (or its abbreviation) is set by Isthmus: remove it. Use the pool's "
        "slurm.partitions, account, qos and timeLimit and worker.gpusPerNode, cpu and memory; "
        "directives of the site stand in the SlurmCluster",
    ),
    Rule(
        f"self.split('=')[0] in [{', '.join(cel_string(name) for name in SBATCH_ALLOWED)}]",
        "this sbatch option cannot be added: allowed are those that choose where and when a job "
        "runs, such as --constraint, --nodelist, --exclude, --reservation, --licenses, --nice and "
        "--time-min; the directives of a site stand in the SlurmCluster",
    ),
)


class SlurmSpec(SpecModel):
    """Where jobs of this pool go."""

    cluster_ref: ClusterRef
    """The SlurmCluster."""
    partitions: Annotated[
        tuple[Annotated[SlurmName, Field(json_schema_extra=rules(slurm_word("a partition")))], ...],
        Field(max_length=8, json_schema_extra=rules(x_kubernetes_list_type="set")),
    ] = ()
    """Partitions, any of which will do; default: the cluster's."""
    account: Annotated[
        SlurmName | None, Field(json_schema_extra=rules(slurm_word("slurm.account")))
    ] = None
    """Account that is charged; default: the cluster's."""
    qos: Annotated[SlurmName | None, Field(json_schema_extra=rules(slurm_word("slurm.qos")))] = None
    """Quality of service; default: the cluster's."""
    time_limit: Annotated[
        str | None,
        Field(
            max_length=16,
            json_schema_extra=rules(time_limit_rule("slurm.timeLimit")),
        ),
    ] = None
    """Time that each job gets, such as "8h"; default: the cluster's."""
    sbatch_options: Annotated[
        tuple[
            Annotated[
                str,
                Field(max_length=256, json_schema_extra=rules(*_SBATCH_OPTION_RULES)),
            ],
            ...,
        ],
        Field(max_length=16, json_schema_extra=rules(x_kubernetes_list_type="atomic")),
    ] = ()
    """Further options of sbatch in their long form, such as --constraint=a100."""
