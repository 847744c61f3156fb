"""`isthmus validate`: the API server's answers without a server."""

import copy
import json
from pathlib import Path

import pytest
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from isthmus.api.defaults import effective
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.backends.kubernetes import render
from isthmus.backends.slurm.frozen import freeze
from isthmus.cli import schema_check
from isthmus.cli.manifests import documents
from isthmus.cli.schema_check import check
from isthmus.cli.validate import findings, validate
from tests.wrong_inputs import GOOD, ODD_BUT_RIGHT, WRONG_INPUTS, WrongInput, changed

ROOT = Path(__file__).parents[3]
SAMPLES = sorted((ROOT / "deploy" / "samples").glob("*.yaml"))

app = typer.Typer()
app.command()(validate)


@pytest.fixture(scope="module", autouse=True)
def _rules_are_compiled():
    """The first rule raises Python's recursion limit, which Hypothesis must not see change."""
    for obj in GOOD.values():
        problems(obj)


def problems(*objects: object) -> list[str]:
    text = yaml.safe_dump_all(objects)
    return [finding.text for finding in findings(text) if finding.is_problem]


@pytest.mark.parametrize("kind", GOOD)
def test_good_objects_are_valid(kind):
    assert problems(GOOD[kind]) == []


@pytest.mark.parametrize("name", ODD_BUT_RIGHT)
def test_f12_what_real_files_have_is_valid_and_can_be_rendered(name):
    obj = changed(GOOD["ModelDeployment"], ODD_BUT_RIGHT[name])
    assert problems(obj) == []
    deployment = ModelDeployment.model_validate(obj)
    desired = effective(deployment)
    frozen = freeze(desired=desired, pool=desired.pools[1])
    assert frozen.template.cpus == 8
    assert frozen.template.memory_mib in (None, 65536)
    render.pod_template(
        desired=desired,
        pool=desired.pools[0],
        revision="r",
        pre_stop_seconds=30,
        shutdown_seconds=30,
    )


@pytest.mark.parametrize(
    ("field", "text", "rendered"),
    [
        ("cpu", "0.5", 1),
        ("cpu", "7500m", 8),
        ("memory", "0.5Ti", 512 * 1024),
        ("memory", "1073741825", 1025),
        ("memory", "65536Ki", 64),
    ],
)
def test_f12_sizes_as_pods_take_them_are_rounded_up_for_slurm(field, text, rendered):
    obj = changed(GOOD["ModelDeployment"], {f"spec.pools[1].worker.{field}": text})
    assert problems(obj) == []
    desired = effective(ModelDeployment.model_validate(obj))
    template = freeze(desired=desired, pool=desired.pools[1]).template
    assert {"cpu": template.cpus, "memory": template.memory_mib}[field] == rendered


def test_f12_a_fraction_without_quotes_is_told_how_to_be_written():
    wrong = changed(GOOD["ModelDeployment"], {"spec.pools[0].worker.cpu": 1.5})
    assert problems(wrong) == [
        'spec.pools[0].worker.cpu: a number with a fraction must stand in quotes: write "1.5"'
    ]


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


_BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n + 1}: &a{n + 1} [{','.join([f'*a{n}'] * 10)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("a: 1\nb: &b [*b]", 2, "inside of what it repeats"),
        ("a: &a {b: {c: *a}}", 1, "inside of what it repeats"),
        ("\n" + "[" * 3000, 2, "more than 100 levels"),
        ("{a: " * 3000, 1, "more than 100 levels"),
        ("- " * 3000, 1, "more than 100 levels"),
        ("a: 1\nb: !!int abc", 2, "as a whole number"),
        ("a: !!float abc", 1, "as a number"),
        ("a: 0x_", 1, "as a whole number"),
        ("a: " + "9" * 5000, 1, "as a whole number"),
        ("a: 9223372036854775808", 1, "64 bits"),
        ("a: .inf", 1, "finite"),
        ("a: 1\n\nb: \x00", 3, "control character"),
        (_BOMB, 5, "aliases repeat"),
        ("a: !!timestamp abc", 1, "no type of JSON"),
        ("a: !!bool abc", 1, "true or false"),
        ("a: !!binary abc", 1, "no type of JSON"),
        ("? [a]\n: b", 1, "name of a field"),
        ("apiVersion: [isthmus.dev/v1alpha1]\nkind: ModelDeployment", 1, "two texts"),
        ("apiVersion: isthmus.dev/v1alpha1\nkind: [ModelDeployment]", 1, "two texts"),
        ("apiVersion: v1\nkind: List\nitems: 3", 1, "needs items"),
    ],
)
def test_l4_what_yaml_can_say_beyond_json_is_a_problem_with_its_line(
    tmp_path, text, line, sentence
):
    """Each ended with a traceback, with a MemoryError after half a minute, or was skipped."""
    file = tmp_path / "odd.yaml"
    file.write_text(text, encoding="utf-8")
    done = CliRunner().invoke(app, [str(file)])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    told = done.stderr.splitlines()[0]
    assert told.startswith(f"{file}:{line}: ")
    assert sentence in told


def test_l4_aliases_of_one_anchor_may_be_many():
    shared = "a: &a {b: [1, 2, 3]}\nc: [" + ", ".join(["*a"] * 1000) + "]\n"
    (document,) = documents(shared)
    assert document.value["c"] == [{"b": [1, 2, 3]}] * 1000


_WORDS = [
    "a",
    "1",
    "0x_",
    "!!int",
    "!!str",
    "&a",
    "*a",
    "<<",
    "~",
    "2026-01-01",
    ".nan",
    "apiVersion",
]
_MARKS = [
    "[",
    "]",
    "{",
    "}",
    ", ",
    ": ",
    "- ",
    "? ",
    "\n",
    "\n  ",
    "'",
    '"',
    "---\n",
    "|",
    ">-",
    "#",
    "\t",
]


@given(parts=st.lists(st.sampled_from(_WORDS + _MARKS), max_size=40))
def test_l4_no_text_ends_it_with_an_exception(parts):
    list(findings("".join(parts)))


@given(text=st.text(max_size=60))
def test_l4_nor_any_other_text(text):
    list(findings(text))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda part: (
        st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=8), part, max_size=4)
    ),
    max_leaves=12,
)


@given(kind=st.sampled_from(sorted(GOOD)), value=_JSON, data=st.data())
def test_l4_no_value_of_a_field_ends_it_with_an_exception(kind, value, data):
    obj = copy.deepcopy(GOOD[kind])
    here = obj
    while True:  # somewhere in the object
        key = data.draw(st.sampled_from(list(here) if isinstance(here, dict) else range(len(here))))
        if not isinstance(here[key], dict | list) or not here[key] or data.draw(st.booleans()):
            break
        here = here[key]
    here[key] = value
    list(findings(json.dumps(obj)))


def test_f12_a_bound_is_told_with_its_number():
    many = changed(GOOD["ModelDeployment"], {"spec.pools[0].engine.args": ["--x"] * 999})
    assert "entries, this has 999" in problems(many)[0]
    long = changed(GOOD["ModelDeployment"], {"spec.model.revision": "m" * 129})
    assert problems(long) == ["spec.model.revision: at most 128 characters, this has 129"]


def test_l4_rules_are_run_for_no_more_entries_than_are_allowed(monkeypatch):
    """A hundred thousand of them took minutes: each of a list that is refused anyway."""
    run = []
    monkeypatch.setattr(schema_check, "_rule", lambda value, *_: run.append(value) or ())
    many = {"name": "X", "value": "x"}
    problems(changed(GOOD["ModelDeployment"], {"spec.pools[0].engine.env": [many] * 5000}))
    assert len(run) < 1000
