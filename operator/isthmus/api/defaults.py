"""Derived defaults: from what the user wrote to what is meant.

Static defaults stand in the schema and the API server fills them in. Those that depend on other
fields are here, in one function, so that there is one answer to "what will run".
"""

from collections.abc import Iterable, Mapping
from typing import Final

from isthmus.api.desired import (
    ApiKey,
    ClusterReference,
    Desired,
    Drain,
    Endpoint,
    Engine,
    EngineType,
    EnvironmentVariable,
    Health,
    KubernetesPlacement,
    Model,
    Pool,
    ProbeHeader,
    Router,
    SlurmPlacement,
    Worker,
)
from isthmus.api.durations import parse_duration
from isthmus.api.endpoint import EndpointSpec
from isthmus.api.engine import EngineSpec, EnvironmentVariableSpec, value_source
from isthmus.api.health import HeaderSpec
from isthmus.api.keys import DEFAULT_SECRET_KEY
from isthmus.api.model_source import hugging_face_name
from isthmus.api.modeldeployment import (
    ModelDeployment,
    ModelSpec,
    PoolSpec,
    WorkerSpec,
)
from isthmus.api.names import DEFAULT_OPERATOR_NAMESPACE, api_key_secret
from isthmus.api.revision import written_model, written_pool
from isthmus.api.router_url import router_url_problem
from isthmus.api.schedulers import KubernetesSpec, SlurmSpec

DEFAULT_IMAGES: Final[Mapping[EngineType, str]] = {
    EngineType.VLLM: "vllm/vllm-openai:v0.33.0",
    EngineType.SGLANG: "lmsysorg/sglang:v0.5.23",
}
"""Container image of each engine; the releases whose options and behaviour are known here."""

_TENSOR_PARALLEL: Final[Mapping[EngineType, str]] = {
    EngineType.VLLM: "--tensor-parallel-size",
    EngineType.SGLANG: "--tp-size",
}

_PARALLEL_OPTIONS: Final = (
    "--tensor-parallel-size",
    "--pipeline-parallel-size",
    "--data-parallel-size",
    "--tp-size",
    "--pp-size",
    "--dp-size",
    "-tp",
    "-pp",
    "-dp",
)


def effective(
    deployment: ModelDeployment,
    *,
    operator_namespace: str = DEFAULT_OPERATOR_NAMESPACE,
    generate_api_keys: bool = False,
) -> Desired:
    """Return what a ModelDeployment means, with every default applied.

    Args:
        deployment: as it is stored.
        operator_namespace: where SlurmClusters are that are named without one.
        generate_api_keys: give deployments with a pool on SLURM a key of their own.
    """
    spec = deployment.spec
    return Desired(
        namespace=deployment.metadata.namespace,
        name=deployment.metadata.name,
        uid=deployment.metadata.uid,
        generation=deployment.metadata.generation,
        replicas=spec.replicas,
        model=_model(spec.model),
        pools=tuple(_pool(pool, operator_namespace=operator_namespace) for pool in spec.pools),
        health=Health(
            startup_timeout=parse_duration(spec.health.startup_timeout),
            interval=parse_duration(spec.health.interval),
            success_threshold=spec.health.success_threshold,
            failure_threshold=spec.health.failure_threshold,
            headers=tuple(_header(header) for header in spec.health.headers),
        ),
        drain=Drain(timeout=parse_duration(spec.drain.timeout)),
        endpoint=_endpoint(spec.endpoint),
        api_key=_api_key(deployment, generate=generate_api_keys),
        deleting=deployment.metadata.deleting,
    )


def _endpoint(spec: EndpointSpec) -> Endpoint:
    given = spec.external
    if given is None:
        keys = spec.client_keys_secret_ref
        return Endpoint(
            type=spec.type,
            administration=spec.administration,
            extra_paths=spec.extra_paths,
            client_keys=None if keys is None else keys.name,
        )
    secret, ca = given.auth_secret_ref, given.ca_secret_ref
    return Endpoint(
        type=spec.type,
        router=Router(
            kind=given.kind,
            url=None if given.url is None else given.url.rstrip("/"),
            secret=None if secret is None else (secret.name, secret.key),
            ca=None if ca is None else (ca.name, ca.key),
            problem="" if given.url is None else router_url_problem(given.url),
        ),
    )


def _api_key(deployment: ModelDeployment, *, generate: bool) -> ApiKey | None:
    """A key for all workers where the user names one, or where a node of SLURM can be reached.

    Compute nodes are open to everybody who has a job there, pods are behind the cluster's network.
    """
    spec = deployment.spec
    given = spec.endpoint.api_key_secret_ref
    if given is not None:
        return ApiKey(secret=given.name, key=given.key, generated=False)
    if not generate or all(pool.slurm is None for pool in spec.pools):
        return None
    name = api_key_secret(deployment.metadata.name)
    return ApiKey(secret=name, key=DEFAULT_SECRET_KEY, generated=True)


