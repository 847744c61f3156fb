"""What a front lets through, as the operator tells its sidecar: one environment variable.

A variable, because an older front does not mind one that it does not know, as it would an argument.
Both sides read and write it by this module. What is missing in it or cannot be read has the value
that lets the least through.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from isthmus.engines import ENGINES
from isthmus.engines.paths import EnginePath, union

ENVIRONMENT = "ISTHMUS_FRONT"
MEMORY_ENVIRONMENT = "ISTHMUS_FRONT_MEMORY"
"""Bytes that Envoy's container may use, by the downward API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a front lets through.

    Attributes:
        engines: of the deployment; none known means all of them.
        administration: whether clients may change the engines.
        extra_paths: further paths of clients, as in `endpoint.extraPaths`.
    """

    engines: tuple[str, ...] = ()
    administration: bool = False
    extra_paths: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[EnginePath, ...]:
        """The paths of its engines."""
        known = [name for name in self.engines if name in ENGINES] or list(ENGINES)
        return union(ENGINES[name].paths for name in known)


def policy_text(policy: Policy) -> str:
    """The variable's value."""
    return json.dumps(
        {
            "engines": list(policy.engines),
            "administration": policy.administration,
            "extraPaths": list(policy.extra_paths),
        },
        sort_keys=True,
    )


def read_policy(text: str) -> Policy:
    """Read the variable; what is not known of it is skipped."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = {}
    if not isinstance(found, dict):
        found = {}
    return Policy(
        engines=_strings(found.get("engines")),
        administration=found.get("administration") is True,
        extra_paths=_strings(found.get("extraPaths")),
    )


def _strings(value: object) -> tuple[str, ...]:
    items: Iterable[object] = value if isinstance(value, list) else ()
    return tuple(item for item in items if isinstance(item, str))
