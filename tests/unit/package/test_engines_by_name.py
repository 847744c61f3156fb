"""Only `engines/` knows an engine by its name, or by what it alone is asked.

Elsewhere a name is data: it comes from `engine.type`, a label or a frozen revision, and `ENGINES`
has the profile. So a further engine is added by describing it, not by searching for branches.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import isthmus
from isthmus.api.defaults import effective, names_parallel_option
from isthmus.api.desired import EngineType
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.api.names import API_VERSION
from isthmus.api.reserved_options import ENGINE_RESERVED
from isthmus.engines import ENGINES

PACKAGE = Path(isthmus.__file__).parent
ALLOWED = {
    "api/defaults.py": "image, parallelism and default engine, by which the kinds get defaults",
    "api/desired.py": "the values of `engine.type`",
    "api/engine.py": "an example in the schema",
    "api/reserved_options.py": "options and variables that the schema refuses, by program",
    "cli/main.py": "the words of the help",
}
"""Where a name may stand, and why. `api/` imports nothing of ours, so its facts are its own."""
ROUTERS = ("sglang-router",)
"""Programs that are no engines and have the name of one in theirs."""


def words() -> frozenset[str]:
    """Names of engines, and paths that are asked for an identity."""
    asked = (question for each in ENGINES.values() for question in each.probes(full=True))
    return frozenset(ENGINES) | {question.path for question in asked if question.guarded}


def texts(source: str) -> Iterator[str]:
    """Strings and identifiers of a module, without its docstrings and comments."""
    tree = ast.parse(source)
    said = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            value = node.value
            if id(node) not in said:
                yield value if isinstance(value, str) else value.decode("latin-1")
            continue
        for _, field in ast.iter_fields(node):
            if isinstance(field, str):
                yield field


def found_in(path: Path) -> set[str]:
    """The words that stand in a file of the package."""
    text = path.read_text(encoding="utf-8")
    plain = (line for line in text.splitlines() if not line.lstrip().startswith(("#", "--")))
    lines = texts(text) if path.suffix == ".py" else plain
    told = "\n".join(lines).lower()
    for router in ROUTERS:
        told = told.replace(router, "")
    return {word for word in words() if word in told}


def sources() -> Iterator[Path]:
    for path in sorted(PACKAGE.rglob("*")):
        inside = path.relative_to(PACKAGE).parts
        if path.is_file() and inside[0] != "engines" and "__pycache__" not in inside:
            yield path


def test_nothing_outside_engines_knows_an_engine_by_name() -> None:
    found = {str(path.relative_to(PACKAGE)): found_in(path) for path in sources()}
    known = {path: sorted(names) for path, names in found.items() if names}
    strange = {path: names for path, names in known.items() if path not in ALLOWED}
    assert not strange, "ask ENGINES for the profile, and give it what is missing"
    assert set(ALLOWED) == set(known), "what is allowed and not used any more"


@pytest.mark.parametrize(
    "source",
    [
        'engine = "vllm"',
        "if kind is EngineType.SGLANG: pass",
        "from isthmus.engines.sglang import Sglang",
        "def ask_vllm(): ...",
        'f"{url}/v1/models"',
        "known(vllm=1)",
        'PAGE = b"sglang:num_running_reqs 1"',
    ],
)
def test_it_is_noticed(source: str, tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(source)
    assert found_in(module)


@pytest.mark.parametrize(
    "source",
    [
        '"""As vLLM does."""',
        "# as sglang does",
        'kind = "sglang-router"',
        "def served_models(): ...",
    ],
)
def test_words_about_engines_and_names_of_routers_are_no_knowledge(
    source: str, tmp_path: Path
) -> None:
    module = tmp_path / "module.py"
    module.write_text(source)
    assert not found_in(module)


def test_each_value_of_the_field_has_a_profile() -> None:
    assert set(ENGINES) == {str(kind) for kind in EngineType}
    assert all(engine.name == name for name, engine in ENGINES.items())


@pytest.mark.parametrize("kind", sorted(EngineType))
def test_each_value_of_the_field_has_its_facts_in_the_schema(kind: EngineType) -> None:
    """An image, and an argument that spreads a model over GPUs, which a user may give as well."""
    engine: dict[str, object] = {"type": str(kind)}
    pool = {"kubernetes": {}, "engine": engine, "worker": {"gpusPerNode": 2}}
    body = {
        "apiVersion": API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"name": "llama", "namespace": "team-a"},
        "spec": {"model": {"source": "/models/llama"}, "pools": [pool]},
    }
    made = effective(ModelDeployment.model_validate(body)).pools[0].engine
    assert made.image
    assert len(made.args) == 1
    assert names_parallel_option(made.args[0])
    assert not any(made.args[0].startswith(option) for option in ENGINE_RESERVED)
