"""Which labels a SlurmJob of ours has lost, and gets back.

A SlurmJob is known by its owner, whatever its labels; but fronts, keys and people find it by them.
All follow from its spec but the one of its key, which follows from the deployment's key as long as
the attempt is of the current revision and says itself how it got it.
"""

from collections.abc import Mapping

from isthmus.api import names
from isthmus.api.desired import Desired
from isthmus.api.slurmjob import SlurmJob
from isthmus.modeldeployment.actions import RestoreLabels


def job_labels(
    *, deployment: str, pool: str, revision: str, slot: int, cluster: str
) -> dict[str, str]:
    """The labels of an attempt, but for that of its key."""
    return {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_DEPLOYMENT: deployment,
        names.LABEL_POOL: pool,
        names.LABEL_REVISION: revision,
        names.LABEL_SLOT: str(slot),
        names.LABEL_CLUSTER: cluster,
    }


def lost_labels(
    job: SlurmJob, *, desired: Desired, current: Mapping[str, str]
) -> RestoreLabels | None:
    """What is to be given back to a SlurmJob of ours, None for nothing.

    Args:
        job: as it is stored.
        desired: its deployment, with the digest of its key.
        current: pool name to its present revision.
    """
    if job.metadata.deleting:
        return None
    spec, found = job.spec, job.metadata.labels
    wanted = job_labels(
        deployment=spec.deployment,
        pool=spec.pool,
        revision=spec.revision,
        slot=spec.slot,
        cluster=spec.cluster_ref.name,
    )
    lost = {label: text for label, text in wanted.items() if found.get(label) != text}
    key = _key_is_lost(job, desired=desired, is_current=current.get(spec.pool) == spec.revision)
    if not lost and not key:
        return None
    return RestoreLabels(
        name=job.metadata.name,
        uid=job.metadata.uid,
        labels=lost,
        key_of=spec.job_name if key else None,
    )


def _key_is_lost(job: SlurmJob, *, desired: Desired, is_current: bool) -> bool:
    if desired.api_key is None or names.LABEL_KEY in job.metadata.labels or not is_current:
        return False
    source = job.metadata.annotations.get(names.ANNOTATION_KEY_SOURCE)
    if source is not None:
        return source == desired.api_key.digest and desired.endpoint.key_per_attempt
    return not desired.endpoint.key_per_attempt
