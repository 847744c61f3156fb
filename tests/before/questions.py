"""All questions, and the findings that none can be put for."""

import importlib
from typing import Final

from tests.before.findings import ALL, Finding

MODULES: Final = (
    "engines",
    "front",
    "jobs",
    "passes",
    "pods",
    "routers",
    "slurm",
    "specs",
    "tunnels",
)

for _module in MODULES:
    importlib.import_module(f"tests.before.{_module}")


def _order(one: Finding) -> tuple[int, int]:
    """The critical ones first, and by number."""
    return "CHMLBF".index(one.id[0]), int(one.id[1:])


QUESTIONS: Final[tuple[Finding, ...]] = tuple(sorted(ALL, key=_order))

UNASKED: Final[dict[str, str]] = {}
"""Why, and where the fault was seen."""
