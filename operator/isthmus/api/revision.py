"""The revision hash: changes when, and only when, workers must be replaced.

It is taken over what the user wrote, not over what it renders to: an operator upgrade with newer
derived defaults (an image, an argument of ours) then restarts nothing. Values that mean "nothing
said" (null, the schema's default, an empty list or map) are left out, so a field that is added
later changes no hash while it is neutral. Which API key the workers have is part of it, so that
a new key reaches them by the ordinary rollout. Numbers of workers and priorities are not part of
it; `health` is for pools on Kubernetes, whose probes stand in the pod template.
"""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Final

from isthmus.api.desired import Desired, Health, Pool
from isthmus.api.modeldeployment import ModelSpec, PoolSpec

HASH_VERSION: Final = 1
"""Part of the input: raise it only together with a way to adopt the old hashes."""

_POOL_PARTS: Final = frozenset({"worker", "engine", "kubernetes", "slurm"})


def neutral_free(value: object) -> object:
    """Return `value` without null fields and empty lists and maps, at any depth.

    An empty string stays: as a label's value or a variable's it says something.
    """
    if isinstance(value, Mapping):
        kept = {str(key): neutral_free(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if not _neutral(item)}
    if isinstance(value, Sequence) and not isinstance(value, str):
        # An entry of a list keeps its place even when it says nothing.
        return [neutral_free(item) for item in value]
    return value


def _neutral(value: object) -> bool:
    return value is None or (isinstance(value, list | dict) and not value)


def written_model(model: ModelSpec) -> Mapping[str, object]:
    """Return what the user wrote about the model, without neutral values."""
    dumped = model.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return _mapping(neutral_free(dumped))


def written_pool(pool: PoolSpec) -> Mapping[str, object]:
    """Return what the user wrote about a pool's workers, without neutral values."""
    dumped = pool.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    chosen = {key: value for key, value in dumped.items() if key in _POOL_PARTS}
    # `kubernetes: {}` is neutral and yet says on which scheduler the pool runs.
    backend = "kubernetes" if pool.kubernetes is not None else "slurm"
    return {"backend": backend, **_mapping(neutral_free(chosen))}


def _mapping(value: object) -> Mapping[str, object]:
    assert isinstance(value, dict)
    return value


def revision_hash(*, desired: Desired, pool: Pool) -> str:
    """Return ten characters (a-z, 2-7) for the revision of `pool` that is wanted now.

    The names of deployment and pool are part of it, so names made of the three parts (see
    `names.revision_object_name`) differ even where "a-b" + "c" and "a" + "b-c" read the same.
    Records made by hand, without `written`, are hashed by their values.
    """
    model = desired.model.written
    shape = pool.written
    health = _probes_of_pods(desired.health) if pool.backend == "kubernetes" else {}
    key = desired.api_key.digest if desired.api_key else None
    if key and desired.api_key and desired.api_key.shared_again and pool.backend == "slurm":
        key = f"{key}, shared"
    text = json.dumps(
        {
            "version": HASH_VERSION,
            "deployment": desired.name,
            "pool": pool.name,
            "model": dataclasses.asdict(desired.model) if model is None else model,
            "workers": _by_hand(pool) if shape is None else shape,
            **({"health": health} if health else {}),
            **({"apiKey": key} if key else {}),
        },
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
        default=dict,
    )
    digest = hashlib.sha256(text.encode()).digest()
    return base64.b32encode(digest[:10]).decode().lower()[:10]


def _probes_of_pods(health: Health) -> Mapping[str, object]:
    """Return what differs from the defaults.

    A pod's probes stand in its template, so a change of them needs new pods; workers on SLURM are
    probed by the operator, which takes up a change at once.
    """
    default = dataclasses.asdict(Health())
    plain = tuple(header for header in health.headers if header.value is not None)
    probes = dataclasses.replace(health, headers=plain)
    return {
        key: value for key, value in dataclasses.asdict(probes).items() if value != default[key]
    }


def _by_hand(pool: Pool) -> Mapping[str, object]:
    parts = dataclasses.asdict(pool)
    return {key: value for key, value in parts.items() if key in _POOL_PARTS}
