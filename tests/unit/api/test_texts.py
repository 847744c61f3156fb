"""H2, B2: foreign texts, which may be anything, and the statuses that they end up in."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.api.base import ConditionModel, StatusModel
from isthmus.api.conditions import Phase
from isthmus.api.crd import KINDS, custom_resource_definition
from isthmus.api.modeldeployment_status import ModelDeploymentStatus, PoolStatus, WorkerStatus
from isthmus.api.slurmcluster import OrphanModel, SlurmClusterStatus
from isthmus.api.slurmjob import ForwardStatus, SlurmJobStatus
from isthmus.api.texts import listed, one_line
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.resources import SLURM_JOBS
from isthmus.apiserver.status_bounds import status_schema, written
from isthmus.apiserver.statuses import write_status
from isthmus.backends.slurm.options import sbatch_options
from isthmus.backends.slurm.records import JobTemplate, SiteFacts
from isthmus.cli import schema_check
from isthmus.errors import ApiInvalidError, SshError
from isthmus.ssh.connection import together
from isthmus.ssh.files import PrivateFolder
from tests.simulation.apiserver import ApiSimulator

STATUSES: dict[str, type[StatusModel]] = {
    "ModelDeployment": ModelDeploymentStatus,
    "SlurmCluster": SlurmClusterStatus,
    "SlurmJob": SlurmJobStatus,
}
SITE = SiteFacts(
    work_directory="/w",
    ports_from=41000,
    ports_to=41999,
    default_partition=None,
    default_account=None,
    default_qos=None,
    default_time_limit_minutes=60,
)
HOSTILE = "\x00\x1b[2Jone\nline\ud800" + "é" * 5000

texts = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=40),
    st.sampled_from([HOSTILE, "", "x" * 5000, "a\x00b", "\x1b[31m", "\ud800", "a\r\nb", "\u2028"]),
)


def crd_status(kind: str) -> Any:
    """The schema of a status as it stands in the kind's CRD."""
    crd: Any = custom_resource_definition(next(one for one in KINDS if one.name == kind))
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema["properties"]["status"]


def problems(kind: str, document: object) -> list[schema_check.Problem]:
    schema: Any = {
        "type": "object",
        "properties": {"metadata": {"type": "object"}, "status": crd_status(kind)},
    }
    return schema_check.check({"metadata": {"name": "x"}, "status": document}, schema)


