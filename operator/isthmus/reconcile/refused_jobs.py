"""What is done with a SlurmJob that counts for nothing: it is told why, and let go.

Apart from the reconciler of SlurmJobs, which never gets to see one: no job is looked for under its
name, followed or cancelled, and whatever its status says stays as it is.
"""

import logging

from isthmus.api import names
from isthmus.api.conditions import Reason
from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import Object, deletion_timestamp, dig, finalizers, name, namespace
from isthmus.apiserver.resources import SLURM_JOBS
from isthmus.reconcile.reading import read_job
from isthmus.reconcile.statuses import set_finalizer, tell_unreadable, write_status

_log = logging.getLogger(__name__)


async def refuse(api: ApiServer, raw: Object, *, problem: str) -> None:
    """Say in its status why it is refused; without our finalizer where it is being deleted.

    Raises:
        ApiError: a write failed.
    """
    if deletion_timestamp(raw) is not None:
        if names.FINALIZER_SLURM_JOB in finalizers(raw):
            await set_finalizer(
                api,
                SLURM_JOBS,
                obj=raw,
                finalizer=names.FINALIZER_SLURM_JOB,
                present=False,
            )
        return
    if dig(raw, "status", "reason") != Reason.SLURM_JOB_REFUSED:
        _log.warning("SlurmJob %s/%s counts for nothing: %s", namespace(raw), name(raw), problem)
    job = read_job(raw)
    if job.value is None:
        await tell_unreadable(api, SLURM_JOBS, raw, job.problem)
        return
    status = job.value.status or SlurmJobStatus()
    told = status.model_copy(update={"reason": Reason.SLURM_JOB_REFUSED, "message": problem})
    await write_status(api, SLURM_JOBS, obj=raw, status=told)
