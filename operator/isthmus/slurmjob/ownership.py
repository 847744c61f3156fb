"""Which SlurmJobs count: those that a ModelDeployment owns, by the name that follows from it. Pure.

Whoever may write SlurmJobs could else have any job of the account adopted or cancelled under its
name, and a way into the cluster's network held. The name of a job is made of its owner's uid, which
only the API server gives, so it proves whose the job is; the owner itself must be there for
anything to begin. What runs when its owner is gone (its finalizer was taken away) is followed and
ended by its name.
"""

from dataclasses import dataclass

from isthmus.api import names
from isthmus.apiserver.objects import Object, dig, name, namespace, uid
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS, SLURM_JOBS
from isthmus.apiserver.store import Store


@dataclass(frozen=True, slots=True)
class Ownership:
    """Whose a SlurmJob is.

    Attributes:
        problem: why it counts for nothing, "" if it counts.
        owner_is_there: its ModelDeployment is in the store.
    """

    problem: str = ""
    owner_is_there: bool = True


def ownership(raw: Object, *, store: Store, installation_id: str = "") -> Ownership:
    """Judge one SlurmJob.

    Args:
        raw: as stored.
        store: where it lies, and its owner.
        installation_id: ours, in the names of our jobs; "" where it is not known.
    """
    claim = store.derived.of(raw, _claim)
    owner, parts = claim.owner, claim.parts
    if not owner:
        return Ownership(
            "no ModelDeployment of the name spec.deployment controls it (metadata.ownerReferences):"
            " the operator alone makes SlurmJobs, from ModelDeployments; delete it"
        )
    if parts is None:
        return Ownership(
            "spec.jobName is not the name that follows from its owner, slot and attempt, so no job "
            "is taken for its own and none is cancelled for it; delete it"
        )
    found = store.get(MODEL_DEPLOYMENTS, namespace(raw), parts.deployment)
    if found is not None and uid(found) == owner:
        return Ownership()
    if installation_id and parts.installation_id != installation_id:
        return Ownership(
            f"its ModelDeployment is gone, and its job is of installation {parts.installation_id}, "
            f"not of {installation_id}; delete it"
        )
    if _claimed_by_another(raw, store=store):
        return Ownership(
            "its ModelDeployment is not there, and the job of this name belongs to another "
            "SlurmJob; delete it",
        )
    return Ownership(owner_is_there=False)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a SlurmJob itself says of whose it is.

    Attributes:
        owner: uid of the ModelDeployment that controls it, "" for none.
        parts: of the name of its job; None where that does not follow from the rest.
    """

    owner: str
    parts: names.SlurmJobName | None


def _claim(raw: Object) -> _Claim:
    owner, job_name = _controller_uid(raw), _text(raw, "spec", "jobName")
    parts = names.parse_slurm_job_name(job_name)
    if parts is not None:
        meant = _meant(raw, owner=owner, installation_id=parts.installation_id)
        parts = parts if meant == job_name else None
    return _Claim(owner=owner, parts=parts)


def _controller_uid(raw: Object) -> str:
    """Uid of the ModelDeployment that controls it and that it names, "" for none."""
    owners = dig(raw, "metadata", "ownerReferences")
    for owner in owners if isinstance(owners, list | tuple) else ():
        if (
            dig(owner, "controller") is True
            and dig(owner, "kind") == MODEL_DEPLOYMENTS.kind
            and _text(owner, "apiVersion").partition("/")[0] == names.GROUP
            and dig(owner, "name") == dig(raw, "spec", "deployment")
        ):
            return _text(owner, "uid")
    return ""


def _meant(raw: Object, *, owner: str, installation_id: str) -> str:
    slot = dig(raw, "spec", "slot")
    return names.slurm_job_name(
        deployment=_text(raw, "spec", "deployment"),
        installation_id=installation_id,
        namespace=namespace(raw),
        uid=owner,
        slot=slot if type(slot) is int else -1,
        attempt=_text(raw, "spec", "attempt"),
    )


def _claimed_by_another(raw: Object, *, store: Store) -> bool:
    """Whether a SlurmJob whose owner is there has the same job.

    Asked only of one whose owner is not: the uid of an owner that is gone can be chosen, and ten
    digits of a hash be tried.
    """
    mine = dig(raw, "spec", "jobName")
    for other in store.list(SLURM_JOBS):
        if dig(other, "spec", "jobName") != mine or uid(other) == uid(raw):
            continue
        owner = _controller_uid(other)
        found = store.get(MODEL_DEPLOYMENTS, namespace(other), _text(other, "spec", "deployment"))
        if owner and found is not None and uid(found) == owner and name(found):
            return True
    return False


def _text(value: object, *path: str) -> str:
    found = dig(value, *path)
    return found if isinstance(found, str) else ""
