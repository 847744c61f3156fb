"""All questions, in the order of the findings."""

import importlib
from typing import Final

from tests.before.findings import ALL, FOUND

MODULES: Final = (
    "attempts",
    "engines",
    "fairness",
    "front",
    "installation",
    "jobs",
    "keys",
    "passes",
    "pods",
    "routers",
    "slurmclusters",
    "slurm",
    "specs",
    "tunnels",
)

for _module in MODULES:
    importlib.import_module(f"tests.before.{_module}")

QUESTIONS: Final = tuple(sorted(ALL, key=lambda one: FOUND.index(one.id)))
