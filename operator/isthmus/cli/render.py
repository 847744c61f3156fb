"""`isthmus render`: what a ModelDeployment turns into, before anything runs.

For a pool on Kubernetes the Deployment, for a pool on SLURM the options and the script of sbatch;
derived defaults are filled in, values that look like secrets are masked.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, NoReturn, cast

import typer
import yaml
from pydantic import ValidationError

from isthmus.api.defaults import effective
from isthmus.api.desired import Desired, Pool
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.api.revision import revision_hash
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.backends.kubernetes import render as kubernetes
from isthmus.backends.slurm import frozen as freezing
from isthmus.backends.slurm.comments import identity_comment
from isthmus.backends.slurm.script import render_script, sbatch_options
from isthmus.cli.manifests import documents
from isthmus.cli.validate import findings
from isthmus.modeldeployment.policy.placement import place
from isthmus.settings import Settings

_ATTEMPT = "xxxxxx"
_INSTALLATION = "xxxxxxxx"
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|PRIVATE_?KEY", re.I)
_SECRET_OPTION = re.compile(r"(--[a-z-]*(?:token|secret|password|api-key)[a-z-]*)=.*", re.I)
_MASK = "********"


def render(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Manifests: a ModelDeployment, and for pools on SLURM their SlurmCluster."
        ),
    ],
    operator_namespace: Annotated[
        str, typer.Option(help="Namespace of SlurmClusters that are named without one.")
    ] = "isthmus-system",
) -> None:
    """Print the Deployment or the batch script that each pool would use."""
    objects = list(_objects(files))
    clusters = {
        (cluster.metadata.namespace, cluster.metadata.name): cluster
        for cluster in (SlurmCluster.model_validate(o) for o in objects if _is(o, "SlurmCluster"))
    }
    deployments = [o for o in objects if _is(o, "ModelDeployment")]
    if not deployments:
        _fail("there is no ModelDeployment in these files")
    for obj in deployments:
        try:
            deployment = ModelDeployment.model_validate(obj)
        except ValidationError as error:
            _fail(str(error))
        desired = effective(deployment, operator_namespace=operator_namespace)
        for text in rendered(desired, clusters=clusters):
            typer.echo(text)


class _Readable(yaml.SafeDumper):
    """Shows texts of several lines as such: the programs in a pod."""


_Readable.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def rendered(
    desired: Desired, *, clusters: Mapping[tuple[str, str], SlurmCluster]
) -> Iterator[str]:
    """One text per pool; raises typer.Exit where a SlurmCluster is missing."""
    settings = Settings()
    counts = place(desired).counts
    for pool in desired.pools:
        revision = revision_hash(desired=desired, pool=pool)
        yield f"# ---- pool {pool.name} ({pool.backend}), revision {revision}"
        if pool.kubernetes is not None:
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
                replicas=counts[pool.name],
            )
            yield yaml.dump(_masked(obj), Dumper=_Readable, sort_keys=False, allow_unicode=True)
        else:
            yield _job(desired, pool, clusters=clusters)


def _job(
    desired: Desired,
    pool: Pool,
    *,
    clusters: Mapping[tuple[str, str], SlurmCluster],
) -> str:
    placement = pool.slurm
    if placement is None:
        raise ValueError(f"pool {pool.name} is not on SLURM")
    reference = placement.cluster
    cluster = clusters.get((reference.namespace, reference.name))
    if cluster is None:
        _fail(
            f"pool {pool.name} needs SlurmCluster {reference.namespace}/{reference.name}: give its "
            "manifest as one more file"
        )
    frozen = freezing.freeze(desired=desired, pool=pool)
    template = freezing.job_template(frozen, models=cluster.spec.models)
    masked = freezing.masked(template, mask=_mask_variable, mask_argument=_mask_argument)
    site = freezing.site_facts(cluster.spec)
    job_name = f"{desired.name}-{_INSTALLATION}-0000000000-0-{_ATTEMPT}"
    comment = identity_comment(
        installation=_INSTALLATION,
        namespace=desired.namespace,
        deployment=desired.name,
        pool=pool.name,
        slot=0,
        attempt=_ATTEMPT,
    )
    try:
        options = sbatch_options(template=template, site=site, job_name=job_name)
        script = render_script(
            template=masked, site=site, attempt=_ATTEMPT, job_name=job_name, comment=comment
        )
    except ValueError as error:
        _fail(f"pool {pool.name}: {error}")
    lines = " \\\n#   ".join(options)
    return f"# sbatch --no-requeue --job-name={job_name} \\\n#   {lines}\n{script}"


def _objects(files: list[Path]) -> Iterator[Mapping[str, object]]:
    """All objects of valid files; problems are printed and end the command."""
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            _fail(f"{path} cannot be read: {error}")
        problems = [finding for finding in findings(text) if finding.is_problem]
        for problem in problems:
            typer.echo(f"{path}:{problem.line}: {problem.text}", err=True)
        if problems:
            raise typer.Exit(1)
        for document in documents(text):
            if isinstance(document.value, dict):
                yield cast("Mapping[str, object]", document.value)


def _is(obj: Mapping[str, object], kind: str) -> bool:
    return obj.get("kind") == kind


def _mask_variable(name: str, value: str) -> str:
    return _MASK if _SECRET_NAME.search(name) else value


def _mask_argument(argument: str) -> str:
    return _SECRET_OPTION.sub(rf"\1={_MASK}", argument)


def _masked(value: object) -> object:
    """A copy with the values of secret-looking variables and options masked."""
    if isinstance(value, Mapping):
        copied = {str(key): _masked(item) for key, item in value.items()}
        name, plain = copied.get("name"), copied.get("value")
        if isinstance(name, str) and isinstance(plain, str):
            copied["value"] = _mask_variable(name, plain)
        return copied
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return _mask_argument(value) if isinstance(value, str) else value


def _fail(message: str) -> NoReturn:
    typer.echo(f"isthmus render: {message}", err=True)
    raise typer.Exit(1)
