"""What is asked for one attempt: of sbatch, from its frozen wishes and the site; of its engine.

Apart from the reconciler, which only has to know when.
"""

from dataclasses import replace

from isthmus.api.conditions import PROBED, Phase
from isthmus.api.durations import parse_duration
from isthmus.api.health import HealthSpec
from isthmus.api.ip_family import IpFamily
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import ForwardStatus, SlurmJob
from isthmus.backends.slurm.comments import identity_comment
from isthmus.backends.slurm.frozen import FrozenJob, job_template, site_facts
from isthmus.backends.slurm.records import BastionCall, SubmitRequest
from isthmus.backends.slurm.script import render_script, sbatch_options
from isthmus.engines import ENGINES
from isthmus.probing.verdict import ProbeTarget
from isthmus.slurmjob.record import AttemptStatus


def submit_request(
    *,
    job: SlurmJob,
    frozen: FrozenJob,
    cluster: SlurmCluster,
    installation_id: str,
    forward: ForwardStatus | None = None,
    work_directory: str | None = None,
    excluded_nodes: tuple[str, ...] = (),
    family: IpFamily = IpFamily.IPV4,
) -> SubmitRequest:
    """Render the submission of an attempt.

    Args:
        job: the attempt.
        frozen: its revision.
        cluster: where it goes.
        installation_id: stands in the job's comment.
        forward: as assigned to it, None where it is reached directly.
        work_directory: of its first submission, which has its start gate; None for the cluster's.
        excluded_nodes: that it is not to run on.
        family: of the nodes' addresses.

    Raises:
        ValueError: something cannot stand in a script; the message says what.
    """
    spec = job.spec
    site = site_facts(cluster.spec)
    if work_directory is not None:
        site = replace(site, work_directory=work_directory)
    template = job_template(
        frozen, models=cluster.spec.models, listen=listen_address(forward, family=family)
    )
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
            call=_call(cluster, forward),
        ),
        options=sbatch_options(
            template=template, site=site, job_name=spec.job_name, excluded_nodes=excluded_nodes
        ),
    )


def listen_address(forward: ForwardStatus | None, *, family: IpFamily) -> str:
    """Where an engine listens: on no other address than its node's own if it is reached there."""
    if forward is not None and forward.mode in {"NodeSSH", "Reverse"}:
        return IpFamily.IPV4.loopback  # every node has it, whatever its other addresses
    return family.any_address


def _call(cluster: SlurmCluster, forward: ForwardStatus | None) -> BastionCall | None:
    if forward is None or forward.mode != "Reverse":
        return None
    bastion = cluster.spec.network.bastion
    if bastion is None or forward.port is None:
        raise ValueError("network.mode is Reverse and network.bastion is missing")
    return BastionCall(
        host=bastion.host,
        port=bastion.port,
        user=bastion.user,
        host_key=bastion.host_key,
        forward_port=forward.port,
    )


def probe_target(
    *, attempt: str, status: AttemptStatus, frozen: FrozenJob | None, health: HealthSpec
) -> ProbeTarget | None:
    """What to probe of an attempt: a running one, or one that drains and was not told to end."""
    told = status.ending.terminated_at is not None
    drains = status.phase == Phase.DRAINING and status.ever_ready and not told
    if frozen is None or status.url is None or not (drains or status.phase in PROBED):
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
