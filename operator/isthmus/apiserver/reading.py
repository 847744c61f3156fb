"""Reads a stored object as far as it can be read, and says of what it cannot.

What is stored may be of a newer release: an operator that was rolled back finds fields that it does
not know, words that are none of its own, a text where it wants a number. That must never keep a
worker from being followed, drained and ended, so what cannot be read is left out, as after a
status that was wiped. Refusing unknown fields belongs to validation, which is the API server's.

Nothing new is made from an object that is read in part: what was left out may have been meant.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from isthmus.api.conditions import Phase
from isthmus.api.desired import Desired, Drain, Endpoint, Health, Model
from isthmus.api.durations import parse_duration
from isthmus.api.modeldeployment import DrainSpec, ModelDeployment
from isthmus.api.slurmcluster import SlurmCluster
from isthmus.api.slurmjob import SlurmJob
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.objects import Object
from isthmus.guarded import unreadable

M = TypeVar("M", bound=BaseModel)

_ROUNDS = 8
"""Of leaving out: what contains something that is missing is left out in the next one."""


@dataclass(frozen=True, slots=True)
class Reading(Generic[M]):
    """What could be read.

    Attributes:
        value: the object; None where something is lost without which there is none.
        problem: which fields cannot be read and why; "" if all can. Never what they hold.
        in_spec: whether one of them is of the spec: its user's or maker's intent.
    """

    value: M | None
    problem: str = ""
    in_spec: bool = False


def read(kind: type[M], raw: Object) -> Reading[M]:
    """Read an object of a kind, or a part of one."""
    rest = raw
    problems: list[str] = []
    in_spec = False
    for _ in range(_ROUNDS):
        try:
            value = kind.model_validate(rest)
        except ValidationError as error:
            problems.append(unreadable(error))
            in_spec = in_spec or any(one["loc"][:1] == ("spec",) for one in _errors(error))
            if rest is raw:
                rest = copy.deepcopy(dict(raw))
            if not all([_leave_out(rest, one["loc"]) for one in _errors(error)]):
                break
        else:
            return Reading(value, problems[0] if problems else "", in_spec)
    return Reading(None, problems[0], in_spec)


def read_job(raw: Object) -> Reading[SlurmJob]:
    """Read a SlurmJob; as the others a function of its own, by which `Derived` remembers it.

    One that was ready once and is in a phase that we do not know counts as ready until its probes
    say otherwise: a restart takes nobody out of rotation.
    """
    found = read(SlurmJob, raw)
    status = None if found.value is None else found.value.status
    if found.value is None or status is None or not found.problem:
        return found
    if status.phase is not None or not status.ever_ready:
        return found
    known = status.model_copy(update={"phase": Phase.READY})
    return replace(found, value=found.value.model_copy(update={"status": known}))


def read_cluster(raw: Object) -> Reading[SlurmCluster]:
    """Read a SlurmCluster."""
    return read(SlurmCluster, raw)


def read_deployment(raw: Object) -> Reading[ModelDeployment]:
    """Read a ModelDeployment."""
    return read(ModelDeployment, raw)


def to_be_deleted(raw: Object) -> Desired:
    """What is left to want of a ModelDeployment that is being deleted and cannot be read."""
    found = read_deployment(raw).value
    spec = None if found is None else found.spec
    drain = DrainSpec() if spec is None else spec.drain
    kind = "Managed" if spec is None else spec.endpoint.type
    return Desired(
        namespace=k8s.namespace(raw),
        name=k8s.name(raw),
        uid=k8s.uid(raw),
        generation=k8s.number(k8s.dig(raw, "metadata", "generation")) or 0,
        replicas=0,
        model=Model(source="", served_names=("",)),
        pools=(),
        health=Health(),
        drain=Drain(timeout=parse_duration(drain.timeout)),
        endpoint=Endpoint(type=kind),
        deleting=True,
    )


def _errors(error: ValidationError) -> list[dict[str, tuple[str | int, ...]]]:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    unique = {tuple(one["loc"]) for one in found}
    # The last entries of a list first: the places of those before it stay right.
    return [{"loc": loc} for loc in sorted(unique, key=_order, reverse=True)]


def _order(loc: tuple[str | int, ...]) -> list[tuple[int, str]]:
    return [(part, "") if isinstance(part, int) else (-1, part) for part in loc]


def _leave_out(obj: object, loc: tuple[str | int, ...]) -> bool:
    """Take a field away; where it is missing, what it is missing from. Returns whether it could."""
    way: list[tuple[object, str | int]] = []
    here = obj
    for part in loc:
        if isinstance(here, Mapping) and part in here:
            way.append((here, part))
            here = here[str(part)]
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            way.append((here, part))
            here = here[part]
        else:
            break  # missing, or the name of an alternative
    if not way or (len(way) == 1 and way[0][1] in ("metadata", "spec")):
        return False
    parent, part = way[-1]
    assert isinstance(parent, dict | list)
    del parent[part]  # type: ignore[arg-type]  # a key of a dict, an index of a list
    return True