def _header(header: HeaderSpec) -> ProbeHeader:
    source = header.value_from
    secret = None if source is None else source.secret_key_ref
    return ProbeHeader(
        name=header.name,
        value=header.value,
        secret=None if secret is None else (secret.name, secret.key),
    )


def _model(model: ModelSpec) -> Model:
    last = model.source.rstrip("/").rpartition("/")[2]
    names = model.served_names or (hugging_face_name(model.source) or last,)
    return Model(
        source=model.source,
        revision=model.revision,
        served_names=names,
        written=written_model(model),
    )


def _pool(pool: PoolSpec, *, operator_namespace: str) -> Pool:
    worker = Worker(
        gpus_per_node=pool.worker.gpus_per_node,
        gpu_type=pool.worker.gpu_type,
        cpu=pool.worker.cpu,
        memory=pool.worker.memory,
        shared_memory=None if pool.kubernetes is None else _shared_memory(pool.worker),
    )
    return Pool(
        name=pool.name,
        priority=pool.priority,
        min_replicas=pool.min_replicas,
        max_replicas=pool.max_replicas,
        worker=worker,
        engine=_engine(
            pool.engine, on_kubernetes=pool.kubernetes is not None, gpus=worker.gpus_per_node
        ),
        kubernetes=None if pool.kubernetes is None else _kubernetes(pool.kubernetes),
        slurm=None
        if pool.slurm is None
        else _slurm(pool.slurm, operator_namespace=operator_namespace),
        written=written_pool(pool),
    )


def _shared_memory(worker: WorkerSpec) -> str:
    """A GiB for each GPU, and one without any.

    vLLM's processes talk through rings of 160 MiB in it, and vLLM ends where one does not fit, as
    in the 64 MiB that a container gets by itself (measured, on CPU); NCCL uses it where GPUs do not
    reach each other directly. A bound that is too high costs nothing.
    """
    return worker.shared_memory or f"{max(1, worker.gpus_per_node)}Gi"


def _engine(engine: EngineSpec, *, on_kubernetes: bool, gpus: int) -> Engine:
    type_ = engine.type or (EngineType.VLLM if on_kubernetes else EngineType.SGLANG)
    return Engine(
        type=type_,
        image=(engine.image or DEFAULT_IMAGES[type_]) if on_kubernetes else None,
        args=(*engine.args, *_tensor_parallel(type=type_, args=engine.args, gpus=gpus)),
        env=tuple(_variable(variable) for variable in engine.env),
    )


def _tensor_parallel(*, type: EngineType, args: Iterable[str], gpus: int) -> tuple[str, ...]:
    """Return the argument that spreads a model over the worker's GPUs, unless the user did."""
    if gpus <= 1 or any(names_parallel_option(arg) for arg in args):
        return ()
    return (f"{_TENSOR_PARALLEL[type]}={gpus}",)


def names_parallel_option(arg: str) -> bool:
    """Whether an argument names an option that sets a degree of parallelism.

    Abbreviations count: `--tp` is SGLang's `--tp-size`.
    """
    name = arg.partition("=")[0].replace("_", "-")
    if not name.startswith("--"):
        return name in _PARALLEL_OPTIONS
    return any(option.startswith(name) for option in _PARALLEL_OPTIONS)


def _variable(variable: EnvironmentVariableSpec) -> EnvironmentVariable:
    source = variable.value_from
    return EnvironmentVariable(
        name=variable.name,
        value=variable.value,
        value_from=None if source is None else value_source(source),
    )


def _kubernetes(spec: KubernetesSpec) -> KubernetesPlacement:
    return KubernetesPlacement(
        gpu_resource=spec.gpu_resource,
        node_selector=dict(spec.node_selector),
        tolerations=tuple(
            toleration.model_dump(by_alias=True, exclude_none=True)
            for toleration in spec.tolerations
        ),
        image_pull_secrets=tuple(secret.name for secret in spec.image_pull_secrets),
        runtime_class_name=spec.runtime_class_name,
        security_context={}
        if spec.security_context is None
        else spec.security_context.model_dump(by_alias=True, exclude_none=True),
    )


def _slurm(spec: SlurmSpec, *, operator_namespace: str) -> SlurmPlacement:
    return SlurmPlacement(
        cluster=ClusterReference(
            namespace=spec.cluster_ref.namespace or operator_namespace, name=spec.cluster_ref.name
        ),
        partitions=spec.partitions,
        account=spec.account,
        qos=spec.qos,
        time_limit_minutes=None
        if spec.time_limit is None
        else round(parse_duration(spec.time_limit)) // 60,
        sbatch_options=spec.sbatch_options,
    )
