"""Labels that somebody took from a SlurmJob."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from isthmus.api import names
from isthmus.api.desired import ApiKey, Desired, Endpoint
from isthmus.api.slurmjob import SlurmJob
from isthmus.modeldeployment.policy.lost_labels import job_labels, lost_labels
from tests.unit.builders import JOB_NAME, desired, slurm_pool

CURRENT = {"hpc": "new"}
LABELS = job_labels(deployment="llama", pool="hpc", revision="new", slot=0, cluster="hpc")
SOURCE = {names.ANNOTATION_KEY_SOURCE: "digest"}


def job(labels: dict[str, str], **metadata: Any) -> SlurmJob:
    return SlurmJob.model_validate(
        {
            "metadata": {
                "name": "llama-hpc-0",
                "namespace": "team-a",
                "uid": "u",
                "labels": labels,
                **metadata,
            },
            "spec": {
                "clusterRef": {"namespace": "isthmus-system", "name": "hpc"},
                "deployment": "llama",
                "pool": "hpc",
                "slot": 0,
                "attempt": "x7k2qp",
                "revision": "new",
                "jobName": JOB_NAME,
            },
        }
    )


def with_key(*, apart: bool) -> Desired:
    key = ApiKey(secret="llama-api-key", key="key", generated=True, digest="digest")
    kind = "Managed" if apart else "Service"
    return replace(desired(slurm_pool()), api_key=key, endpoint=Endpoint(type=kind))


def test_one_with_its_labels_gets_nothing() -> None:
    mine = LABELS | {"team": "a"}
    assert lost_labels(job(mine), desired=desired(slurm_pool()), current=CURRENT) is None


def test_what_was_taken_or_changed_comes_back_and_no_more() -> None:
    left = {k: v for k, v in LABELS.items() if k != names.LABEL_POOL} | {names.LABEL_SLOT: "7"}
    found = lost_labels(job(left), desired=desired(slurm_pool()), current=CURRENT)
    assert found is not None
    assert found.labels == {names.LABEL_POOL: "hpc", names.LABEL_SLOT: "0"}
    assert found.key_of is None


@pytest.mark.parametrize(
    ("apart", "annotations", "current", "comes_back"),
    [
        (True, SOURCE, CURRENT, True),
        (True, {names.ANNOTATION_KEY_SOURCE: "older"}, CURRENT, False),
        (True, {}, CURRENT, False),  # started with the deployment's key, or nobody knows
        (True, SOURCE, {"hpc": "newer"}, False),
        (False, {}, CURRENT, True),
        (False, SOURCE, CURRENT, False),
        (False, {}, {}, False),
    ],
)
def test_its_key_comes_back_where_it_follows(
    apart: bool, annotations: dict[str, str], current: dict[str, str], comes_back: bool
) -> None:
    stripped = job(LABELS, annotations=annotations)
    found = lost_labels(stripped, desired=with_key(apart=apart), current=current)
    assert (found is not None) is comes_back
    if found is not None:
        assert found.key_of == JOB_NAME
    there = job({**LABELS, names.LABEL_KEY: "d"}, annotations=annotations)
    assert lost_labels(there, desired=with_key(apart=apart), current=current) is None


def test_one_that_goes_is_left_alone() -> None:
    gone = job({}, deletionTimestamp="2026-01-01T00:00:00Z")
    assert lost_labels(gone, desired=desired(slurm_pool()), current=CURRENT) is None
