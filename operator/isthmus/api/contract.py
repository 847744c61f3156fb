"""What one component writes and another one reads: the contract between them, by version.

Operator, fronts and tunnel supervisors keep their own images over upgrades, so a new operator meets
old fronts and supervisors for weeks, and after a rollback an old operator meets new ones. Each word
has its one definition elsewhere (`names.py`, the models); here they stand together, with who writes
and who reads them, so that none is changed as if it were one component's own. Additions do not
change the version where a reader of before skips what it does not know. Supervisors of version 1
skip no field of SlurmJob.spec, but the whole object: a new fact about an attempt is an annotation.
"""

from dataclasses import dataclass
from typing import Final

from isthmus.api import names
from isthmus.api.slurmjob import ForwardStatus, SlurmJobSpec

VERSION: Final = 1
"""Raised when a reader of before would misread what is written now."""

OPERATOR: Final = "operator"
FRONT: Final = "front"
SUPERVISOR: Final = "tunnel supervisor"
SLICES: Final = "EndpointSlice"
KEYS: Final = f"Secret {names.worker_keys_secret('NAME')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One word that crosses from one component to another.

    Attributes:
        kind: of the object in which it stands.
        word: the label, the annotation, the field, the name.
        writers: who writes it.
        readers: who reads it.
    """

    kind: str
    word: str
    writers: tuple[str, ...]
    readers: tuple[str, ...]


def _slice(word: str, *, by: tuple[str, ...], to: tuple[str, ...]) -> Item:
    return Item(kind=SLICES, word=word, writers=by, readers=to)


def _fields(model: type[SlurmJobSpec] | type[ForwardStatus]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


_BOTH = (OPERATOR, SUPERVISOR)
_ALL = (OPERATOR, FRONT, SUPERVISOR)

ITEMS: Final[tuple[Item, ...]] = (
    _slice("kubernetes.io/service-name", by=_BOTH, to=_ALL),
    _slice("endpointslice.kubernetes.io/managed-by", by=_BOTH, to=_ALL),
    _slice(names.LABEL_MANAGED_BY, by=_BOTH, to=(OPERATOR,)),
    _slice(names.LABEL_DEPLOYMENT, by=_BOTH, to=_BOTH),
    _slice(names.LABEL_KEY, by=_BOTH, to=_ALL),
    _slice(names.LABEL_TUNNEL_HOST, by=(SUPERVISOR,), to=_BOTH),
    _slice(names.ANNOTATION_TUNNEL, by=(SUPERVISOR,), to=(OPERATOR,)),
    _slice(names.ANNOTATION_TUNNEL_MESSAGE, by=(SUPERVISOR,), to=(OPERATOR,)),
    _slice(names.ANNOTATION_TUNNEL_TARGET, by=(SUPERVISOR,), to=_BOTH),
    _slice("port http", by=_BOTH, to=(FRONT, OPERATOR)),
    _slice("ownerReferences kind SlurmJob", by=_BOTH, to=_ALL),
    _slice("endpoints conditions ready", by=_BOTH, to=_ALL),
    Item(kind=KEYS, word="data.DIGEST", writers=(OPERATOR,), readers=(FRONT,)),
    Item(
        kind=KEYS,
        word=names.ANNOTATION_DEPLOYMENT_KEYS,
        writers=(OPERATOR,),
        readers=(FRONT,),
    ),
    *(
        Item(kind="SlurmJob", word=f"spec.{field}", writers=(OPERATOR,), readers=(SUPERVISOR,))
        for field in _fields(SlurmJobSpec)
    ),
    *(
        Item(
            kind="SlurmJob",
            word=f"status.forward.{field}",
            writers=(OPERATOR,),
            readers=(SUPERVISOR,),
        )
        for field in _fields(ForwardStatus)
    ),
    *(
        Item(kind="SlurmJob", word=word, writers=(OPERATOR,), readers=(SUPERVISOR,))
        for word in ("status.phase", "status.host", "status.port", names.LABEL_KEY)
    ),
    *(
        Item(kind="Pod of a front", word=word, writers=(OPERATOR,), readers=(FRONT,))
        for word in (
            *("--service", "--keys-secret", "--directory", "--client-keys-secret"),
            *("ISTHMUS_FRONT", "ISTHMUS_FRONT_MEMORY"),
        )
    ),
    Item(
        kind="Lease",
        word="isthmus-tunnels-*",
        writers=(SUPERVISOR,),
        readers=(SUPERVISOR,),
    ),
)
"""The order is that of the flow: membership, keys, attempts, fronts."""
