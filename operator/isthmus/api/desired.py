"""What a ModelDeployment asks for, with all defaults applied: the planner reads only this.

Frozen dataclasses, apart from the pydantic models of the kinds: those say what may be written,
these say what is meant. `isthmus.api.defaults.effective` makes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from isthmus.api.names import membership_service


class EngineType(StrEnum):
    """The inference engine that a worker runs."""

    VLLM = "vllm"
    SGLANG = "sglang"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterReference:
    """One SlurmCluster."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentVariable:
    """One variable of the engine's environment: exactly one of the two is set."""

    name: str
    value: str | None = None
    value_from: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The model to serve.

    Attributes:
        source: `hf://organisation/name`, or an absolute path on the worker.
        revision: branch, tag or commit of a Hugging Face repository.
        served_names: model names in requests, at least one; the first one is in answers.
        written: what the user wrote, the input of the revision hash; None in hand-made records.
    """

    source: str
    revision: str | None = None
    served_names: tuple[str, ...]
    written: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Resources of one worker.

    Attributes:
        gpus_per_node: 0 for an engine without GPUs.
        gpu_type: SLURM only: the site's word for a GPU model, looked up in `site.gpuTypes`.
        cpu: Kubernetes quantity of cores.
        memory: Kubernetes quantity of bytes.
        shared_memory: pods only: bound of /dev/shm, a Kubernetes quantity of bytes; None for what
            the container runtime gives (64 MiB).
    """

    gpus_per_node: int = 1
    gpu_type: str | None = None
    cpu: str | None = None
    memory: str | None = None
    shared_memory: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """The engine and how it is started.

    Attributes:
        type: vLLM or SGLang.
        image: container image; None on SLURM.
        args: the user's arguments, then derived ones (tensor parallelism). Ours (host, port,
            served names …) are added where the worker is rendered.
        env: the user's variables.
    """

    type: EngineType
    image: str | None = None
    args: tuple[str, ...] = ()
    env: tuple[EnvironmentVariable, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesPlacement:
    """Where pods of a pool may run, and as whom.

    Attributes:
        image_pull_secrets: names of Secrets in the namespace.
        security_context: fields of a pod's securityContext, as they are written.
    """

    gpu_resource: str = "nvidia.com/gpu"
    node_selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, object], ...] = ()
    image_pull_secrets: tuple[str, ...] = ()
    runtime_class_name: str | None = None
    security_context: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmPlacement:
    """Where jobs of a pool go; None means the default of the SlurmCluster."""

    cluster: ClusterReference
    partitions: tuple[str, ...] = ()
    account: str | None = None
    qos: str | None = None
    time_limit_minutes: int | None = None
    sbatch_options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Workers of one shape on one scheduler: exactly one of `kubernetes` and `slurm` is set.

    Attributes:
        priority: pools of higher priority are filled first.
        max_replicas: None for no bound.
        written: what the user wrote of worker, engine and scheduler, the input of the revision
            hash; None in hand-made records.
    """

    name: str
    priority: int = 0
    min_replicas: int = 0
    max_replicas: int | None = None
    worker: Worker
    engine: Engine
    kubernetes: KubernetesPlacement | None = None
    slurm: SlurmPlacement | None = None
    written: Mapping[str, object] | None = None

    @property
    def backend(self) -> Literal["kubernetes", "slurm"]:
        """The scheduler of this pool."""
        return "kubernetes" if self.kubernetes is not None else "slurm"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeHeader:
    """One header of the probes: exactly one of the two is set.

    Attributes:
        secret: name of a Secret and key in it.
    """

    name: str
    value: str | None = None
    secret: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """Where the API key of a deployment's workers comes from, and which one it is; never itself.

    Attributes:
        secret: name of the Secret.
        key: key in it.
        generated: the Secret is made where it is missing.
        digest: which key new workers get; None until the Secret was read.
        shared_again: jobs share the key, and others before them had keys derived from it: they are
            another revision.
    """

    secret: str
    key: str
    generated: bool
    digest: str | None = None
    shared_again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How long a start may take and what counts as healthy; times in seconds."""

    startup_timeout: float = 1800.0
    interval: float = 5.0
    success_threshold: int = 1
    failure_threshold: int = 3
    headers: tuple[ProbeHeader, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """How workers go that are not wanted any more; times in seconds.

    No part of a revision: planned drains obey a change at once, and a pod's own hook, for those
    that nobody planned, has the value of the time at which its revision was frozen.
    """

    timeout: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """A router that is not ours.

    Attributes:
        kind: its API.
        url: where it answers, without a slash at the end; None for an Envoy that follows a file.
        secret: name and key of the Secret whose value is its Bearer token.
        ca: name and key of the Secret with the CAs of its certificate, None for the system's.
        problem: why its URL cannot be asked, "" if it can.
    """

    kind: Literal["sglang-router", "smg", "envoy"]
    url: str | None = None
    secret: tuple[str, str] | None = None
    ca: tuple[str, str] | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """How requests reach the workers.

    Attributes:
        router: for External only.
        administration: whether clients of the front may change the engines.
        extra_paths: what they may call beyond the engines' tables.
        client_keys: name of the Secret with their keys; None: the front answers everybody.
    """

    type: Literal["Managed", "Service", "External"] = "Managed"
    router: Router | None = None
    administration: bool = False
    extra_paths: tuple[str, ...] = ()
    client_keys: str | None = None

    @property
    def managed(self) -> bool:
        """Whether a front of ours stands before the workers."""
        return self.type == "Managed"

    @property
    def key_per_attempt(self) -> bool:
        """Whether who sends requests to workers can give each its own API key.

        A client of the bare Service, or of an Envoy that is not ours, sends one key and does not
        know which worker gets it.
        """
        return self.managed or (self.router is not None and self.router.kind != "envoy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """One ModelDeployment, as it is meant."""

    namespace: str
    name: str
    uid: str
    generation: int
    replicas: int
    model: Model
    pools: tuple[Pool, ...]
    health: Health
    drain: Drain = field(default_factory=Drain)
    endpoint: Endpoint = Endpoint()
    api_key: ApiKey | None = None
    deleting: bool = False

    @property
    def engines(self) -> tuple[EngineType, ...]:
        """The engines of its pools, each once, in order."""
        return tuple(sorted({pool.engine.type for pool in self.pools}))

    def pool(self, name: str) -> Pool:
        """The pool of a name that is one of its pools'."""
        return next(pool for pool in self.pools if pool.name == name)

    @property
    def membership_service(self) -> str:
        """Name of the Service whose EndpointSlices hold the workers."""
        return membership_service(self.name, managed=self.endpoint.managed)
