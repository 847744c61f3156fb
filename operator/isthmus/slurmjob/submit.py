"""One submission: what is drawn before it is announced, and what is sent.

Apart from the reconciler, whose passes only have to know when. What cannot even be rendered is a
refusal, not an unclear answer.
"""

from collections.abc import Awaitable, Callable

from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import ForwardStatus, SlurmJob, SlurmJobStatus
from isthmus.backends.slurm.frozen import FrozenJob
from isthmus.backends.slurm.records import Refused, SubmitOutcome
from isthmus.backends.slurm.request import submit_request
from isthmus.slurmcluster.running import Clusters
from isthmus.ssh.keys import KeyPair, new_key_pair


async def announced(
    before: SlurmJobStatus,
    *,
    job: SlurmJob,
    cluster: SlurmCluster | None,
    clusters: Clusters,
    check: Callable[[], None],
    draw: Callable[[], Awaitable[KeyPair]] = new_key_pair,
) -> SlurmJobStatus:
    """The status that says that a submission begins, with what its job needs in place.

    A job of mode Reverse calls with a key of its own: the private half goes to the cluster and
    stands nowhere else, the public one into the status.

    Raises:
        SshError: ssh-keygen did not run.
        SlurmUnavailableError: the key could not be put into place; nothing has begun.
    """
    forward = before.forward
    if forward is None or forward.mode != "Reverse" or cluster is None:
        return before
    key = await draw()
    check()
    await clusters.work_folder(job.spec.cluster).place_tunnel_key(
        work_directory=before.work_directory or cluster.spec.files.work_directory,
        job_name=job.spec.job_name,
        content=key.private,
    )
    told = forward.model_copy(update={"public_key": key.public})
    return before.model_copy(update={"forward": told})


async def submit(
    before: SlurmJobStatus,
    *,
    job: SlurmJob,
    frozen: FrozenJob | None,
    cluster: SlurmCluster | None,
    clusters: Clusters,
    installation_id: str,
    check: Callable[[], str],
) -> SubmitOutcome:
    """Run sbatch once.

    Args:
        before: the status that was acknowledged.
        job: the attempt.
        frozen: its revision, None if it is gone.
        cluster: where it goes, None if it is gone.
        clusters: all that are polled.
        installation_id: stands in the job's comment.
        check: called right before sbatch: returns why it is not wanted any more, "" if it is;
            raises if it must not be.
    """
    if cluster is None or frozen is None:
        return Refused(reason="NotRenderable", message="the revision or cluster is gone")
    forward = before.forward or ForwardStatus()
    try:
        request = submit_request(
            attempt=job.spec,
            namespace=job.metadata.namespace,
            frozen=frozen,
            cluster=cluster,
            installation_id=installation_id,
            mode=forward.mode or "Direct",
            forward_port=forward.port,
            work_directory=before.work_directory,
            excluded_nodes=before.excluded_nodes,
            family=clusters.family(job.spec.cluster),
        )
    except ValueError as error:
        return Refused(reason="InvalidRequest", message=str(error))
    outcome = await clusters.submit(job.spec.cluster, request, check=check)
    clusters.poke(job.spec.cluster)
    return outcome
