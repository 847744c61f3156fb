"""Which key a worker wants, and when it is published for the front."""

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from isthmus.api import names
from isthmus.apiserver.objects import Object
from isthmus.front.publish import PATIENCE_SECONDS, Publisher
from isthmus.routing.members import Worker, workers
from isthmus.routing.slices import LABEL_SLICE_MANAGED_BY
from isthmus.routing.worker_keys import deployments_annotation, held_keys

POD = Worker("10.0.0.1", 8000, workload="llama-k8s-abc")
JOB = Worker("10.0.1.1", 41000, key="dig2")


def secret(keys: Mapping[str, str], deployments: Mapping[str, str]) -> Object:
    return {
        "metadata": {
            "annotations": {
                names.ANNOTATION_DEPLOYMENT_KEYS: deployments_annotation(deployments.items())
            }
        },
        "data": {name: base64.b64encode(key.encode()).decode() for name, key in keys.items()},
    }


HELD = secret({"dig1": "key-1", "dig1.yaml": "x", "dig2": "key-2"}, {"llama-k8s-abc": "dig1"})


def test_slices_tell_the_digest_of_a_job_and_the_deployment_of_a_pod() -> None:
    port = [{"name": "http", "port": 8000}]
    pods: Object = {
        "addressType": "IPv4",
        "ports": port,
        "endpoints": [
            {
                "addresses": ["10.0.0.1"],
                "targetRef": {"kind": "Pod", "name": "llama-k8s-abc-9f8d44d58-tzdkv"},
            }
        ],
    }
    job: Object = {
        "metadata": {
            "labels": {names.LABEL_KEY: "dig2", LABEL_SLICE_MANAGED_BY: names.GROUP},
            "ownerReferences": [{"kind": "SlurmJob", "name": "llama-hpc-0", "uid": "j"}],
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 41000}],
        "endpoints": [{"addresses": ["10.0.1.1"]}],
    }
    assert workers([pods, job]) == (POD, JOB)


def test_each_worker_has_the_key_that_it_was_started_with() -> None:
    held = held_keys(HELD)
    assert held.key(digest="", workload="llama-k8s-abc") == "key-1"
    assert held.key(digest="dig2", workload="") == "key-2"
    assert held.key(digest="", workload="") == ""
    assert held.key(digest="", workload="llama-k8s-new") is None
    assert held.key(digest="dig3", workload="") is None
    assert "key-1" not in repr(held)


def test_a_secret_that_cannot_be_read_holds_nothing() -> None:
    assert held_keys({}).key(digest="dig1", workload="") is None
    broken = {"metadata": {"annotations": {names.ANNOTATION_DEPLOYMENT_KEYS: "[1"}}}
    assert held_keys({**broken, "data": {"dig1": "%"}}).key(digest="dig1", workload="") is None


class Source:
    def __init__(self, found: Object | None) -> None:
        self.found, self.reads = found, 0

    async def secret(self, name: str) -> Object | None:
        self.reads += 1
        return self.found


class World:
    def __init__(self, found: Object | None, *, name: str = "llama-worker-keys") -> None:
        self.now = 0.0
        self.source = Source(found)
        self.published: list[dict[Worker, str]] = []
        self.publisher = Publisher(
            source=self.source,
            secret=name,
            publish=lambda keys: self.published.append(dict(keys)),
            clock=lambda: self.now,
        )


async def test_workers_are_published_with_their_keys_and_the_secret_is_read_once() -> None:
    world = World(HELD)
    world.publisher.changed((POD, JOB))
    assert await world.publisher.publish_once() is False
    assert world.published == [{POD: "key-1", JOB: "key-2"}]
    assert await world.publisher.publish_once() is False
    assert world.source.reads == 1


async def test_a_worker_whose_key_is_not_written_down_yet_is_held_back() -> None:
    world = World(secret({"dig1": "key-1"}, {"llama-k8s-abc": "dig1"}))
    world.publisher.changed((POD, JOB))
    assert await world.publisher.publish_once() is True
    assert world.published[-1] == {POD: "key-1"}
    world.source.found = HELD
    assert await world.publisher.publish_once() is False
    assert world.published[-1] == {POD: "key-1", JOB: "key-2"}


@pytest.mark.parametrize("late", [replace(POD, workload="llama-k8s-new"), replace(JOB, key="new")])
async def test_m4_a_worker_is_never_published_without_its_key(
    late: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    """A keyless member would be sent other workers' keys by retries; it is told, once."""
    world = World(HELD)
    world.publisher.changed((POD, late))
    for world.now in (0.0, PATIENCE_SECONDS, 100 * PATIENCE_SECONDS):
        assert await world.publisher.publish_once() is True
        assert world.published[-1] == {POD: "key-1"}
    (line,) = [record.getMessage() for record in caplog.records]
    assert str(late) in line
    assert "key-1" not in line


def foreign(**changes: Any) -> Object:
    """A slice that somebody wrote by hand."""
    return {
        "metadata": {"labels": {names.LABEL_KEY: "dig2"}, **changes},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 41000}],
        "endpoints": [{"addresses": ["10.0.1.9"]}],
    }


