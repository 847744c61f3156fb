"""Whatever an operator gives as a reason, in a status, a condition or an event, is a `Reason`.

Judged where etcd takes it. Words of schedulers stand in `pending.reason`, which is another field.
"""

from collections.abc import Iterator

from isthmus.api.reasons import Reason
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import (
    EVENTS,
    MODEL_DEPLOYMENTS,
    SLURM_CLUSTERS,
    SLURM_JOBS,
    Resource,
)
from tests.simulation.apiserver import Json

_WORDS = frozenset({"", *Reason})


def unknown_reasons(resource: Resource, obj: Json) -> list[str]:
    """The words that are no reasons of ours, in what an operator has written."""
    if resource not in {EVENTS, MODEL_DEPLOYMENTS, SLURM_CLUSTERS, SLURM_JOBS}:
        return []
    return [word for word in _said(resource, obj) if word not in _WORDS]


def _said(resource: Resource, obj: Json) -> Iterator[str]:
    if resource is EVENTS:
        yield obj["reason"]
        return
    status = obj.get("status") or {}
    yield status.get("reason") or ""
    for part in (*status.get("conditions", ()), *status.get("orphans", ())):
        yield str(k8s.dig(part, "reason", default="") or "")
