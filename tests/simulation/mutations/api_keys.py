"""Which worker is given which API key."""

from typing import Any
from unittest.mock import patch

from isthmus.slurmjob import attempt_keys
from isthmus.slurmjob.attempt_keys import AttemptKeys
from tests.simulation.mutations.register import Patches, mutation


@mutation()
def the_deployments_key_is_given_to_jobs() -> Patches:
    async def none(self: AttemptKeys, desired: Any, *, job_name: str) -> None:
        return

    return [patch.object(AttemptKeys, "digest", none)]


@mutation()
def all_attempts_have_one_key() -> Patches:
    original = attempt_keys.attempt_key

    def same(key: str, *, job_name: str, seed: str) -> str:
        return original(key, job_name="", seed=seed)

    return [patch.object(attempt_keys, "attempt_key", same)]
