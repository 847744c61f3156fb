"""The engines' command lines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isthmus.api.names import identity_model_name
from isthmus.engines import ENGINES, engine_started_by
from isthmus.engines.base import LaunchRequest

REQUEST = LaunchRequest(
    model="meta-llama/Llama-3.1-8B",
    revision=None,
    served_names=("llama", "llama-8b"),
    port="8000",
    attempt=None,
    drain_seconds=300,
    args=("--max-model-len=8192", "--enable-prefix-caching"),
)


def test_vllm_as_a_pod() -> None:
    assert ENGINES["vllm"].command(REQUEST) == (
        "vllm",
        "serve",
        "meta-llama/Llama-3.1-8B",
        "--host=0.0.0.0",
        "--port=8000",
        "--served-model-name",
        "llama",
        "llama-8b",
        "--shutdown-timeout=300",
        "--max-model-len=8192",
        "--enable-prefix-caching",
    )


def test_vllm_reports_its_attempt_as_one_more_name() -> None:
    command = ENGINES["vllm"].command(replace(REQUEST, attempt="x7k2qp", revision="0e9e39f"))
    names = command[command.index("--served-model-name") + 1 :][:3]
    assert names == ("llama", "llama-8b", identity_model_name("x7k2qp"))
    assert "--revision=0e9e39f" in command


def test_sglang_as_a_job() -> None:
    request = replace(REQUEST, attempt="@ATTEMPT@", port="@PORT@", revision="main")
    assert ENGINES["sglang"].command(request) == (
        "sglang",
        "serve",
        "--model-path=meta-llama/Llama-3.1-8B",
        "--host=0.0.0.0",
        "--port=@PORT@",
        "--served-model-name=llama",
        "--enable-metrics",
        "--revision=main",
        "--weight-version=@ATTEMPT@",
        "--max-model-len=8192",
        "--enable-prefix-caching",
    )


def test_sglang_as_a_pod_reports_no_attempt() -> None:
    command = ENGINES["sglang"].command(REQUEST)
    assert not any(element.startswith("--weight-version") for element in command)


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_what_every_engine_needs(name: str) -> None:
    engine = ENGINES[name]
    command = engine.command(REQUEST)
    assert engine.name == name
    assert engine_started_by(command[0]) == name
    # The user's own come last, untouched and each as one element.
    assert command[-2:] == REQUEST.args
    # Loopback, the default of one of them, is not reachable from outside a pod or node.
    assert "--host=0.0.0.0" in command
    assert engine.health_path.startswith("/")
    assert engine.readiness_path.startswith("/")
    assert engine.health_timeout >= 5
    hostile = replace(REQUEST, args=("--x=$(reboot); 'a b'\n",))
    assert engine.command(hostile)[-1] == "--x=$(reboot); 'a b'\n"


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_h1_what_is_asked_without_a_key_is_open_and_what_tells_who_it_is_is_not(name: str) -> None:
    profile = ENGINES[name]
    assert {profile.health_path, profile.readiness_path} <= set(profile.open_paths)
    asked = [profile.metrics, *profile.probes(full=True), *profile.probes(full=False)]
    assert {question.path for question in asked if not question.guarded} <= set(profile.open_paths)
    guarded = {question.path for question in asked if question.guarded}
    assert guarded.isdisjoint(profile.open_paths)
    assert "/v1/models" in guarded


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_an_engine_is_not_started_as_a_part_of_a_worker_of_several_nodes(name: str) -> None:
    command = ENGINES[name].command
    assert command(REQUEST, rank=0, size=1, rendezvous=None) == command(REQUEST)
    with pytest.raises(ValueError, match="node 1 of 2"):
        command(REQUEST, rank=1, size=2, rendezvous="10.0.0.1:29500")