def documents(schema: Any) -> st.SearchStrategy[Any]:
    """Statuses whose numbers and words are right and whose texts are anything."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema["type"]
    if kind == "string":
        return texts
    if kind == "integer":
        return st.integers(schema.get("minimum", 0), schema.get("maximum", 9))
    if kind == "boolean":
        return st.booleans()
    if kind == "array":
        most = min(schema.get("maxItems", 3) + 2, 6)
        return st.lists(documents(schema["items"]), max_size=most)
    fields = {key: documents(part) for key, part in schema["properties"].items()}
    required = {key: fields.pop(key) for key in schema.get("required", ())}
    return st.fixed_dictionaries(required, optional=fields)


@pytest.mark.parametrize("name", STATUSES)
def test_h2_the_bounds_are_those_of_the_crd(name: str) -> None:
    bounds, crd = status_schema(STATUSES[name]), crd_status(name)
    assert bounds["properties"] == crd["properties"]


@pytest.mark.parametrize("name", STATUSES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_h2_no_status_is_refused_for_its_texts(name: str, data: st.DataObject) -> None:
    kind = STATUSES[name]
    schema = crd_status(name)
    drawn = data.draw(documents(schema))
    document = written(_construct(kind, drawn))
    assert problems(name, document) == []
    text = json.dumps(document, ensure_ascii=False)
    assert text.isprintable(), text
    text.encode()
    assert written(kind.model_validate(document)) == document  # nothing is written twice


@pytest.mark.parametrize("name", STATUSES)
def test_l10_no_bound_of_a_status_is_judged_when_it_is_made(name: str) -> None:
    """A bound that the model judges raises in the middle of a plan, or makes an object unreadable.

    It belongs into the schema alone: what is written is cut by that.
    """
    seen: set[type[StatusModel]] = set()
    todo: list[type[StatusModel]] = [STATUSES[name]]
    while todo:
        kind = todo.pop()
        if kind in seen:
            continue
        seen.add(kind)
        for key, field in kind.model_fields.items():
            for part in (field, *_fields_in(field.annotation)):
                judged = [one for one in part.metadata if hasattr(one, "max_length")]
                assert not judged, f"{kind.__name__}.{key}: use status_text or status_list"
            if (inner := _class_in(field.annotation)) and issubclass(inner, StatusModel):
                todo.append(inner)


def _fields_in(annotation: Any) -> list[Any]:
    """The `Field(…)` of every part of an annotation, such as of the entries of a list."""
    found = [one for one in getattr(annotation, "__metadata__", ()) if hasattr(one, "metadata")]
    for part in getattr(annotation, "__args__", ()):
        found += _fields_in(part)
    return found


def _construct(kind: Any, drawn: Any) -> Any:
    """A status as the planner may make it: `model_copy` checks no bounds."""
    made = {}
    for key, field in kind.model_fields.items():
        alias = field.alias or key
        if alias not in drawn:
            continue
        part = _class_in(field.annotation)
        value = drawn[alias]
        if part is not None and issubclass(part, StrEnum):
            made[key] = part(value)
        elif part is None:
            made[key] = tuple(value) if isinstance(value, list) else value
        elif isinstance(value, list):
            made[key] = tuple(_construct(part, item) for item in value)
        else:
            made[key] = _construct(part, value)
    return kind.model_construct(**made)


def _class_in(annotation: Any) -> Any:
    """The status model or enum in `tuple[X, ...]`, `X | None` or `X`, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, StatusModel | StrEnum):
        return annotation
    inner = [_class_in(part) for part in getattr(annotation, "__args__", ())]
    return next((one for one in inner if one is not None), None)


def test_h2_lists_lose_their_end_and_what_is_no_time_is_left_out() -> None:
    orphans = tuple(OrphanModel(job_id=n, job_name="j", reason="r") for n in range(40))
    document: Any = written(SlurmClusterStatus().model_copy(update={"orphans": orphans}))
    assert [one["jobId"] for one in document["orphans"]] == list(range(32))
    bad = SlurmJobStatus().model_copy(update={"start_time": "+292277026596-12-04", "job_id": 1})
    assert "startTime" not in written(bad)
    good = SlurmJobStatus(start_time="2026-11-21T05:31:00.5Z")
    assert written(good)["startTime"] == "2026-11-21T05:31:00.5Z"


class Api:
    """The simulated API server as a client, as far as statuses go."""

    def __init__(self) -> None:
        self.server = ApiSimulator(clock=lambda: 1.8e9)
        self.refuse_prose = False
        obj = {"metadata": {"namespace": "team-a", "name": "x"}, "spec": {}}
        self.server.create(SLURM_JOBS, obj, by="op")

    @property
    def stored(self) -> Any:
        return self.server.get(SLURM_JOBS, "team-a", "x")

    async def patch(self, resource: Any, *, namespace: str, name: str, **rest: Any) -> Any:
        if self.refuse_prose and rest["patch"]["status"].get("message"):
            raise ApiInvalidError("status.message: Unsupported value", status=422)
        return self.server.patch(resource, namespace, name, by="op", **rest)

    def write(self, status: SlurmJobStatus) -> Any:
        writing = write_status(cast(ApiServer, self), SLURM_JOBS, obj=self.stored, status=status)
        return asyncio.run(writing)["status"]


def serving(**changes: Any) -> SlurmJobStatus:
    forward = ForwardStatus(mode="Tunnel", port=42001, in_traffic=True)
    status = SlurmJobStatus(phase=Phase.READY, message="", forward=forward)
    return status.model_copy(update=changes)


