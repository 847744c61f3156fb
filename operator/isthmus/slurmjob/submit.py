"""One submission: what is drawn before it is announced, and what is sent.

Apart from the reconciler, whose passes only have to know when. The status says `Submitting` and the
API server has acknowledged that before sbatch runs, so that no restart can take a submission for
untried. What cannot even be rendered is a refusal, not an unclear answer.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from isthmus.api.conditions import Reason
from isthmus.api.desired import ClusterReference
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import ForwardStatus, SlurmJob, SlurmJobStatus
from isthmus.apiserver.key import Key
from isthmus.apiserver.objects import Object, deletion_timestamp, name, namespace, uid
from isthmus.apiserver.resources import SLURM_JOBS
from isthmus.apiserver.statuses import write_status
from isthmus.backends.slurm.frozen import FrozenJob
from isthmus.backends.slurm.records import NotSent, Refused, SubmitOutcome
from isthmus.backends.slurm.request import submit_request
from isthmus.errors import SecretMissingError
from isthmus.slurmcluster.running import Clusters
from isthmus.slurmcluster.submission_line import Turn
from isthmus.slurmjob.actions import Submit
from isthmus.slurmjob.key_files import KeyStaging
from isthmus.slurmjob.observe import Parts
from isthmus.slurmjob.record import AttemptStatus
from isthmus.slurmjob.sides import ApiSide, Installation, SlurmSide
from isthmus.slurmjob.submitting import after_submission
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
    await clusters.work_folder(job.spec.cluster).place_tunnel_key(
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


class Submissions:
    """Submits attempts, a few of a cluster at a time."""

    def __init__(
        self,
        *,
        api: ApiSide,
        slurm: SlurmSide,
        staging: KeyStaging,
        installation: Installation,
        clock: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            api: where it is announced.
            slurm: where it goes.
            staging: brings API keys to the jobs.
            installation: whose comment its job has, and the times that apply.
            clock: wall clock, epoch seconds.
        """
        self._api = api
        self._slurm = slurm
        self._staging = staging
        self._installation = installation
        self._clock = clock

    def enter(self, key: Key, reference: ClusterReference) -> Turn:
        """Ask whether an attempt may submit now."""
        return self._slurm.line.enter(reference, key)

    def withdraw(self, key: Key, reference: ClusterReference) -> None:
        """The attempt does not want to submit, or not any more."""
        self._slurm.line.withdraw(reference, key)

    async def make(
        self, key: Key, parts: Parts, action: Submit, *, waiting: AttemptStatus
    ) -> tuple[Object, AttemptStatus]:
        """Submit once, in its turn; the object as it is stored then, and the status to write."""
        try:
            return await self._make(parts, action, waiting=waiting)
        finally:
            self._slurm.line.leave(parts.job.spec.cluster, key)

    async def _make(
        self, parts: Parts, action: Submit, *, waiting: AttemptStatus
    ) -> tuple[Object, AttemptStatus]:
        problem = await self._stage(parts, place=action.before.submission.work_directory)
        if problem:
            return parts.raw, replace(waiting, reason=Reason.API_KEY_UNUSABLE, message=problem)
        before = await announced(
            action.before,
            job=parts.job,
            cluster=parts.cluster,
            clusters=self._slurm.clusters,
            check=self._api.gate.check,
        )
        acknowledged = before.write()
        raw = await write_status(self._api.api, SLURM_JOBS, obj=parts.raw, status=acknowledged)
        outcome = await submit(
            acknowledged,
            job=parts.job,
            frozen=parts.frozen,
            cluster=parts.cluster,
            clusters=self._slurm.clusters,
            installation_id=self._installation.identity,
            check=lambda: self._unwanted(raw, parts.job.spec.cluster),
        )
        if isinstance(outcome, NotSent):  # its deletion may be what was written last
            raw = self._api.store.get(SLURM_JOBS, namespace(raw), name(raw)) or raw
        limits = self._installation.limits(parts.cluster)
        return raw, after_submission(before, outcome=outcome, limits=limits, now=self._clock())

    async def _stage(self, parts: Parts, *, place: str | None) -> str:
        """Put the attempt's API key where its job takes it; what is wrong where there is none."""
        if parts.frozen is None or parts.cluster is None:
            return ""
        folder = place or parts.cluster.spec.files.work_directory
        try:
            await self._staging.stage(job=parts.job, frozen=parts.frozen, folder=folder)
        except SecretMissingError as error:
            return str(error)
        return ""

    def _unwanted(self, raw: Object, reference: ClusterReference) -> str:
        """Why an attempt must not be submitted after all: others' submissions took long."""
        self._api.gate.check()
        now = self._api.store.get(SLURM_JOBS, namespace(raw), name(raw))
        if now is None or uid(now) != uid(raw) or deletion_timestamp(now) is not None:
            return "its SlurmJob is being deleted"
        state = self._slurm.states.get(reference)
        if state is None or not state.fresh(now=self._clock()):
            return "its cluster can no longer be seen"
        return ""