@pytest.mark.parametrize(
    "added",
    [
        foreign(),
        foreign(ownerReferences=[{"kind": "SlurmJob", "name": "x", "uid": "j"}]),
        foreign(ownerReferences=[{"kind": "Deployment"}, None]),
        foreign(ownerReferences={"kind": "SlurmJob"}),
    ],
)
async def test_m4_what_somebody_added_to_the_membership_gets_neither_requests_nor_a_key(
    added: Object,
) -> None:
    world = World(HELD)
    world.publisher.changed((*workers([added]), POD))
    assert await world.publisher.publish_once() is True
    assert world.published[-1] == {POD: "key-1"}
    keyless = World(None)  # of a deployment without keys it is a worker as any other
    keyless.publisher.changed(workers([added]))
    assert await keyless.publisher.publish_once() is False
    assert list(keyless.published[-1].values()) == [""]


async def test_a_job_that_began_before_its_deployment_had_a_key_goes_on_without_one() -> None:
    world = World(HELD)
    old = replace(JOB, key="")
    world.publisher.changed((old,))
    assert await world.publisher.publish_once() is False
    assert world.published[-1] == {old: ""}


async def test_while_a_key_is_missing_a_new_membership_is_published_at_once() -> None:
    """The pause between two looks for a key ends where workers come or go."""
    world = World(HELD)
    late = replace(POD, workload="llama-k8s-new")
    world.publisher.changed((POD, late))
    running = asyncio.create_task(world.publisher.run())
    async with asyncio.timeout(10):
        while not world.published:  # noqa: ASYNC110
            await asyncio.sleep(0)
        world.now = PATIENCE_SECONDS
        before = len(world.published)
        world.publisher.changed((late,))
        while len(world.published) == before or world.published[-1]:  # noqa: ASYNC110
            await asyncio.sleep(0)
    running.cancel()


async def test_without_a_secret_no_pod_has_a_key_and_nothing_is_read_again() -> None:
    world = World(None)
    world.publisher.changed((POD,))
    assert await world.publisher.publish_once() is False
    assert await world.publisher.publish_once() is False
    assert world.published[-1] == {POD: ""}
    assert world.source.reads == 1
    world.source.found = HELD
    world.publisher.changed((POD, JOB))
    assert await world.publisher.publish_once() is False
    assert world.published[-1] == {POD: "key-1", JOB: "key-2"}


async def test_where_the_key_was_taken_away_a_new_pod_is_not_held_back() -> None:
    world = World(secret({"dig1": "key-1"}, {"llama-k8s-old": "dig1", "*": ""}))
    world.publisher.changed((POD,))
    assert await world.publisher.publish_once() is False
    assert world.published[-1] == {POD: ""}


async def test_a_key_given_again_is_not_missed() -> None:
    """What was said of all other Deployments is for those that were there, not for later ones."""
    old = replace(POD, address="10.0.0.9", workload="llama-k8s-old")
    world = World(secret({}, {"*": ""}))
    world.publisher.changed((old,))
    await world.publisher.publish_once()
    world.source.found = secret({"dig1": "key-1"}, {"llama-k8s-old": "", "llama-k8s-abc": "dig1"})
    world.publisher.changed((old, POD))
    assert await world.publisher.publish_once() is False
    assert world.published[-1] == {old: "", POD: "key-1"}


async def test_a_front_without_the_name_of_a_secret_never_asks() -> None:
    world = World(HELD, name="")
    world.publisher.changed((POD, JOB))
    assert await world.publisher.publish_once() is False
    assert world.published[-1] == {POD: "", JOB: ""}
    assert world.source.reads == 0


def test_the_annotation_is_the_same_for_the_same_deployments() -> None:
    pairs = [("b", "2"), ("a", "1")]
    assert deployments_annotation(pairs) == deployments_annotation(reversed(pairs))
    assert json.loads(deployments_annotation(pairs)) == {"a": "1", "b": "2"}


@pytest.mark.parametrize("depth", [200, 900, 990, 5000, 100_000])
async def test_c1_an_annotation_that_is_nested_deeply_says_nothing(depth: int) -> None:
    """Whoever may change Secrets may write it: neither operator nor front ends for it."""
    for text in ('{"a": ' + "[" * depth + "]" * depth + "}", "[" * depth, '{"a": 1, "b": "dig1"}'):
        odd = {**HELD, "metadata": {"annotations": {names.ANNOTATION_DEPLOYMENT_KEYS: text}}}
        held = held_keys(odd)
        assert dict(held.deployments) in ({}, {"b": "dig1"})
        assert held.key(digest="dig2", workload="") == "key-2"
        world = World(odd)
        world.publisher.changed((JOB,))
        await world.publisher.publish_once()
        assert world.published == [{JOB: "key-2"}]


def test_a_value_that_is_no_base64_is_no_key() -> None:
    assert held_keys({"data": {"a": "\xe9", "b": "x", "c": 1}}).values == {}
