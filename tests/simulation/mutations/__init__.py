"""Deliberate breaks of the rules: the simulation is worth what it catches of these.

Each patches the project's own code in this process, in a file of its subject; `mutants` runs them.
"""

from tests.simulation.mutations import (
    api_keys,
    clusters,
    deployments,
    jobs,
    object_names,
    submissions,
    telling,
    tunnels,
)
from tests.simulation.mutations.register import MUTATIONS, Mutation, Patches

SUBJECTS = (api_keys, clusters, deployments, jobs, object_names, submissions, telling, tunnels)
"""Each takes its mutations into the register."""

__all__ = ["MUTATIONS", "SUBJECTS", "Mutation", "Patches"]