def test_h2_a_worker_leaves_the_rotation_whatever_its_engine_says() -> None:
    api = Api()
    assert api.write(serving())["forward"]["inTraffic"] is True
    gone = ForwardStatus(mode="Tunnel", port=42001, in_traffic=False)
    stored = api.write(serving(phase=Phase.DEGRADED, forward=gone, message=HOSTILE))
    assert stored["forward"]["inTraffic"] is False
    assert len(stored["message"]) == 1024
    assert stored["message"].isprintable()


def test_b2_a_refused_sentence_takes_nothing_else_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = Api()
    api.write(serving())
    api.refuse_prose = True
    gone = ForwardStatus(mode="Tunnel", port=42001, in_traffic=False)
    stored = api.write(serving(phase=Phase.DEGRADED, forward=gone, message="serves x"))
    assert stored["phase"] == "Degraded"
    assert stored["forward"]["inTraffic"] is False
    assert "message" not in stored
    assert "written without its messages" in caplog.text


def test_b2_what_is_no_sentence_is_refused_as_before() -> None:
    api = Api()
    with pytest.raises(ApiInvalidError):
        api.write(serving(conditions=(ConditionModel(type="TunnelUp", status="Maybe"),)))


def test_b2_what_is_gone_from_a_part_of_the_status_is_taken_away() -> None:
    api = Api()
    api.write(serving())
    stored = api.write(serving(forward=ForwardStatus(mode="Tunnel")))
    assert stored["forward"] == {"mode": "Tunnel"}


@given(texts, st.integers(2, 300))
def test_b2_one_line_is_one_bounded_line(text: str, limit: int) -> None:
    line = one_line(text, limit=limit)
    assert line.isprintable()
    assert len(line) <= limit
    assert one_line(line, limit=limit) == line


def test_b2_of_many_names_a_few_are_told() -> None:
    assert listed(["b", "a"]) == "a, b"
    assert listed([]) == ""
    assert listed([f"name-{n}" for n in range(8)]).endswith("name-4 and 3 more")
    assert len(listed(["x" * 100_000] * 32)) < 350


def test_b2_a_refusal_names_a_few_gpu_types() -> None:
    names = {"g" * 60 + str(n): "g" for n in range(32)}
    site = replace(SITE, gpu_directive="gres", gpu_types=names)
    with pytest.raises(ValueError, match="and 27 more") as refused:
        sbatch_options(
            template=JobTemplate(argv=(), gpus=1, gpu_type="h100"), site=site, job_name="j"
        )
    assert len(str(refused.value)) < 500


def test_b2_many_login_hosts_have_one_bounded_message() -> None:
    errors = [SshError(f"login{n}: " + "words\n" * 500, reason="SshUnreachable") for n in range(7)]
    errors.append(SshError("login8: Permission denied", reason="SshLoginRequired"))
    error = together(errors)
    assert re.match(r"login8: Permission denied login0: words words", str(error))
    assert len(str(error)) < 1000
    assert error.reason == "SshLoginRequired"


def test_f14_a_private_key_with_line_ends_of_windows_is_mended(tmp_path: Path) -> None:
    folder = PrivateFolder(parent=tmp_path)
    try:
        assert folder.write(key=b"-----BEGIN\r\nAAAA\r\n-----END", known_hosts=b"h ssh-rsa A\r\n")
        assert folder.identity.key.read_bytes() == b"-----BEGIN\nAAAA\n-----END\n"
        assert folder.identity.known_hosts.read_bytes() == b"h ssh-rsa A\n"
        assert not folder.write(key=b"-----BEGIN\nAAAA\n-----END\n", known_hosts=b"h ssh-rsa A")
    finally:
        folder.close()


def test_h2_a_deployments_status_of_thousands_of_workers_is_written() -> None:
    workers = tuple(WorkerStatus(name=f"w{n}") for n in range(3000))
    pools = tuple(PoolStatus(name="p").model_copy(update={"why": HOSTILE}) for _ in range(2))
    status = ModelDeploymentStatus().model_copy(update={"workers": workers, "pools": pools})
    document: Any = written(status)
    assert len(document["workers"]) == 2048
    assert problems("ModelDeployment", document) == []
