"""The API keys of clients of a front: what a Secret of them holds. Pure.

Each entry of the Secret is one client: its name, and its key. Read by the front, which asks for
them, and by the operator, which tells what is wrong, so that both mean the same.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from isthmus.api.base import ObjectName, SpecModel
from isthmus.api.keys import unusable

MOST_CLIENTS = 1000


class ClientKeysSecretRef(SpecModel):
    """A Secret in the ModelDeployment's namespace, of which each entry is one client's key."""

    name: ObjectName
    """Name of the Secret."""


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What a Secret holds.

    Attributes:
        keys: name of a client to its key.
        problems: of entries that are left out, as sentences without any key.
    """

    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    problems: tuple[str, ...] = ()


def client_keys(data: object) -> ClientKeys:
    """Read the `data` of a Secret; an entry that cannot be used is left out, and no other."""
    keys: dict[str, str] = {}
    problems: list[str] = []
    owners: dict[str, str] = {}
    entries: Mapping[str, object] = data if isinstance(data, Mapping) else {}
    for client, encoded in sorted(entries.items()):
        key = _decoded(encoded)
        problem = unusable(key)
        if not problem and key in owners:
            problem = f"it is also the key of {owners[key]}: give each client one of its own"
        if not problem and len(keys) >= MOST_CLIENTS:
            problem = f"there are more than {MOST_CLIENTS}"
        if problem:
            problems.append(f"entry {client}: {problem}")
            continue
        keys[client] = key
        owners[key] = client
    return ClientKeys(keys=keys, problems=tuple(problems))


def _decoded(encoded: object) -> str:
    try:
        return base64.b64decode(str(encoded), validate=True).decode().strip()
    except ValueError:  # not base64, or not UTF-8
        return ""
