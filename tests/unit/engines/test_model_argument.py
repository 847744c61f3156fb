"""What an engine is told to load, in pods and in jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import isthmus
from isthmus.api.desired import Model
from isthmus.backends.kubernetes.render import pod_template
from isthmus.backends.slurm.frozen import freeze, job_template
from isthmus.engines.listen_argument import listen_argument, listening_at
from isthmus.engines.model_argument import model_argument
from tests.unit.builders import desired, k8s_pool, slurm_pool

PATHS = {"hf://org/llama": "/models/llama", "/data/own": "/models/own"}


@pytest.mark.parametrize(
    ("source", "paths", "argument"),
    [
        ("hf://org/llama", {}, "org/llama"),
        ("hf://org/repo-GGUF:Q4_K_M", {}, "org/repo-GGUF:Q4_K_M"),
        ("/models/llama-8b", {}, "/models/llama-8b"),
        ("hf://org/llama", PATHS, "/models/llama"),
        ("/data/own", PATHS, "/models/own"),
        ("hf://org/other", PATHS, "org/other"),
        ("/data/hf://org/llama", PATHS, "/data/hf://org/llama"),
    ],
)
def test_the_model_argument(source: str, paths: dict[str, str], argument: str) -> None:
    assert model_argument(source, paths=paths) == argument


@pytest.mark.parametrize("source", ["hf://org/llama", "/models/llama"])
def test_pods_and_jobs_are_told_the_same(source: str) -> None:
    model = Model(source=source, served_names=("llama",))
    pods, jobs = k8s_pool(), slurm_pool()
    pod: Any = pod_template(
        desired=desired(pods, model=model),
        pool=pods,
        revision="r",
        pre_stop_seconds=5,
        shutdown_seconds=60,
    )
    container = pod["spec"]["containers"][0]
    job = job_template(freeze(desired=desired(jobs, model=model), pool=jobs), models={})
    told = model_argument(source, paths={})
    assert told in [*container["command"], *container["args"]]
    assert any(told == element.removeprefix("--model-path=") for element in job.argv)


def test_the_form_of_a_source_is_read_in_one_place() -> None:
    package = Path(isthmus.__file__).parent
    reads = ('removeprefix("hf://")', 'startswith("hf://")', '= "hf://"')
    found = {
        path.name
        for path in package.rglob("*.py")
        if any(each in path.read_text(encoding="utf-8") for each in reads)
    }
    assert found == {"model_source.py"}


@given(st.lists(st.text(max_size=8)), st.sampled_from(["127.0.0.1", "::", "0.0.0.0", "::1"]))
def test_only_the_address_of_a_frozen_command_line_changes(words: list[str], address: str) -> None:
    command = ("engine", *words, "--host=0.0.0.0", "--port=@PORT@")
    moved = listening_at(command, address=address)
    assert moved == ("engine", *words, listen_argument(address), "--port=@PORT@")
