"""`isthmus validate`: the API server's answers without a server."""

from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from isthmus.cli.manifests import documents
from isthmus.cli.schema_check import check
from isthmus.cli.validate import findings, validate
from tests.wrong_inputs import GOOD, WRONG_INPUTS, WrongInput, changed

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "deploy" / "samples").glob("*.yaml"))

app = typer.Typer()
app.command()(validate)


def problems(*objects: object) -> list[str]:
    text = yaml.safe_dump_all(objects)
    return [finding.text for finding in findings(text) if finding.is_problem]


@pytest.mark.parametrize("kind", GOOD)
def test_good_objects_are_valid(kind):
    assert problems(GOOD[kind]) == []


@pytest.mark.parametrize("wrong", WRONG_INPUTS, ids=lambda wrong: f"{wrong.kind}: {wrong.name}")
def test_wrong_input_is_refused(wrong: WrongInput):
    found = problems(wrong.object())
    assert found
    assert not any("could not be checked" in text for text in found)
    if wrong.sentence is not None:
        assert any(wrong.sentence in text for text in found), found


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_samples_are_valid(path):
    done = CliRunner().invoke(app, [str(path)])
    assert done.exit_code == 0, done.output
    assert "is valid" in done.output


def test_smallest_object_of_the_documentation_is_valid():
    spec = {"model": {"source": "hf://org/model"}, "pools": [{"kubernetes": {}}]}
    assert problems({**GOOD["ModelDeployment"], "spec": spec}) == []


def test_output_names_file_line_field_and_sentence(tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text(
        "apiVersion: v1\n"
        "kind: Secret\n"
        "metadata: {name: s}\n"
        "---\n"
        "# a comment\n"
        "apiVersion: isthmus.dev/v1alpha1\n"
        "kind: ModelDeployment\n"
        "metadata:\n"
        "  name: llama\n"
        "spec:\n"
        "  model: {source: 'hf://a/b', servedName: [x]}\n"
        "  pools:\n"
        "  - kubernetes: {}\n"
        "    engine:\n"
        "      args:\n"
        "      - --seed=1\n"
        "      - --port=80\n"
        "  - name: hpc\n"
        "    slurm: {}\n",
        encoding="utf-8",
    )
    done = CliRunner().invoke(app, [str(file)])
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert f'{file}:1: note: Secret "s" is not a kind of isthmus.dev: skipped' in done.stdout
    assert lines[0].startswith(f"{file}:11: spec.model.servedName: unknown field: did you mean")
    assert lines[1].startswith(f"{file}:17: spec.pools[0].engine.args[1]: this engine option")
    assert lines[2] == f"{file}:19: spec.pools[1].slurm: required field missing: clusterRef"
    assert lines[3] == "3 problems"


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("a: [1", 1, "not YAML"),
        ("- 1\n", 1, "an object needs apiVersion and kind"),
        ("apiVersion: isthmus.dev/v1\nkind: ModelDeployment\n", 1, "does not exist: write isthmus"),
        ("apiVersion: isthmus.dev/v1alpha1\nkind: ModelDeploy\n", 1, "does not exist"),
        ("apiVersion: isthmus.dev/v1alpha1\nkind: SlurmJob\n", 1, "metadata is missing"),
        (
            "apiVersion: isthmus.dev/v1alpha1\nkind: SlurmCluster\nspec: {}\n"
            "metadata: {name: A_B}\n",
            4,
            "an object's name must be lower-case",
        ),
        (
            "apiVersion: isthmus.dev/v1alpha1\nkind: SlurmCluster\nmetadata: {name: a}\n"
            "spec:\n  login: {local: {}}\n  files: {workDirectory: /a}\n  login: {local: {}}\n",
            7,
            "spec.login: this field is written twice",
        ),
    ],
)
def test_what_is_no_object_is_refused(text, line, sentence):
    found = [finding for finding in findings(text) if finding.is_problem]
    assert any(one.line == line and sentence in one.text for one in found), found


def test_items_of_a_list_are_checked():
    items = [changed(GOOD["SlurmJob"], {}) for _ in range(2)]
    listed = {"apiVersion": "v1", "kind": "List", "items": items}
    wrong = changed(listed, {"items[1].spec.slot": -1})
    assert problems(listed) == []
    assert [text.partition(":")[0] for text in problems(wrong)] == ["spec.slot"]


def test_generated_names_are_judged_with_what_the_server_appends():
    unnamed = changed(GOOD["ModelDeployment"], {"metadata": {"generateName": "a" * 35}})
    assert problems(unnamed) == []
    long = changed(GOOD["ModelDeployment"], {"metadata": {"generateName": "a" * 36}})
    assert "metadata.name must be at most 40" in problems(long)[0]


def test_a_rule_that_cannot_be_run_is_reported():
    schema = {
        "type": "object",
        "properties": {
            "metadata": {"type": "object"},
            "spec": {
                "type": "string",
                "x-kubernetes-validations": [{"rule": "url(self).isHost()", "message": "no"}],
            },
        },
    }
    found = check({"metadata": {"name": "a"}, "spec": "x"}, schema)
    assert "could not be checked offline" in found[0].message


def test_a_date_stays_a_string():
    (document,) = documents("a: 2026-01-01\n1: x\n")
    assert document.value == {"a": "2026-01-01", "1": "x"}


def test_unreadable_file_is_named(tmp_path):
    done = CliRunner().invoke(app, [str(tmp_path / "missing.yaml")])
    assert done.exit_code == 2
    assert "missing.yaml" in done.output
