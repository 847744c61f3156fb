"""Derived defaults and the revision hash."""

import copy
import dataclasses
import random

import hypothesis.strategies as st
import pytest
from hypothesis import given
from pydantic import Field, create_model

from isthmus.api.defaults import effective
from isthmus.api.desired import ClusterReference, Desired, EngineType
from isthmus.api.engine import EngineSpec
from isthmus.api.modeldeployment import ModelDeployment, ModelSpec, PoolSpec, WorkerSpec
from isthmus.api.revision import revision_hash, written_model, written_pool
from tests.wrong_inputs import GOOD, REMOVE, changed

BASE = changed(GOOD["ModelDeployment"], {"metadata.uid": "u1", "metadata.generation": 4})
SMALLEST = {
    "metadata": {"name": "llama", "namespace": "default", "uid": "u1"},
    "spec": {"model": {"source": "hf://org/llama"}, "pools": [{"kubernetes": {}}]},
}


def desired(body: dict, **changes: object) -> Desired:
    return effective(ModelDeployment.model_validate(changed(body, changes)))


def hashes(body: dict, **changes: object) -> list[str]:
    made = desired(body, **changes)
    return [revision_hash(desired=made, pool=pool) for pool in made.pools]


def test_smallest_object():
    made = desired(SMALLEST)
    (pool,) = made.pools
    assert (made.namespace, made.name, made.uid, made.replicas) == ("default", "llama", "u1", 1)
    assert made.model.served_names == ("org/llama",)
    assert (pool.name, pool.backend, pool.max_replicas) == ("default", "kubernetes", None)
    assert pool.engine.type is EngineType.VLLM
    assert pool.engine.image == "vllm/vllm-openai:v0.33.0"
    assert pool.engine.args == ()
    assert made.health.startup_timeout == 1800.0
    assert not made.deleting


def test_everything_that_is_written_arrives():
    made = desired(BASE)
    k8s, hpc = made.pools
    assert (made.generation, made.replicas) == (4, 3)
    assert (made.health.startup_timeout, made.health.interval) == (300.0, 1.0)
    assert k8s.kubernetes is not None
    assert k8s.kubernetes.node_selector == {"gpu": "h100"}
    assert k8s.kubernetes.tolerations == ({"key": "gpu", "operator": "Exists"},)
    assert k8s.engine.env[1].value_from == {"secretKeyRef": {"name": "hf", "key": "token"}}
    assert k8s.worker.cpu == "7500m"
    assert hpc.backend == "slurm"
    assert hpc.slurm is not None
    assert hpc.slurm.cluster == ClusterReference(namespace="isthmus-system", name="hpc")
    assert hpc.slurm.time_limit_minutes == 90
    assert hpc.slurm.partitions == ("gpu", "gpu-long")
    assert hpc.worker.cpu == "8"
    assert hpc.engine.env[0].value == ""


def test_a_slurm_pool_runs_sglang_without_an_image():
    made = desired(SMALLEST, **{"spec.pools": [{"slurm": {"clusterRef": {"name": "hpc"}}}]})
    (pool,) = made.pools
    assert (pool.engine.type, pool.engine.image) == (EngineType.SGLANG, None)
    assert pool.slurm is not None
    assert pool.slurm.time_limit_minutes is None


def test_a_cluster_is_looked_for_in_the_operators_namespace():
    body = changed(SMALLEST, {"spec.pools": [{"slurm": {"clusterRef": {"name": "hpc"}}}]})
    made = effective(ModelDeployment.model_validate(body), operator_namespace="ops")
    assert made.pools[0].slurm is not None
    assert made.pools[0].slurm.cluster == ClusterReference(namespace="ops", name="hpc")


def test_sglang_on_kubernetes_has_its_own_image():
    made = desired(SMALLEST, **{"spec.pools[0].engine": {"type": "sglang"}})
    assert made.pools[0].engine.image == "lmsysorg/sglang:v0.5.23"


@pytest.mark.parametrize(
    ("source", "name"),
    [("hf://org/llama", "org/llama"), ("/models/llama-8b", "llama-8b"), ("/llama", "llama")],
)
def test_served_name_comes_from_the_source(source, name):
    assert desired(SMALLEST, **{"spec.model.source": source}).model.served_names == (name,)


