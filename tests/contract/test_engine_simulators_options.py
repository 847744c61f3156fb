"""The command lines of the simulated engines: what is taken, what is refused with exit code 2."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from playground.engines import sglang_command, vllm_command
from playground.engines.install import install
from playground.engines.options import read_table

IMPORTANT = {
    "vllm": {
        *("--host", "--port", "--served-model-name", "--max-model-len", "--api-key", "--config"),
        *("--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size", "-tp"),
        *("--enable-expert-parallel", "--nnodes", "--node-rank", "--master-addr", "--master-port"),
        *("--headless", "--distributed-executor-backend", "--data-parallel-address"),
        *("--data-parallel-rpc-port", "--data-parallel-size-local", "--data-parallel-start-rank"),
        *("--kv-transfer-config", "--gpu-memory-utilization", "--shutdown-timeout", "--revision"),
        *("--max-num-seqs", "--enable-server-load-tracking", "--enable-sleep-mode"),
    },
    "sglang": {
        *("--model-path", "--model", "--host", "--port", "--served-model-name", "--api-key"),
        *("--context-length", "--tp-size", "--tensor-parallel-size", "--pp-size", "--dp-size"),
        *("--ep-size", "--enable-dp-attention", "--attn-dp-size", "--nnodes", "--node-rank"),
        *("--dist-init-addr", "--admin-api-key", "--enable-metrics", "--disaggregation-mode"),
        *("--disaggregation-transfer-backend", "--disaggregation-bootstrap-port", "--revision"),
        *("--mem-fraction-static", "--max-running-requests", "--weight-version", "--config"),
    },
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the simulators once."""
    destination = tmp_path_factory.mktemp("engines")
    install(destination)
    return destination


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_tables_have_the_options_that_matter(engine: str) -> None:
    names = {name for option in read_table(engine) for name in option.names}
    assert IMPORTANT[engine] <= names


@pytest.mark.parametrize(("engine", "count"), [("vllm", 320), ("sglang", 531)])
def test_the_tables_are_whole_and_without_doubles(engine: str, count: int) -> None:
    options = read_table(engine)
    names = [name for option in options for name in option.names]
    assert len(options) == count
    assert len(names) == len(set(names))
    assert {option.kind for option in options} <= {"flag", "pair", "one", "optional", "many", "any"}
    assert {o.type for o in options} <= {"-", "str", "int", "float", "human", "human-auto", "json"}


