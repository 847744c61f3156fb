"""What a revision of a SLURM pool freezes, and what stays the cluster's.

Frozen is what the user wished (engine arguments, resources, partition …), so that an operator
upgrade restarts nothing. Site facts and model paths are read from the SlurmCluster when an attempt
is submitted, so that an administrator's correction reaches the next attempt.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import TypeAdapter

from isthmus.api.desired import Desired, Pool
from isthmus.api.durations import parse_duration
from isthmus.api.ip_family import IpFamily
from isthmus.api.quantities import whole_cores, whole_mebibytes
from isthmus.api.slurmcluster import SlurmClusterSpec
from isthmus.backends.slurm.records import (
    ATTEMPT_PLACEHOLDER,
    KEY_FILE_PLACEHOLDER,
    PORT_PLACEHOLDER,
    JobTemplate,
    SiteFacts,
)
from isthmus.engines import ENGINES
from isthmus.engines.base import LaunchRequest
from isthmus.engines.listen_argument import listening_at
from isthmus.engines.model_argument import model_argument

MODEL_PLACEHOLDER = "@MODEL@"
"""Stands for the model in a frozen command line: its path is the cluster's matter."""


@dataclass(frozen=True, slots=True)
class FrozenJob:
    """One revision of a SLURM pool.

    Attributes:
        template: what sbatch and the script need, with `MODEL_PLACEHOLDER` in its `argv`.
        engine: name of the engine.
        source: `model.source` as the user wrote it.
        served_name: the model name that a ready worker must report.
    """

    template: JobTemplate
    engine: str
    source: str
    served_name: str


_ADAPTER = TypeAdapter(FrozenJob)


def freeze(*, desired: Desired, pool: Pool) -> FrozenJob:
    """Render a pool on SLURM for its ControllerRevision."""
    wishes = pool.slurm
    if wishes is None:
        raise ValueError(f"pool {pool.name} is not on SLURM")
    worker = pool.worker
    engine = ENGINES[pool.engine.type]
    key = None if desired.api_key is None else desired.api_key.digest
    argv = engine.command(
        LaunchRequest(
            model=MODEL_PLACEHOLDER,
            revision=desired.model.revision,
            served_names=desired.model.served_names,
            port=PORT_PLACEHOLDER,
            attempt=ATTEMPT_PLACEHOLDER,
            drain_seconds=round(desired.drain.timeout),
            args=pool.engine.args,
            key_file=KEY_FILE_PLACEHOLDER if key and engine.key_variable is None else None,
        )
    )
    return FrozenJob(
        template=JobTemplate(
            argv=argv,
            env=tuple((variable.name, variable.value or "") for variable in pool.engine.env),
            gpus=worker.gpus_per_node,
            gpu_type=worker.gpu_type,
            cpus=None if worker.cpu is None else whole_cores(worker.cpu),
            memory_mib=None if worker.memory is None else whole_mebibytes(worker.memory),
            partitions=wishes.partitions,
            account=wishes.account,
            qos=wishes.qos,
            time_limit_minutes=wishes.time_limit_minutes,
            sbatch_options=wishes.sbatch_options,
            key=key,
            key_variable=engine.key_variable if key else None,
        ),
        engine=str(pool.engine.type),
        source=desired.model.source,
        served_name=desired.model.served_names[0],
    )


def to_json(frozen: FrozenJob) -> dict[str, object]:
    """The JSON that stands in a ControllerRevision."""
    dumped = _ADAPTER.dump_python(frozen, mode="json")
    if not isinstance(dumped, dict):
        raise TypeError("a frozen job is a mapping")
    return dumped


def from_json(data: Mapping[str, object]) -> FrozenJob:
    """Read it back.

    Raises:
        pydantic.ValidationError: it was written by hand, or by a release we do not know.
    """
    return _ADAPTER.validate_python(dict(data))


def job_template(
    frozen: FrozenJob,
    *,
    models: Mapping[str, str],
    listen: str = IpFamily.IPV4.any_address,
) -> JobTemplate:
    """The template with the model's place on a cluster.

    Args:
        frozen: the revision.
        models: `spec.models` of the SlurmCluster: source to path.
        listen: address that the engine binds to.
    """
    model = model_argument(frozen.source, paths=models)
    argv = tuple(element.replace(MODEL_PLACEHOLDER, model) for element in frozen.template.argv)
    return replace(frozen.template, argv=listening_at(argv, address=listen))


def site_facts(spec: SlurmClusterSpec) -> SiteFacts:
    """The facts of a SlurmCluster in the form that the script needs."""
    return SiteFacts(
        work_directory=spec.files.work_directory,
        ports_from=spec.network.ports.first,
        ports_to=spec.network.ports.last,
        default_partition=spec.defaults.partition,
        default_account=spec.defaults.account,
        default_qos=spec.defaults.qos,
        default_time_limit_minutes=round(parse_duration(spec.defaults.time_limit)) // 60,
        gpu_directive=spec.site.gpu_directive,
        gpu_types=dict(spec.site.gpu_types),
        memory_directive=spec.site.memory_directive,
        exclusive=spec.site.exclusive,
        modules=spec.site.modules,
        setup=spec.site.setup,
    )
