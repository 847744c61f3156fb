"""The kind ModelDeployment: one model, served from pools on Kubernetes and on SLURM.

Only what is built stands in the schema; a field is added together with what it does.
"""

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

from isthmus.api.base import (
    DNS_LABEL,
    ObjectMeta,
    Rule,
    SpecModel,
    StatusModel,
    duration_between,
    matches,
    rules,
)
from isthmus.api.endpoint import EndpointSpec
from isthmus.api.engine import EngineSpec
from isthmus.api.health import HealthSpec
from isthmus.api.modeldeployment_status import ModelDeploymentStatus
from isthmus.api.names import API_VERSION, IDENTITY_MODEL_PREFIX, MAX_DEPLOYMENT_NAME, MAX_POOL_NAME
from isthmus.api.schedulers import KubernetesSpec, SlurmSpec

MAX_REPLICAS: Final = 512
MAX_POOLS: Final = 8


class ModelSpec(SpecModel):
    """The model to serve."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.revision) || self.source.startsWith('hf://')",
                "model.revision belongs to a Hugging Face repository: remove it, or write "
                "model.source as hf://organisation/name",
            )
        )
    )

    source: Annotated[
        str,
        Field(
            min_length=1,
            max_length=256,
            json_schema_extra=rules(
                Rule(
                    "self.matches('^hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"
                    "(:[A-Za-z0-9][A-Za-z0-9._-]*)?$')"
                    " || (self.matches('^(/[A-Za-z0-9._+@=:-]+)+$') && "
                    "!self.contains('/../') && !self.endsWith('/..'))",
                    'model.source must be "hf://organisation/name" or an absolute path on the '
                    'worker such as "/models/llama-8b" (letters, digits and ._+@=:- only)',
                )
            ),
        ),
    ]
    """hf://organisation/name (vLLM's GGUF form has :QUANTISATION behind it), or an absolute path on
    the worker."""
    revision: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=128,
            json_schema_extra=rules(
                matches(
                    "^[A-Za-z0-9][A-Za-z0-9._/-]*$",
                    "model.revision must be a branch, tag or commit: letters, digits and ._/-",
                )
            ),
        ),
    ] = None
    """Branch, tag or commit of the Hugging Face repository; default: its main branch."""
    served_names: Annotated[
        tuple[
            Annotated[
                str,
                Field(
                    min_length=1,
                    max_length=128,
                    json_schema_extra=rules(
                        matches(
                            "^[A-Za-z0-9/][A-Za-z0-9._:/@+-]*$",
                            "a served name must begin with a letter, digit or '/' and hold only "
                            "letters, digits and ._:/@+-",
                        ),
                        Rule(
                            f"!self.startsWith('{IDENTITY_MODEL_PREFIX}')",
                            f"served names beginning with {IDENTITY_MODEL_PREFIX} are taken: "
                            "Isthmus distinguishes workers by them; choose another name",
                        ),
                    ),
                ),
            ],
            ...,
        ],
        Field(max_length=8, json_schema_extra=rules(x_kubernetes_list_type="set")),
    ] = ()
    """Model names in requests; default: organisation/name, or the last part of the path."""


_SIZE: Final = (
    "type(self) == int ? int(self) >= 1000000 : string(self).matches('^([1-9][0-9]{6,14}|"
    "(0|[1-9][0-9]{0,11})([.][0-9]{1,3})?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi))$') && "
    "!string(self).matches('^0([.]0*)?[a-zA-Z]')"
)
"""A size as pods take it; a number without a unit is bytes, and a small one an oversight."""


def _size(field: str, example: str) -> JsonDict:
    return rules(
        Rule(
            _SIZE,
            f"{field} must be a size with a unit, or bytes (1000000 or more): write for example "
            f'"{example}"',
        ),
        x_kubernetes_int_or_string=True,
    )


def _text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class WorkerSpec(SpecModel):
    """Resources of one worker, whatever the scheduler."""

    gpus_per_node: Annotated[int, Field(ge=0, le=16)] = 1
    """GPUs of the worker; 0 for an engine without GPUs."""
    gpu_type: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=63,
            json_schema_extra=rules(
                matches(
                    "^[A-Za-z0-9][A-Za-z0-9._-]*$",
                    "worker.gpuType must be a GPU's name at the site, such as h100",
                )
            ),
        ),
    ] = None
    """GPU model; SLURM pools only, looked up in the SlurmCluster's site.gpuTypes."""
    cpu: Annotated[
        str | None,
        Field(
            max_length=16,
            json_schema_extra=rules(
                Rule(
                    "type(self) == int ? int(self) > 0 && int(self) < 1000000 : "
                    "string(self).matches('^((0|[1-9][0-9]{0,5})([.][0-9]{1,3})?|[1-9][0-9]{0,5}m)$')"
                    " && !string(self).matches('^0([.]0*)?$')",
                    'worker.cpu must be a number of cores: write for example "8", "0.5" or "7500m"',
                ),
                x_kubernetes_int_or_string=True,
            ),
        ),
        BeforeValidator(_text),
    ] = None
    """CPU cores, such as "8", "0.5" or "7500m"; SLURM gets whole cores, rounded up."""
    memory: Annotated[
        str | None,
        Field(
            max_length=16,
            json_schema_extra=_size("worker.memory", "64Gi"),
        ),
        BeforeValidator(_text),
    ] = None
    """Main memory, such as "64Gi", or bytes; SLURM gets whole MiB, rounded up."""
    shared_memory: Annotated[
        str | None,
        Field(
            max_length=16,
            json_schema_extra=_size("worker.sharedMemory", "8Gi"),
        ),
        BeforeValidator(_text),
    ] = None
    """Bound of the pod's /dev/shm, counted as its memory when used; default 1Gi per GPU."""


