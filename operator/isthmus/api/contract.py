"""What one component writes and another one reads: the contract between them, by version.

Operator, fronts and tunnel supervisors keep their own images over upgrades, so a new operator meets
old fronts and supervisors for weeks, and after a rollback an old operator meets new ones. Each word
has its one definition elsewhere (`names.py`, the models); here they stand together, with the form
of their values and who writes and who reads them, so that none is changed as if it were one
component's own. Additions do not change the version where a reader of before skips what it does not
know. Supervisors of version 1 skip no field of SlurmJob.spec, but the whole object: a new fact
about an attempt is an annotation.
"""

from dataclasses import dataclass
from typing import Final

from isthmus.api import names

VERSION: Final = 1
"""Raised when a reader of before would misread what is written now."""

OPERATOR: Final = "operator"
FRONT: Final = "front"
SUPERVISOR: Final = "tunnel supervisor"
SLICES: Final = "EndpointSlice"
KEYS: Final = f"Secret {names.worker_keys_secret('NAME')}"
FRONT_POD: Final = "Pod of a front"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One word that crosses from one component to another.

    Attributes:
        kind: of the object in which it stands.
        word: the label, the annotation, the field, the name.
        form: regular expression of its whole value; of what is no text, of its JSON.
        writers: who writes it.
        readers: who reads it.
    """

    kind: str
    word: str
    form: str
    writers: tuple[str, ...]
    readers: tuple[str, ...]


_BOTH = (OPERATOR, SUPERVISOR)
_ALL = (OPERATOR, FRONT, SUPERVISOR)

_NAME = "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_DIGEST = "[a-z2-7]{10}"
_PORT = "[1-9][0-9]{0,4}"
_ADDRESS = "[0-9a-z.:-]+"
_BOOLEAN = "true|false"
_PHASES = (
    "Waiting|Submitting|SubmitUnknown|Pending|Starting|Ready|Degraded|Draining|Terminating|"
    "Finished|Failed|Expired|Preempted|NodeFault"
)
_PATH = "/[^\\s]*"


def _slice(word: str, form: str, *, by: tuple[str, ...], to: tuple[str, ...]) -> Item:
    return Item(kind=SLICES, word=word, form=form, writers=by, readers=to)


def _job(word: str, form: str) -> Item:
    return Item(kind="SlurmJob", word=word, form=form, writers=(OPERATOR,), readers=(SUPERVISOR,))


def _front(word: str, form: str) -> Item:
    return Item(kind=FRONT_POD, word=word, form=form, writers=(OPERATOR,), readers=(FRONT,))


ITEMS: Final[tuple[Item, ...]] = (
    _slice("kubernetes.io/service-name", _NAME, by=_BOTH, to=_ALL),
    _slice("endpointslice.kubernetes.io/managed-by", "isthmus[.]dev", by=_BOTH, to=_ALL),
    _slice(names.LABEL_MANAGED_BY, "isthmus", by=_BOTH, to=(OPERATOR,)),
    _slice(names.LABEL_DEPLOYMENT, _NAME, by=_BOTH, to=_BOTH),
    _slice(names.LABEL_KEY, _DIGEST, by=_BOTH, to=_ALL),
    _slice(names.LABEL_TUNNEL_HOST, _NAME, by=(SUPERVISOR,), to=_BOTH),
    _slice(names.ANNOTATION_TUNNEL, "up|down", by=(SUPERVISOR,), to=(OPERATOR,)),
    _slice(names.ANNOTATION_TUNNEL_MESSAGE, ".{0,256}", by=(SUPERVISOR,), to=(OPERATOR,)),
    _slice(names.ANNOTATION_TUNNEL_TARGET, f"{_ADDRESS}:{_PORT}", by=(SUPERVISOR,), to=_BOTH),
    _slice("port http", _PORT, by=_BOTH, to=(FRONT, OPERATOR)),
    _slice("ownerReferences kind SlurmJob", _NAME, by=_BOTH, to=_ALL),
    _slice("endpoints conditions ready", _BOOLEAN, by=_BOTH, to=_ALL),
    Item(
        kind=KEYS,
        word="data.DIGEST",
        form=f"{_DIGEST}: [A-Za-z0-9._~+/=-]{{16,512}}",
        writers=(OPERATOR,),
        readers=(FRONT,),
    ),
    Item(
        kind=KEYS,
        word=names.ANNOTATION_DEPLOYMENT_KEYS,
        form=rf'\{{("([*]|{_NAME})":"({_DIGEST})?"(,(?="))?)*\}}',
        writers=(OPERATOR,),
        readers=(FRONT,),
    ),
    _job("spec.clusterRef", rf'\{{"name": "{_NAME}", "namespace": "{_NAME}"\}}'),
    _job("spec.deployment", _NAME),
    _job("spec.pool", _NAME),
    _job("spec.slot", "[0-9]{1,3}"),
    _job("spec.attempt", "[a-z0-9]{6}"),
    _job("spec.revision", "[a-z0-9]{1,16}"),
    _job("spec.jobName", f"{_NAME}-[a-z0-9]{{8}}-[0-9a-f]{{10}}-[0-9]{{1,3}}-[a-z0-9]{{6}}"),
    _job("spec.workDirectory", _PATH),
    _job("status.forward.mode", "Tunnel|NodeSSH|Reverse"),
    _job("status.forward.port", _PORT),
    _job("status.forward.publicKey", "ssh-ed25519 [A-Za-z0-9+/=]+"),
    _job("status.forward.inTraffic", _BOOLEAN),
    _job("status.forward.service", _NAME),
    _job("status.phase", _PHASES),
    _job("status.host", _ADDRESS),
    _job("status.port", _PORT),
    _job(names.LABEL_KEY, _DIGEST),
    _front("--service", f"{_NAME}/{_NAME}"),
    _front("--keys-secret", _NAME),
    _front("--directory", _PATH),
    _front("--client-keys-secret", _NAME),
    _front(
        "ISTHMUS_FRONT",
        r'\{"administration": (true|false), "engines": \[.*\], "extraPaths": \[.*\]\}',
    ),
    _front("ISTHMUS_FRONT_MEMORY", "limits[.]memory of envoy"),
    # By it the operator knows which of the words above a front understands (`front_version.py`).
    Item(
        kind=FRONT_POD,
        word="initContainerStatuses contract message",
        form="contract [0-9]{1,6}",
        writers=(FRONT,),
        readers=(OPERATOR,),
    ),
    Item(
        kind="Lease",
        word="isthmus-tunnels-*",
        form=f"isthmus-tunnels-{_NAME}",
        writers=(SUPERVISOR,),
        readers=(SUPERVISOR,),
    ),
)
"""The order is that of the flow: membership, keys, attempts, fronts."""
