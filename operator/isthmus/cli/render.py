"""`isthmus render`: what a ModelDeployment turns into, before anything runs.

For a pool on Kubernetes the Deployment; for a pool on SLURM the arguments and the script of sbatch,
by the function that submits (`backends/slurm/request.py`). What only a submission knows is a
placeholder, and values that look like secrets are masked (`masks.py`).
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, NoReturn, cast

import typer
import yaml
from pydantic import ValidationError

from isthmus.api.defaults import effective
from isthmus.api.desired import ClusterReference, Desired, Pool
from isthmus.api.ip_family import IpFamily
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.api.names import SlurmJobName
from isthmus.api.revision import revision_hash
from isthmus.api.slurmcluster import SlurmCluster, network_mode
from isthmus.api.slurmjob import JobClusterRef, SlurmJobSpec
from isthmus.backends.kubernetes import render as kubernetes
from isthmus.backends.slurm import frozen as freezing
from isthmus.backends.slurm.records import SubmitRequest
from isthmus.backends.slurm.request import request_problem, sbatch_arguments, submit_request
from isthmus.cli.manifest_files import HELP, texts
from isthmus.cli.manifests import documents
from isthmus.cli.masks import masked_object, masked_template, masked_text
from isthmus.cli.process import EXIT_USAGE, pairs
from isthmus.cli.validate import findings
from isthmus.errors import SettingsError
from isthmus.modeldeployment.policy.placement import place
from isthmus.settings import Settings
from isthmus.slurmcluster.access import access

ATTEMPT: Final = "xxxxxx"
INSTALLATION: Final = "xxxxxxxx"
DIGEST: Final = "xxxxxxxxxx"
"""Of an API key, and of a revision that has one: the digest of the key is part of its hash."""
DEPLOYMENT_HASH: Final = "0000000000"
FORWARD_PORT: Final = 0

_PLACEHOLDERS: Final = "# x and 0 stand for what a submission knows: see isthmus render --help"


def render(
    files: Annotated[
        list[Path],
        typer.Argument(
            help=f"{HELP} A ModelDeployment, and for pools on SLURM their SlurmCluster."
        ),
    ],
    operator_namespace: Annotated[
        str, typer.Option(help="Namespace of SlurmClusters that are named without one.")
    ] = "isthmus-system",
    node_family: Annotated[
        IpFamily,
        typer.Option(help="Family of the addresses of SLURM's nodes, where engines listen on all."),
    ] = IpFamily.IPV4,
    exclude_node: Annotated[
        list[str] | None,
        typer.Option(help="A SLURM node that an attempt leaves out; may be repeated."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of the operator as in `isthmus run`, such as installation-id or "
            "generate-api-keys; may be repeated.",
        ),
    ] = None,
) -> None:
    """Print the Deployment or the batch script that each pool would use.

    For SLURM it is made by the function that submits: every argument of sbatch
    and the script that it reads from its standard input. Placeholders stand for
    what only a submission knows:

    xxxxxx for the attempt, whose slot is 0;

    xxxxxxxx for the installation id, unless --set installation-id=... gives it;

    0000000000 for the hash of the ModelDeployment's uid;

    xxxxxxxxxx for the digest of an API key, and a revision that it is part of;

    0 for the port that a job of network.mode Reverse may listen on.

    Nodes that an attempt leaves out after failures there are shown where they
    are given (--exclude-node); the work directory is the SlurmCluster's, which
    an attempt keeps that was made before it changed.

    API keys stand in no script. ******** stands for the values of variables,
    engine options and assignments in site.setup whose names look like a
    secret's: token, password, API key and the like.
    """
    try:
        settings = Settings.from_environment(None, **pairs(setting or []))
    except SettingsError as error:
        _fail(str(error), code=EXIT_USAGE)
    objects = list(_objects(files))
    read = (SlurmCluster.model_validate(obj) for obj in objects if _is(obj, "SlurmCluster"))
    clusters = {(cluster.metadata.namespace, cluster.metadata.name): cluster for cluster in read}
    deployments = [obj for obj in objects if _is(obj, "ModelDeployment")]
    if not deployments:
        _fail("there is no ModelDeployment in these files")
    for obj in deployments:
        for text in rendered(
            _desired(obj, operator_namespace=operator_namespace, settings=settings),
            clusters=clusters,
            settings=settings,
            family=node_family,
            excluded_nodes=tuple(exclude_node or ()),
        ):
            typer.echo(text)


def _desired(obj: Mapping[str, object], *, operator_namespace: str, settings: Settings) -> Desired:
    try:
        deployment = ModelDeployment.model_validate(obj)
    except ValidationError as error:
        _fail(str(error))
    return effective(
        deployment,
        operator_namespace=operator_namespace,
        generate_api_keys=settings.generate_api_keys,
    )


class _Readable(yaml.SafeDumper):
    """Shows texts of several lines as such: the programs in a pod."""


_Readable.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def rendered(
    desired: Desired,
    *,
    clusters: Mapping[tuple[str, str], SlurmCluster],
    settings: Settings,
    family: IpFamily = IpFamily.IPV4,
    excluded_nodes: tuple[str, ...] = (),
) -> Iterator[str]:
    """A line and a text per pool; raises typer.Exit where one cannot be rendered.

    Args:
        desired: the deployment, whose API key nobody has read.
        clusters: by namespace and name.
        settings: of the operator.
        family: of the addresses of SLURM's nodes.
        excluded_nodes: of SLURM, that an attempt leaves out.
    """
    keyed = desired.api_key is not None
    if desired.api_key is not None:
        desired = replace(desired, api_key=replace(desired.api_key, digest=DIGEST))
    counts = place(desired).counts
    for pool in desired.pools:
        revision = DIGEST if keyed else revision_hash(desired=desired, pool=pool)
        yield f"# ---- pool {pool.name} ({pool.backend}), revision {revision}"
        if pool.slurm is None:
            yield _deployment(
                desired, pool, revision=revision, replicas=counts[pool.name], settings=settings
            )
            continue
        try:
            request = job_request(
                desired,
                pool,
                revision=revision,
                cluster=_cluster(
                    pool,
                    reference=pool.slurm.cluster,
                    namespace=desired.namespace,
                    clusters=clusters,
                ),
                installation_id=settings.installation_id or INSTALLATION,
                family=family,
                excluded_nodes=excluded_nodes,
            )
        except ValueError as error:
            _fail(f"pool {pool.name}: {error}")
        problem = request_problem(request)
        if problem is not None:
            _fail(f"pool {pool.name}: {problem}")
        yield _shown(request)


def _deployment(
    desired: Desired, pool: Pool, *, revision: str, replicas: int, settings: Settings
) -> str:
    template = kubernetes.pod_template(
        desired=desired,
        pool=pool,
        revision=revision,
        pre_stop_seconds=int(settings.pre_stop_seconds),
        shutdown_seconds=int(settings.termination_grace),
        family=settings.family,
    )
    obj = kubernetes.deployment(
        desired=desired,
        pool=pool.name,
        revision=revision,
        template=template,
        replicas=replicas,
    )
    return yaml.dump(masked_object(obj), Dumper=_Readable, sort_keys=False, allow_unicode=True)


def _cluster(
    pool: Pool,
    *,
    reference: ClusterReference,
    namespace: str,
    clusters: Mapping[tuple[str, str], SlurmCluster],
) -> SlurmCluster:
    """The SlurmCluster of a pool with its set-up text masked; tells where it lets nobody in."""
    cluster = clusters.get((reference.namespace, reference.name))
    if cluster is None:
        _fail(
            f"pool {pool.name} needs SlurmCluster {reference.namespace}/{reference.name}: give its "
            "manifest as one more file"
        )
    refused = access(cluster=cluster, reference=reference, namespace=namespace)
    if refused is not None:
        _tell(f"pool {pool.name}: nothing is submitted as it is: {refused[1]}")
    spec = cluster.spec
    site = spec.site.model_copy(update={"setup": masked_text(spec.site.setup)})
    return cluster.model_copy(update={"spec": spec.model_copy(update={"site": site})})


def job_request(
    desired: Desired,
    pool: Pool,
    *,
    revision: str,
    cluster: SlurmCluster,
    installation_id: str,
    family: IpFamily,
    excluded_nodes: tuple[str, ...],
) -> SubmitRequest:
    """The submission of an attempt that is not there yet.

    Args:
        desired: the deployment, with the digest of its API key.
        pool: on SLURM.
        revision: of the pool.
        cluster: where it goes.
        installation_id: of the operator.
        family: of the addresses of the nodes.
        excluded_nodes: that it leaves out.

    Raises:
        ValueError: something cannot stand in a script; the message says what.
    """
    frozen = freezing.freeze(desired=desired, pool=pool)
    meta = cluster.metadata
    return submit_request(
        attempt=SlurmJobSpec(
            cluster_ref=JobClusterRef(namespace=meta.namespace, name=meta.name),
            deployment=desired.name,
            pool=pool.name,
            slot=0,
            attempt=ATTEMPT,
            revision=revision,
            job_name=SlurmJobName(
                deployment=desired.name,
                installation_id=installation_id,
                deployment_hash=DEPLOYMENT_HASH,
                slot=0,
                attempt=ATTEMPT,
            ).text,
        ),
        namespace=desired.namespace,
        frozen=replace(frozen, template=masked_template(frozen.template)),
        cluster=cluster,
        installation_id=installation_id,
        mode=network_mode(cluster.spec),
        forward_port=FORWARD_PORT,
        excluded_nodes=excluded_nodes,
        family=family,
    )


def _shown(request: SubmitRequest) -> str:
    """The script with the command line above it; the echo puts back its last line's end."""
    lines = " \\\n#   ".join(shlex.quote(argument) for argument in sbatch_arguments(request))
    script = request.script.removesuffix("\n")
    return f"{_PLACEHOLDERS}\n# sbatch \\\n#   {lines}\n{script}"


def _objects(files: list[Path]) -> Iterator[Mapping[str, object]]:
    """All objects of valid files; problems are printed and end the command."""
    for name, text in (found for path in files for found in texts(path)):
        problems = [finding for finding in findings(text) if finding.is_problem]
        for problem in problems:
            typer.echo(f"{name}:{problem.line}: {problem.text}", err=True)
        if problems:
            raise typer.Exit(1)
        for document in documents(text):
            if isinstance(document.value, dict):
                yield cast("Mapping[str, object]", document.value)


def _is(obj: Mapping[str, object], kind: str) -> bool:
    return obj.get("kind") == kind


def _tell(message: str) -> None:
    typer.echo(f"isthmus render: {message}", err=True)


def _fail(message: str, *, code: int = 1) -> NoReturn:
    _tell(message)
    raise typer.Exit(code)
