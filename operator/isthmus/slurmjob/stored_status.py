"""The status of an attempt as it lies in the store: read, and compared, once for each version.

Apart from the record, which knows no store. Most passes change nothing, and then nothing is written
back to its stored form either.
"""

from isthmus.api.slurmjob import SlurmJob
from isthmus.apiserver.objects import Object, name, namespace
from isthmus.apiserver.reading import Reading, read_job
from isthmus.apiserver.resources import SLURM_JOBS
from isthmus.apiserver.statuses import has_status
from isthmus.apiserver.store import Store
from isthmus.slurmjob.record import AttemptStatus


def stored_status(raw: Object, *, store: Store) -> AttemptStatus:
    """What a SlurmJob that lies in the store says of its attempt."""
    return store.derived.of_read(raw, read=read_job, make=_status)


def is_stored(raw: Object, status: AttemptStatus, *, store: Store) -> bool:
    """Whether a status is what the store has of this SlurmJob, so that nothing is to be written.

    False also where the object has changed meanwhile, or holds something that we would write
    otherwise: a text that is too long, a word that we do not know.
    """
    if store.get(SLURM_JOBS, namespace(raw), name(raw)) is not raw:
        return False
    return status == stored_status(raw, store=store) and store.derived.of(raw, _is_as_written)


def _is_as_written(raw: Object) -> bool:
    return has_status(raw, _status(read_job(raw)).write())


def _status(reading: Reading[SlurmJob]) -> AttemptStatus:
    return AttemptStatus.read(None if reading.value is None else reading.value.status)
