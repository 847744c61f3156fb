"""What a revision of a SLURM pool freezes, and what stays the cluster's."""

from __future__ import annotations

import json

import pytest

from isthmus.api.desired import (
    Engine,
    EngineType,
    EnvironmentVariable,
    Model,
    Pool,
    SlurmPlacement,
    Worker,
)
from isthmus.api.slurmcluster import SlurmClusterSpec
from isthmus.backends.slurm.frozen import (
    FrozenJob,
    freeze,
    from_json,
    job_template,
    site_facts,
    to_json,
)
from tests.unit.builders import CLUSTER, desired, k8s_pool, slurm_pool

POOL = slurm_pool(
    worker=Worker(gpus_per_node=2, gpu_type="h100", cpu="7500m", memory="64Gi"),
    engine=Engine(
        type=EngineType.SGLANG,
        args=("--mem-fraction-static=0.85", "--tp-size=2"),
        env=(EnvironmentVariable(name="NCCL_DEBUG", value="INFO"),),
    ),
    slurm=SlurmPlacement(
        cluster=CLUSTER,
        partitions=("gpu", "long"),
        account="proj",
        qos="serving",
        time_limit_minutes=480,
        sbatch_options=("--nice=100",),
    ),
)


def frozen(pool: Pool = POOL, **changes: object) -> FrozenJob:
    return freeze(desired=desired(pool, **changes), pool=pool)


def test_all_wishes_are_frozen() -> None:
    template = frozen().template
    assert (template.gpus, template.gpu_type) == (2, "h100")
    assert (template.cpus, template.memory_mib) == (8, 65536)
    assert template.partitions == ("gpu", "long")
    assert (template.account, template.qos, template.time_limit_minutes) == (
        "proj",
        "serving",
        480,
    )
    assert template.sbatch_options == ("--nice=100",)
    assert template.env == (("NCCL_DEBUG", "INFO"),)
    assert template.argv[-2:] == ("--mem-fraction-static=0.85", "--tp-size=2")
    assert (frozen().engine, frozen().served_name) == ("sglang", "llama")


def test_port_and_attempt_are_left_to_the_job() -> None:
    argv = frozen().template.argv
    assert "--port=@PORT@" in argv
    assert "--weight-version=@ATTEMPT@" in argv


def test_nothing_asked_for_is_nothing_frozen() -> None:
    template = frozen(slurm_pool()).template
    assert (template.cpus, template.memory_mib, template.time_limit_minutes) == (None, None, None)
    assert (template.account, template.qos, template.partitions) == (None, None, ())


@pytest.mark.parametrize(
    "pool", [POOL, slurm_pool(), slurm_pool(engine=Engine(type=EngineType.VLLM))]
)
def test_it_comes_back_from_json_as_it_was(pool: Pool) -> None:
    """Through the text of a ControllerRevision."""
    made = frozen(pool)
    assert from_json(json.loads(json.dumps(to_json(made)))) == made


def test_a_field_of_a_later_release_is_not_missed() -> None:
    """What an older release froze has no field that came later: its neutral value is taken."""
    data = to_json(frozen())
    template = data["template"]
    assert isinstance(template, dict)
    del template["sbatch_options"]
    assert from_json(data).template.sbatch_options == ()


class TestModel:
    def test_the_clusters_path_is_taken(self) -> None:
        found = job_template(frozen(), models={"hf://meta-llama/Llama-3.1-8B": "/models/llama"})
        assert "--model-path=/models/llama" in found.argv

    def test_a_correction_of_the_administrator_reaches_the_next_attempt(self) -> None:
        old = from_json(to_json(frozen()))
        source = "hf://meta-llama/Llama-3.1-8B"
        paths = [
            next(a for a in job_template(old, models={source: path}).argv if "model-path" in a)
            for path in ("/old", "/new")
        ]
        assert paths == ["--model-path=/old", "--model-path=/new"]

    def test_without_one_the_name_is_taken(self) -> None:
        found = job_template(frozen(), models={})
        assert "--model-path=meta-llama/Llama-3.1-8B" in found.argv

    def test_a_path_stays_a_path(self) -> None:
        model = Model(source="/models/own", served_names=("own",))
        found = job_template(frozen(model=model), models={})
        assert "--model-path=/models/own" in found.argv


def test_site_facts_are_the_clusters() -> None:
    spec = SlurmClusterSpec.model_validate(
        {
            "login": {"local": {}},
            "files": {"workDirectory": "/scratch/isthmus"},
            "network": {"ports": {"from": 41000, "to": 41009}},
            "defaults": {"partition": "gpu", "account": "proj", "timeLimit": "8h"},
            "site": {
                "gpuDirective": "gpus-per-node",
                "gpuTypes": {"h100": "nvidia_h100"},
                "exclusive": True,
                "modules": ["cuda/12"],
                "setup": "source /sw/env.sh",
            },
        }
    )
    facts = site_facts(spec)
    assert (facts.work_directory, facts.ports_from, facts.ports_to) == (
        "/scratch/isthmus",
        41000,
        41009,
    )
    assert (facts.default_partition, facts.default_account, facts.default_qos) == (
        "gpu",
        "proj",
        None,
    )
    assert facts.default_time_limit_minutes == 480
    assert (facts.gpu_directive, facts.gpu_types) == ("gpus-per-node", {"h100": "nvidia_h100"})
    assert facts.exclusive
    assert (facts.modules, facts.setup) == (("cuda/12",), "source /sw/env.sh")


def test_a_pool_on_kubernetes_has_no_job() -> None:
    with pytest.raises(ValueError, match="k8s is not on SLURM"):
        frozen(k8s_pool())
