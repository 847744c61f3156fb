"""`isthmus render` shows what would run, with derived defaults and without secrets."""

import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from isthmus.cli.main import app

SAMPLES = Path(__file__).resolve().parents[3] / "deploy" / "samples"
CLUSTER = SAMPLES / "slurmcluster.yaml"
RUNNER = CliRunner()


def render(*files: Path) -> str:
    result = RUNNER.invoke(app, ["render", *map(str, files)])
    assert result.exit_code == 0, result.output
    return result.output


def sections(text: str) -> dict[str, str]:
    """Pool name to what is printed for it."""
    found = {}
    for part in text.split("# ---- pool ")[1:]:
        head, _, body = part.partition("\n")
        found[head.split()[0]] = body
    return found


def written(tmp_path: Path, *pools: dict[str, object]) -> Path:
    path = tmp_path / "model.yaml"
    obj = {
        "apiVersion": "isthmus.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "m", "namespace": "default"},
        "spec": {"model": {"source": "hf://a/b"}, "pools": list(pools)},
    }
    path.write_text(yaml.safe_dump(obj))
    return path


def test_derived_defaults_are_filled_in() -> None:
    pools = sections(render(SAMPLES / "smallest.yaml"))
    (text,) = pools.values()
    container = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "vllm/vllm-openai:v0.33.0"
    assert container["args"][:2] == ["vllm", "serve"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert "--shutdown-timeout=300" in container["args"]


def test_batch_script_is_a_script_and_its_model_is_the_clusters(tmp_path: Path) -> None:
    text = sections(render(SAMPLES / "demo.yaml", CLUSTER))["hpc"]
    script = tmp_path / "script.sh"
    script.write_text(text[text.index("#!/bin/bash") :])
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=300)
    assert "--model-path=/scratch/models/Llama-3.1-8B-Instruct" in text
    assert "#   --gres=gpu:1" in text
    assert "source /sw/sglang/0.5.23/bin/activate" in text


def test_what_looks_like_a_secret_is_masked(tmp_path: Path) -> None:
    env = [
        {"name": "WANDB_KEY_OF_MINE", "value": "visible"},
        {"name": "PRIVATE_KEY_PEM", "value": "s3cr3t"},
    ]
    path = written(tmp_path, {"kubernetes": {}, "engine": {"env": env}})
    text = render(path)
    assert "s3cr3t" not in text
    assert "visible" in text


def test_a_cluster_that_does_not_admit_the_namespace_is_told_beside_what_is_printed() -> None:
    result = RUNNER.invoke(app, ["render", str(SAMPLES / "demo.yaml"), str(CLUSTER)])
    assert result.exit_code == 0
    assert "nothing is submitted as it is" in result.stderr
    assert "does not admit namespace default" in result.stderr
    assert "nothing is submitted" not in result.stdout


def test_missing_cluster_says_what_to_give(tmp_path: Path) -> None:
    path = written(tmp_path, {"slurm": {"clusterRef": {"name": "nowhere"}}})
    result = RUNNER.invoke(app, ["render", str(path)])
    assert result.exit_code == 1
    assert "SlurmCluster isthmus-system/nowhere" in result.output
    assert "give its manifest" in result.output


def test_wrong_input_is_refused_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, {"kubernetes": {}, "slurm": {"clusterRef": {"name": "x"}}})
    result = RUNNER.invoke(app, ["render", str(path)])
    assert result.exit_code == 1
    assert f"{path}:" in result.output


@pytest.mark.parametrize("command", ["run", "validate", "render", "crds"])
def test_help_teaches(command: str) -> None:
    result = RUNNER.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 8


def test_every_setting_is_explained() -> None:
    result = RUNNER.invoke(app, ["run", "--list-settings"])
    assert result.exit_code == 0
    blocks = [block for block in result.output.split("\n") if block and block[0] != " "]
    assert len(blocks) > 20
    assert "relist-interval  (ISTHMUS_RELIST_INTERVAL) [default: 300.0]" in blocks
    for line, after in zip(result.output.split("\n"), result.output.split("\n")[1:], strict=False):
        assert not (line and line[0] != " " and not after.strip()), line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--set", "no-such=1"], "There is no setting no_such"),
        (["--set", "workers"], "write --set NAME=VALUE"),
        (["--set", "lease-duration=soon"], "write a duration such as 30s"),
        (["--installation-id", "x"], "exactly 8 characters"),
        ([], "there is no installation id"),  # B9: two with one default ended each other's jobs
        (["--installation-id", "prod0001", "--kubeconfig", "/no/such/file"], "/no/such/file"),
    ],
)
def test_wrong_settings_end_with_a_sentence(arguments: list[str], sentence: str) -> None:
    result = RUNNER.invoke(app, ["run", *arguments])
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())