@pytest.mark.parametrize(
    ("engine", "args", "expected"),
    [
        ("vllm", [], ["--tensor-parallel-size=4"]),
        ("sglang", [], ["--tp-size=4"]),
        ("vllm", ["--seed=1"], ["--seed=1", "--tensor-parallel-size=4"]),
        ("vllm", ["--tensor-parallel-size=2"], None),
        ("vllm", ["--tensor_parallel_size", "2"], None),
        ("vllm", ["--tensor=2"], None),
        ("vllm", ["-tp", "2"], None),
        ("vllm", ["-pp=4"], None),
        ("sglang", ["--tp", "4"], None),
        ("sglang", ["--dp-size=4"], None),
        ("vllm", ["--tokenizer=x"], ["--tokenizer=x", "--tensor-parallel-size=4"]),
    ],
)
def test_gpus_become_tensor_parallelism_unless_said_otherwise(engine, args, expected):
    pool = {"worker": {"gpusPerNode": 4}, "engine": {"type": engine, "args": args}}
    made = desired(SMALLEST, **{"spec.pools": [{**pool, "kubernetes": {}}]})
    assert list(made.pools[0].engine.args) == (args if expected is None else expected)


@pytest.mark.parametrize("gpus", [0, 1])
def test_one_gpu_needs_no_parallelism(gpus):
    assert (
        desired(SMALLEST, **{"spec.pools[0].worker": {"gpusPerNode": gpus}}).pools[0].engine.args
        == ()
    )


def test_deletion_is_seen():
    assert desired(SMALLEST, **{"metadata.deletionTimestamp": "2026-11-21T05:31:00Z"}).deleting


# --- revision ---------------------------------------------------------------------------------


def test_hashes_are_known_ones():
    """They must not change with a release: every worker would be replaced. See HASH_VERSION."""
    assert hashes(SMALLEST) == ["rqqcwdp5u2"]
    later = ("imagePullSecrets", "runtimeClassName", "securityContext")
    changes = {f"spec.pools[0].kubernetes.{field}": REMOVE for field in later}
    without = changed(BASE, {"spec.health.headers": REMOVE, **changes})
    assert hashes(without) == ["pdct2pw7pn", "xu67kkfehk"]


@pytest.mark.parametrize(
    "changes",
    [
        {"spec.replicas": 7},
        {"spec.pools[0].priority": 9},
        {"spec.pools[0].minReplicas": 0},
        {"spec.pools[0].maxReplicas": 9},
        {"metadata.uid": "u2"},
        {"metadata.generation": 99},
        {"spec.pools[1].worker.gpusPerNode": 1},
        {"spec.pools[1].worker.memory": None},
        {"spec.pools[0].worker.sharedMemory": None},
        {"spec.pools[1].kubernetes": None},
        {"spec.pools[0].kubernetes.gpuResource": "nvidia.com/gpu"},
        {"spec.pools[1].worker.cpu": "8"},
    ],
    ids=str,
)
def test_what_restarts_nothing(changes):
    assert hashes(BASE, **changes) == hashes(BASE)


@pytest.mark.parametrize(
    ("changes", "pools"),
    [
        ({"spec.model.source": "hf://org/other"}, {0, 1}),
        ({"spec.model.revision": "v2"}, {0, 1}),
        ({"spec.model.servedNames": ["a"]}, {0, 1}),
        ({"metadata.name": "other"}, {0, 1}),
        ({"spec.pools[0].engine.args": ["--max-model-len=4096"]}, {0}),
        ({"spec.health": {"startupTimeout": "1h"}}, {0}),
        ({"spec.pools[0].engine.image": "other:1"}, {0}),
        ({"spec.pools[0].engine.env[0].value": "/other"}, {0}),
        ({"spec.pools[0].kubernetes.nodeSelector": {"gpu": "a100"}}, {0}),
        ({"spec.pools[0].name": "other"}, {0}),
        ({"spec.pools[1].worker.gpusPerNode": 2}, {1}),
        ({"spec.pools[1].slurm.timeLimit": "2h"}, {1}),
        ({"spec.pools[1].slurm.partitions": ["gpu-long", "gpu"]}, {1}),
        ({"spec.pools[1].engine.env[0].value": "INFO"}, {1}),
    ],
    ids=str,
)
def test_what_replaces_workers(changes, pools):
    before, after = hashes(BASE), hashes(BASE, **changes)
    assert {index for index in range(2) if before[index] != after[index]} == pools