_POOL_RULES: Final = (
    Rule(
        "has(self.kubernetes) != has(self.slurm)",
        "a pool runs on exactly one scheduler: write either kubernetes: {} or slurm: {clusterRef: "
        "{name: …}}, and use two pools for both",
    ),
    Rule(
        "!has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
        "minReplicas must not exceed maxReplicas: lower the one or raise the other",
    ),
    Rule(
        "!has(self.worker.gpuType) || has(self.slurm)",
        "worker.gpuType works on SLURM only: on Kubernetes choose nodes with "
        "kubernetes.nodeSelector, for example {nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}",
    ),
    Rule(
        "!has(self.worker.sharedMemory) || has(self.kubernetes)",
        "worker.sharedMemory works on Kubernetes only: a job on SLURM has its node's /dev/shm; "
        "remove it",
    ),
    Rule(
        "!has(self.engine.image) || has(self.kubernetes)",
        "engine.image works on Kubernetes only: on SLURM the engine comes from the site's "
        "modules and setup in the SlurmCluster; remove it",
    ),
    Rule(
        "!has(self.engine.env) || has(self.kubernetes) || "
        "!self.engine.env.exists(variable, has(variable.valueFrom))",
        "valueFrom works on Kubernetes only, secrets on SLURM are not built yet: write value for "
        "what is not secret, and put models on the cluster (SlurmCluster models) instead of using "
        "a download token",
    ),
)


class PoolSpec(SpecModel):
    """Workers of one shape on one scheduler."""

    model_config = ConfigDict(json_schema_extra=rules(*_POOL_RULES))

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_POOL_NAME,
            json_schema_extra=rules(
                matches(
                    DNS_LABEL,
                    "a pool's name must be lower-case letters, digits and '-', beginning and "
                    "ending with a letter or digit",
                )
            ),
        ),
    ] = "default"
    """Name of the pool, unique in the deployment."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Pools of higher priority are filled first."""
    min_replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] = 0
    """Workers that this pool gets before pools of higher priority get more."""
    max_replicas: Annotated[int | None, Field(ge=0, le=MAX_REPLICAS)] = None
    """Workers that this pool may get at most; default: no bound."""
    worker: WorkerSpec = WorkerSpec()
    """Resources of one worker."""
    engine: EngineSpec = EngineSpec()
    """The inference engine."""
    kubernetes: KubernetesSpec | None = None
    """Present for pods on Kubernetes."""
    slurm: SlurmSpec | None = None
    """Present for jobs on SLURM."""


class DrainSpec(SpecModel):
    """How workers go that are not wanted any more."""

    timeout: Annotated[
        str,
        Field(max_length=16, json_schema_extra=rules(duration_between("0s", "24h", "5m"))),
    ] = "5m"
    """Time that running requests get to finish once a worker is out of rotation."""


class ModelDeploymentSpec(SpecModel):
    """What is wanted."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                f"self.pools.map(pool, pool.minReplicas).sum() <= {MAX_REPLICAS}",
                f"the pools' minReplicas together must not exceed {MAX_REPLICAS}: lower them",
            )
        )
    )

    model: ModelSpec
    """The model to serve."""
    replicas: Annotated[
        int, Field(ge=0, le=MAX_REPLICAS, json_schema_extra={"format": "int32"})
    ] = 1
    """Workers over all pools; kubectl scale and autoscalers write it."""
    pools: Annotated[
        tuple[PoolSpec, ...],
        Field(
            min_length=1,
            max_length=MAX_POOLS,
            json_schema_extra=rules(
                x_kubernetes_list_type="map", x_kubernetes_list_map_keys=["name"]
            ),
        ),
    ]
    """Where workers run, each pool on one scheduler."""
    health: HealthSpec = HealthSpec()
    """How long a start may take and what counts as healthy."""
    drain: DrainSpec = DrainSpec()
    """How workers go that are not wanted any more."""
    endpoint: EndpointSpec = EndpointSpec()
    """How requests reach the workers."""


class ModelDeployment(StatusModel):
    """One model, served from pools on Kubernetes and on SLURM behind one address."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                f"self.metadata.name.size() <= {MAX_DEPLOYMENT_NAME} && "
                "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                f"metadata.name must be at most {MAX_DEPLOYMENT_NAME} characters, lower-case "
                "letters, digits and '-', beginning with a letter: a Service gets this name and "
                "workers' names are longer",
            )
        )
    )

    api_version: str = API_VERSION
    kind: Literal["ModelDeployment"] = "ModelDeployment"
    metadata: ObjectMeta
    spec: ModelDeploymentSpec
    """What is wanted."""
    status: ModelDeploymentStatus | None = None
    """What is, written by the operator."""
