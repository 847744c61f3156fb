"""What is asked for one attempt: of sbatch, from its frozen wishes and the site; of its engine.

Apart from the reconciler, which only has to know when.
"""

from isthmus.api.conditions import Phase
from isthmus.api.durations import parse_duration
from isthmus.api.modeldeployment import HealthSpec
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import SlurmJob, SlurmJobStatus
from isthmus.backends.slurm.comments import identity_comment
from isthmus.backends.slurm.frozen import FrozenJob, job_template, site_facts
from isthmus.backends.slurm.records import SubmitRequest
from isthmus.backends.slurm.script import render_script, sbatch_options
from isthmus.engines import ENGINES
from isthmus.health.verdict import ProbeTarget


def submit_request(
    *, job: SlurmJob, frozen: FrozenJob, cluster: SlurmCluster, installation_id: str
) -> SubmitRequest:
    """Render the submission of an attempt.

    Raises:
        ValueError: something cannot stand in a script; the message says what.
    """
    spec = job.spec
    site = site_facts(cluster.spec)
    template = job_template(frozen, models=cluster.spec.models)
    comment = identity_comment(
        installation=installation_id,
        namespace=job.metadata.namespace,
        deployment=spec.deployment,
        pool=spec.pool,
        slot=spec.slot,
        attempt=spec.attempt,
    )
    return SubmitRequest(
        job_name=spec.job_name,
        comment=comment,
        script=render_script(
            template=template,
            site=site,
            attempt=spec.attempt,
            job_name=spec.job_name,
            comment=comment,
        ),
        options=sbatch_options(template=template, site=site, job_name=spec.job_name),
    )


_PROBED = frozenset({Phase.STARTING, Phase.READY, Phase.DEGRADED})


def probe_target(
    *, attempt: str, status: SlurmJobStatus, frozen: FrozenJob | None, health: HealthSpec
) -> ProbeTarget | None:
    """What to probe of an attempt: a running one, or one that drains and was not told to end."""
    drains = status.phase == Phase.DRAINING and status.ever_ready and not status.terminated_at
    if frozen is None or status.url is None or not (drains or status.phase in _PROBED):
        return None
    engine = ENGINES[frozen.engine]
    return ProbeTarget(
        url_base=status.url,
        health_path=engine.health_path,
        model=frozen.served_name,
        attempt=attempt,
        engine="sglang" if frozen.engine == "sglang" else "vllm",
        interval=parse_duration(health.interval),
        timeout=float(engine.health_timeout),
        success_threshold=health.success_threshold,
        failure_threshold=health.failure_threshold,
    )