def test_no_option_is_in_the_wrong_engine() -> None:
    vllm, sglang = (
        {name for option in read_table(engine) for name in option.names}
        for engine in ("vllm", "sglang")
    )
    assert not {"--shutdown-timeout", "--max-model-len", "--headless"} & sglang
    assert not {"--weight-version", "--enable-metrics", "--dist-init-addr"} & vllm


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["vllm", "serve", "m", "--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["vllm", "serve", "m", "--enable-metrics"], "unrecognized arguments: --enable-metrics"),
        (["vllm", "serve", "m", "--port", "high"], "argument --port: invalid int value: 'high'"),
        (["vllm", "serve", "m", "--dtype", "int3"], "argument --dtype: invalid choice: 'int3'"),
        (["vllm", "serve", "m", "--kv-transfer-config", "{"], "cannot be converted"),
        (["vllm", "serve", "m", "--api-key"], "expected at least one argument"),
        (["vllm", "start"], "invalid choice: 'start'"),
        (["sglang", "serve", "--model-path", "m", "--bogus"], "unrecognized arguments: --bogus"),
        (["sglang", "serve", "--model-path", "m", "--tp-size", "two"], "invalid int value: 'two'"),
        (["sglang", "serve", "--model-path", "m", "--enable-metrics=1"], "ignored explicit"),
        (["sglang", "serve", "--port", "1"], "--model-path"),
    ],
)
def test_bad_command_lines_end_with_2(tree: Path, command: list[str], complaint: str) -> None:
    program, *words = command
    done = subprocess.run(
        [tree / "bin" / program, *words], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert complaint in done.stderr


def test_vllm_takes_what_its_parser_takes() -> None:
    line = (
        "m --served-model-name a b --max-model-len 8k --tensor_parallel_size=2 -pp 2 -O3 "
        "--kv-transfer-config.kv_role kv_both --enable-expert-parallel --no-trust-remote-code "
        "--gpu-memory-util 0.8 --shutdown-timeout=30"
    )
    arguments = vllm_command.parse(line.split())
    assert arguments.model == "m"
    assert arguments.served_model_name == ["a", "b"]
    assert arguments.max_model_len == 8000
    assert (arguments.tensor_parallel_size, arguments.pipeline_parallel_size) == (2, 2)
    assert arguments.kv_transfer_config == '{"kv_role": "kv_both"}'
    assert arguments.enable_expert_parallel is True
    assert arguments.trust_remote_code is False
    assert arguments.gpu_memory_utilization == 0.8
    assert arguments.shutdown_timeout == 30
    assert vllm_command.parse(["m", "--max-model-len", "-1"]).max_model_len == -1
    assert vllm_command.parse(["m", "--max-model-len", "2M"]).max_model_len == 2 * 2**20
    assert vllm_command.parse(["--model", "n"]).model == "n"


def test_sglang_takes_what_its_parser_takes() -> None:
    line = (
        "--model m --tensor-parallel-size 4 --mem-fraction 0.8 --context-length 8k "
        "--enable-metrics --lora-paths a=b c=d"
    )
    arguments = sglang_command.parse(line.split(), prog="sglang serve")
    assert (arguments.model_path, arguments.tp_size, arguments.mem_fraction_static) == ("m", 4, 0.8)
    assert arguments.context_length == 8000
    assert arguments.enable_metrics is True
    assert arguments.lora_paths == ["a=b", "c=d"]


@pytest.mark.parametrize(
    ("port", "complaint"),
    [("tcp://10.0.0.1:8000", "appears to be a URI"), ("x", "must be a valid integer")],
)
def test_a_service_named_vllm_breaks_vllm(tree: Path, port: str, complaint: str) -> None:
    done = subprocess.run(
        [tree / "bin" / "vllm", "serve", "m"],
        env={"PATH": "/usr/bin:/bin", "VLLM_PORT": port},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "ValueError: VLLM_PORT" in done.stderr
    assert complaint in done.stderr


def test_an_unknown_knob_is_refused_and_help_lists_all(tree: Path) -> None:
    done = subprocess.run(
        [tree / "bin" / "sglang", "serve", "--model-path", "m"],
        env={"PATH": "/usr/bin:/bin", "SIMULATOR_LOAD_SECOND": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "SIMULATOR_LOAD_SECONDS" in done.stderr
    shown = subprocess.run(
        [tree / "bin" / "vllm", "serve", "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "SIMULATOR_DRAIN_POLL_SECONDS" in shown.stdout


def test_sglang_takes_its_key_by_a_file_and_writes_it_into_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As SGLang 0.5.23 does (sgl-project/sglang#37457)."""
    file = tmp_path / "engine.yaml"
    file.write_text('api-key: "k"\n')
    words = ["--model-path", "m", "--config", str(file), "--port", "1"]
    arguments = sglang_command.parse(words, prog="sglang serve")
    assert (arguments.api_key, arguments.port) == ("k", 1)
    # What stands on the command line wins, and the form with an equals sign is not looked for.
    merged = sglang_command.parse([*words, "--api-key", "other"], prog="sglang serve")
    assert merged.api_key == "other"
    assert sglang_command.merge_config([f"--config={file}"]) == [f"--config={file}"]
    for wrong in ([*words, "--config", str(file)], ["--config"], ["--config", "engine.json"]):
        with pytest.raises(ValueError, match="onfig file"):
            sglang_command.merge_config(wrong)
