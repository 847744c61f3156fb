"""Which fields of the statuses of our kinds are written while a world lives."""

import contextlib
from collections.abc import Iterator
from typing import Any, Final
from unittest import mock

from tests.drawn_specs import ITEM, Path, leaves, schema
from tests.simulation import apiserver, statuses

KINDS: Final = ("ModelDeployment", "SlurmCluster", "SlurmJob")


def declared() -> set[Path]:
    """(kind, step, …) of every field of a status that has none below itself."""
    return {
        (kind, *path) for kind in KINDS for path, _ in leaves(schema(kind)["properties"]["status"])
    }


def written(kind: str, status: Any) -> set[Path]:
    """The same of one status as it is stored."""
    return set(_below(status, (kind,)))


def _below(value: Any, path: Path) -> Iterator[Path]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _below(item, (*path, key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _below(item, (*path, ITEM))
    elif value is not None:
        yield path


@contextlib.contextmanager
def noted() -> Iterator[set[Path]]:
    """Fields that any operator writes in the meantime, in simulated worlds."""
    found: set[Path] = set()

    def taken(kind: str, status: Any) -> str:
        refused = statuses.refusal(kind, status)
        if kind in KINDS and not refused:
            found.update(written(kind, status))
        return refused

    with mock.patch.object(apiserver, "refusal", taken):
        yield found
