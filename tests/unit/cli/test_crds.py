"""The CRDs under crds/: generated, complete, small, and bounded everywhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from isthmus.api.crd import KINDS, SIZE_LIMIT, as_yaml, custom_resource_definition, file_name
from isthmus.cli.crds import crds

FOLDER = Path(__file__).parents[3] / "crds"

app = typer.Typer()
app.command()(crds)


def nodes(schema: dict, path: str = "") -> Iterator[tuple[str, dict]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[{key}]")


def schema_of(kind) -> dict:
    definition = custom_resource_definition(kind)
    return definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_files_are_what_the_models_say(kind):
    text = (FOLDER / file_name(kind)).read_text(encoding="utf-8")
    assert text == as_yaml(custom_resource_definition(kind)), "run `isthmus crds -d crds`"


def test_no_other_files():
    assert {path.name for path in FOLDER.iterdir()} == {file_name(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_small_enough_for_client_side_apply(kind):
    assert len(as_yaml(custom_resource_definition(kind)).encode()) < SIZE_LIMIT


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_everything_a_user_writes_is_bounded_and_described(kind):
    """The API server estimates the cost of a rule by these bounds."""
    for path, node in nodes(schema_of(kind)["properties"]["spec"], "spec"):
        type_ = node.get("type")
        if type_ == "string":
            assert "maxLength" in node or "enum" in node, path
        if type_ == "array":
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path
        if type_ == "integer":
            assert "minimum" in node, path
        assert type_ or node.get("x-kubernetes-int-or-string"), path
        own_words = "tolerations" in path or path.endswith(("[items]", "[additionalProperties]"))
        assert node.get("description") or own_words, path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_nothing_that_a_structural_schema_forbids(kind):
    for path, node in nodes(schema_of(kind)):
        assert not {"$ref", "anyOf", "title", "const", "$defs"} & set(node), path
        assert not ("properties" in node and "additionalProperties" in node), path
        for key in node.get("x-kubernetes-list-map-keys", ()):
            item = node["items"]
            assert key in item.get("required", ()) or "default" in item["properties"][key], path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_rules_say_what_is_wrong(kind):
    for path, node in nodes(schema_of(kind)):
        for rule in node.get("x-kubernetes-validations", ()):
            assert 20 < len(rule["message"]) < 400, path
            assert "\n" not in rule["message"], path


def test_status_names_what_the_columns_show():
    for kind in KINDS:
        paths = {path for path, _ in nodes(schema_of(kind))}
        for column in kind.columns:
            path = column.path.partition("[")[0]
            assert path in paths or path.startswith(".metadata"), column


def test_command_writes_files(tmp_path):
    done = CliRunner().invoke(app, ["-d", str(tmp_path / "made")])
    assert done.exit_code == 0
    for kind in KINDS:
        written = (tmp_path / "made" / file_name(kind)).read_bytes()
        assert written == (FOLDER / file_name(kind)).read_bytes()


def test_command_prints_documents_for_kubectl():
    done = CliRunner().invoke(app, [])
    assert [one["spec"]["names"]["kind"] for one in yaml.safe_load_all(done.stdout)] == [
        kind.name for kind in KINDS
    ]
