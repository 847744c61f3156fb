"""One submission: what is drawn before it is announced, and what is sent.

Apart from the reconciler, whose passes only have to know when. What cannot even be rendered is a
refusal, not an unclear answer.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import SlurmJob, SlurmJobStatus
from isthmus.backends.slurm.frozen import FrozenJob
from isthmus.backends.slurm.records import Refused, SubmitOutcome
from isthmus.slurmcluster.running import Clusters
from isthmus.slurmjob.record import AttemptStatus
from isthmus.slurmjob.requests import submit_request
from isthmus.ssh.keys import KeyPair, new_key_pair


async def announced(
    before: AttemptStatus,
    *,
    job: SlurmJob,
    cluster: SlurmCluster | None,
    clusters: Clusters,
    check: Callable[[], None],
    draw: Callable[[], Awaitable[KeyPair]] = new_key_pair,
) -> AttemptStatus:
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
    await clusters.client(job.spec.cluster).place_tunnel_key(
        work_directory=before.submission.work_directory or cluster.spec.files.work_directory,
        job_name=job.spec.job_name,
        content=key.private,
    )
    return replace(before, forward=replace(forward, public_key=key.public))


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
        clusters: the clients of the clusters.
        installation_id: stands in the job's comment.
        check: called right before sbatch: returns why it is not wanted any more, "" if it is;
            raises if it must not be.
    """
    if cluster is None or frozen is None:
        return Refused(reason="NotRenderable", message="the revision or cluster is gone")
    try:
        request = submit_request(
            job=job,
            frozen=frozen,
            cluster=cluster,
            installation_id=installation_id,
            forward=before.forward,
            work_directory=before.work_directory,
            excluded_nodes=before.excluded_nodes,
            family=clusters.family(job.spec.cluster),
        )
    except ValueError as error:
        return Refused(reason="InvalidRequest", message=str(error))
    outcome = await clusters.submit(job.spec.cluster, request, check=check)
    clusters.poke(job.spec.cluster)
    return outcome
