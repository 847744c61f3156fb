"""What is sent to sbatch for one attempt: the frozen wishes of its revision and the site's facts.

Apart from the reconciler, which only has to know when.
"""

from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import SlurmJob
from isthmus.backends.slurm.comments import identity_comment
from isthmus.backends.slurm.frozen import FrozenJob, job_template, site_facts
from isthmus.backends.slurm.records import SubmitRequest
from isthmus.backends.slurm.script import render_script, sbatch_options


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
