"""What is asked of sbatch for one attempt, from its frozen wishes and the site: pure.

Apart from who sends it (`commands.py`) and who shows it (`isthmus render`), so that what is shown
is what is sent.
"""

from __future__ import annotations

import re
from dataclasses import replace

from isthmus.api.ip_family import IpFamily
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import SlurmJobSpec
from isthmus.backends.slurm.comments import identity_comment
from isthmus.backends.slurm.frozen import FrozenJob, job_template, site_facts
from isthmus.backends.slurm.records import JOB_NAME, BastionCall, SubmitRequest
from isthmus.backends.slurm.script import render_script, sbatch_options

_OPTION = re.compile(r"--[a-z][a-z-]*(=[^\x00-\x1f\x7f]*)?")


def submit_request(
    *,
    attempt: SlurmJobSpec,
    namespace: str,
    frozen: FrozenJob,
    cluster: SlurmCluster,
    installation_id: str,
    mode: str = "Direct",
    forward_port: int | None = None,
    work_directory: str | None = None,
    excluded_nodes: tuple[str, ...] = (),
    family: IpFamily = IpFamily.IPV4,
) -> SubmitRequest:
    """Render the submission of an attempt.

    Args:
        attempt: whose job it is.
        namespace: of the deployment.
        frozen: its revision.
        cluster: where it goes.
        installation_id: stands in the job's comment.
        mode: how the engine is reached (`network.mode`, never Auto).
        forward_port: that a job of mode Reverse may listen on at its bastion.
        work_directory: of its first submission, which has its start gate; None for the cluster's.
        excluded_nodes: that it is not to run on.
        family: of the nodes' addresses.

    Raises:
        ValueError: something cannot stand in a script; the message says what.
    """
    site = site_facts(cluster.spec)
    if work_directory is not None:
        site = replace(site, work_directory=work_directory)
    template = job_template(
        frozen, models=cluster.spec.models, listen=listen_address(mode, family=family)
    )
    comment = identity_comment(
        installation=installation_id,
        namespace=namespace,
        deployment=attempt.deployment,
        pool=attempt.pool,
        slot=attempt.slot,
        attempt=attempt.attempt,
    )
    return SubmitRequest(
        job_name=attempt.job_name,
        comment=comment,
        script=render_script(
            template=template,
            site=site,
            attempt=attempt.attempt,
            job_name=attempt.job_name,
            comment=comment,
            call=_call(cluster, forward_port) if mode == "Reverse" else None,
        ),
        options=sbatch_options(
            template=template, site=site, job_name=attempt.job_name, excluded_nodes=excluded_nodes
        ),
    )


def listen_address(mode: str, *, family: IpFamily) -> str:
    """Where an engine listens: on no other address than its node's own if it is reached there.

    Args:
        mode: how the engine is reached.
        family: of the nodes' addresses.
    """
    if mode in {"NodeSSH", "Reverse"}:
        return IpFamily.IPV4.loopback  # every node has it, whatever its other addresses
    return family.any_address


def _call(cluster: SlurmCluster, forward_port: int | None) -> BastionCall:
    bastion = cluster.spec.network.bastion
    if bastion is None or forward_port is None:
        raise ValueError("network.mode is Reverse and network.bastion is missing")
    return BastionCall(
        host=bastion.host,
        port=bastion.port,
        user=bastion.user,
        host_key=bastion.host_key,
        forward_port=forward_port,
    )


def sbatch_arguments(request: SubmitRequest) -> tuple[str, ...]:
    """All arguments of sbatch, which reads the script from its standard input."""
    return (
        *request.options,
        "--parsable",
        "--no-requeue",
        f"--job-name={request.job_name}",
        f"--comment={request.comment}",
    )


def request_problem(request: SubmitRequest) -> str | None:
    """Why a request must not reach sbatch, as a sentence, or None if it may."""
    if not JOB_NAME.fullmatch(request.job_name):
        return f"{request.job_name!r} is not a job name: use letters, digits, '.', '_' and '-'."
    if not request.comment.isprintable() or len(request.comment.encode()) > 1024:
        return "The comment must be printable and at most 1024 bytes."
    for option in request.options:
        if not _OPTION.fullmatch(option):
            return f"{option!r} is not an option: write --name=value in one line."
    if not request.script.startswith("#!") or "\r" in request.script or "\0" in request.script:
        return "The script must begin with #! and hold no carriage return."
    return None
