"""What is done with a SlurmJob that counts for nothing: it is told why, and let go.

Apart from the reconciler of SlurmJobs, which never gets to see one: no job is looked for under its
name, followed or cancelled, and whatever its status says stays as it is.

One that counted before has lost its owner reference, which only who may write SlurmJobs can take
away, and who may do that may delete it too (its spec never changes, and labels are not asked).
Nobody probes its worker from then on, so no requests go there either; its job is left to itself.
"""

import logging
from dataclasses import replace

from isthmus.api import names
from isthmus.api.conditions import Reason
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import Object, deletion_timestamp, dig, finalizers, name, namespace
from isthmus.apiserver.reading import read_job
from isthmus.apiserver.resources import SLURM_JOBS
from isthmus.apiserver.statuses import set_finalizer, tell_unreadable, write_status
from isthmus.apiserver.store import Store
from isthmus.slurmjob.record import AttemptStatus
from isthmus.slurmjob.slices import delete_own_slice

_log = logging.getLogger(__name__)


async def refuse(api: ApiServer, store: Store, raw: Object, *, problem: str) -> None:
    """Say in its status why it is refused; without our finalizer where it is being deleted.

    It leaves the membership. A forward is closed by its supervisor, by the same rule.

    Raises:
        ApiError: a write failed.
    """
    await delete_own_slice(api, store, raw)
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
    status = AttemptStatus.read(job.value.status)
    told = replace(status, reason=Reason.SLURM_JOB_REFUSED, message=problem)
    await write_status(api, SLURM_JOBS, obj=raw, status=told.write())
