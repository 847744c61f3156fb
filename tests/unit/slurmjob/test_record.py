"""The status of an attempt between its two forms: as stored, and as its rules read it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import isthmus
from isthmus.api.base import ConditionModel
from isthmus.api.conditions import Phase, Reason
from isthmus.api.slurmjob import ForwardStatus, SlurmJobStatus
from isthmus.api.times import rfc3339
from isthmus.slurmjob.record import AttemptStatus

Model = TypeVar("Model", bound=BaseModel)

MICROSECONDS = 10**6
TIMES = st.one_of(
    st.integers(0, 4_102_444_800).map(float),
    st.integers(0, 4_102_444_800 * MICROSECONDS).map(lambda n: n / MICROSECONDS),
).map(rfc3339)
TEXTS = st.text(max_size=20)
COUNTS = st.integers(0, 2**31)
PORTS = st.integers(1, 65535)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "phase": st.sampled_from(Phase),
    "reason": st.one_of(st.sampled_from(Reason).map(str), TEXTS),
    "drained": st.sampled_from(["Idle", "Timeout", "Unknown"]),
    "excluded_nodes": st.lists(TEXTS, max_size=3).map(tuple),
    "mode": st.sampled_from(["Tunnel", "NodeSSH", "Reverse"]),
    "conditions": st.deferred(lambda: st.lists(_drawn(ConditionModel), max_size=2).map(tuple)),
    "forward": st.deferred(lambda: _drawn(ForwardStatus)),
    "status": st.sampled_from(["True", "False", "Unknown"]),
    "port": PORTS,
}
PLAIN: dict[type, st.SearchStrategy[Any]] = {str: TEXTS, int: COUNTS, bool: st.booleans()}


def _values(model: type[BaseModel], name: str) -> st.SearchStrategy[Any]:
    """What may stand in a field: a new one is drawn without a word here."""
    if name in FIELDS:
        return FIELDS[name]
    field = model.model_fields[name]
    extra = field.json_schema_extra
    if isinstance(extra, dict) and extra.get("format") == "date-time":
        return TIMES
    kinds = getattr(field.annotation, "__args__", (field.annotation,))
    (kind,) = {kind for kind in PLAIN if kind in kinds}
    return PLAIN[kind]


def _drawn(model: type[Model]) -> st.SearchStrategy[Model]:
    """With every field of the model in some examples, also of the parts of a status."""
    needed, may_be_absent = (
        {
            name: _values(model, name)
            for name, field in model.model_fields.items()
            if field.is_required() is required
        }
        for required in (True, False)
    )
    values = st.fixed_dictionaries(needed, optional=may_be_absent)
    return values.map(lambda values: model(**values))


STORED = _drawn(SlurmJobStatus)


@given(stored=STORED)
def test_a_stored_status_comes_back_as_it_was(stored: SlurmJobStatus) -> None:
    found = AttemptStatus.read(stored)
    assert found.write() == stored
    assert AttemptStatus.read(found.write()) == found


def test_nothing_stored_is_an_empty_status() -> None:
    assert AttemptStatus.read(None) == AttemptStatus()
    assert AttemptStatus().write() == SlurmJobStatus()


@pytest.mark.parametrize(
    "text", ["", "soon", "+292277026596-12-04", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59"]
)
def test_what_is_no_time_counts_as_absent_and_stops_nothing(text: str) -> None:
    found = AttemptStatus.read(SlurmJobStatus(finished_at=text, start_time=text))
    assert (found.ending.finished_at, found.job.start_time) == (None, None)
    assert found.write() == SlurmJobStatus()


SLURM_JOB = Path(isthmus.__file__).parent / "slurmjob"
EDGES = {
    "record.py": "the two forms",
    "submit.py": "what was acknowledged",
    "key_files.py": "what was written",
    "forward_ports.py": "what is stored",
    "blamed_nodes.py": "of other attempts",
}
"""Files that know the stored status, and what of it."""


@pytest.mark.parametrize("path", sorted(SLURM_JOB.rglob("*.py")), ids=lambda path: path.stem)
def test_no_copy_of_the_stored_model_is_changed(path: Path) -> None:
    """`model_copy(update=...)` takes any name and any value; `dataclasses.replace` is checked."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [
        n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr == "model_copy"
    ]


def test_the_stored_status_is_known_at_the_edges_alone() -> None:
    """No rule sees its texts."""
    know = set()
    for path in sorted(SLURM_JOB.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = {alias.name for alias in node.names}
                if names & {"SlurmJobStatus", "ForwardStatus"}:
                    know.add(path.relative_to(SLURM_JOB).as_posix())
    assert know == EDGES.keys()