def test_names_of_three_parts_do_not_meet():
    first = changed(SMALLEST, {"metadata.name": "a-b", "spec.pools[0].name": "c"})
    second = changed(SMALLEST, {"metadata.name": "a", "spec.pools[0].name": "b-c"})
    assert hashes(first) != hashes(second)


def test_the_scheduler_counts():
    placement = {"slurm": {"clusterRef": {"name": "hpc"}}}
    assert hashes(SMALLEST) != hashes(SMALLEST, **{"spec.pools": [placement]})


def test_derived_defaults_do_not_count(monkeypatch):
    before = hashes(SMALLEST)
    monkeypatch.setattr(
        "isthmus.api.defaults.DEFAULT_IMAGES", {EngineType.VLLM: "vllm/vllm-openai:v9.9.9"}
    )
    assert desired(SMALLEST).pools[0].engine.image == "vllm/vllm-openai:v9.9.9"
    assert hashes(SMALLEST) == before


def test_a_new_field_that_says_nothing_does_not_count():
    """As in an operator with more fields, whose defaults the API server fills in."""
    new = {
        "later": (str | None, None),
        "later_list": (tuple[str, ...], ()),
        "later_map": (dict[str, str], Field(default_factory=dict)),
        "later_number": (int, 3),
    }
    worker = create_model("LaterWorker", __base__=WorkerSpec, **new)
    engine = create_model("LaterEngine", __base__=EngineSpec, **new)
    pool = create_model(
        "LaterPool",
        __base__=PoolSpec,
        worker=(worker, worker()),
        engine=(engine, engine()),
        **new,
    )
    model = create_model("LaterModel", __base__=ModelSpec, **new)
    filled = {"later": None, "laterList": [], "laterMap": {}, "laterNumber": 3}
    for body in (BASE, SMALLEST):
        source = body["spec"]["model"]
        before = written_model(ModelSpec.model_validate(source))
        assert written_model(model.model_validate(source)) == before
        assert written_model(model.model_validate({**source, **filled})) == before
        for written in body["spec"]["pools"]:
            known = written_pool(PoolSpec.model_validate(written))
            assert written_pool(pool.model_validate(written)) == known
            grown = {
                **written,
                **filled,
                "worker": {**written.get("worker", {}), **filled},
                "engine": {**written.get("engine", {}), **filled},
            }
            assert written_pool(pool.model_validate(grown)) == known
            said = {**grown, "worker": {**grown["worker"], "laterNumber": 4}}
            assert written_pool(pool.model_validate(said)) != known


def test_an_empty_label_value_counts():
    path = "spec.pools[0].kubernetes"
    empty = hashes(SMALLEST, **{path: {"nodeSelector": {"gpu": ""}}})
    assert empty != hashes(SMALLEST, **{path: {"nodeSelector": {}}}) == hashes(SMALLEST)


@given(st.randoms(use_true_random=False))
def test_the_order_of_map_keys_does_not_count(order: random.Random):
    def shuffled(value: object) -> object:
        if isinstance(value, dict):
            keys = list(value)
            order.shuffle(keys)
            return {key: shuffled(value[key]) for key in keys}
        return [shuffled(one) for one in value] if isinstance(value, list) else value

    body = shuffled(copy.deepcopy(BASE))
    assert isinstance(body, dict)
    assert hashes(body) == hashes(BASE)


@given(st.lists(st.text(min_size=1), max_size=4), st.lists(st.text(min_size=1), max_size=4))
def test_different_arguments_are_different_revisions(first: list[str], second: list[str]):
    same = hashes(SMALLEST, **{"spec.pools[0].engine": {"args": first}}) == hashes(
        SMALLEST, **{"spec.pools[0].engine": {"args": second}}
    )
    assert same == (first == second)


def test_records_made_by_hand_are_hashed_by_value():
    made = desired(SMALLEST)
    by_hand = dataclasses.replace(made.pools[0], written=None)
    other = dataclasses.replace(
        by_hand, engine=dataclasses.replace(by_hand.engine, args=("--seed=1",))
    )
    assert revision_hash(desired=made, pool=by_hand) != revision_hash(desired=made, pool=other)
