"""Names of what is made."""

from unittest.mock import patch

from isthmus.api import names
from tests.simulation.mutations.register import Patches, mutation


@mutation("long_named_deployment")
def a_workload_is_named_without_a_bound() -> Patches:
    """Finding B3."""

    def named(*, deployment: str, pool: str, revision: str) -> str:
        return f"{deployment}-{pool}-{revision}"

    return [patch.object(names, "workload_name", named)]
