"""What an engine is asked, and what its answers mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import isthmus
from isthmus.api.names import identity_model_name
from isthmus.engines import ENGINES
from isthmus.engines.paths import PathClass
from isthmus.engines.questions import (
    ANSWERED,
    HEALTHY,
    NOTHING_ASKED,
    STRANGER,
    Answer,
    ProbeReason,
    ProbeVerdict,
    Question,
    served_models,
)

ATTEMPT, MODEL = "x7k2qp", "llama"
every_engine = pytest.mark.parametrize("name", sorted(ENGINES))


def good(question: Question) -> Answer:
    """What a healthy engine answers: each understands only what its own kind says."""
    names = [MODEL, identity_model_name(ATTEMPT)]
    body = {"data": [{"id": each} for each in names], "weight_version": ATTEMPT}
    return Answer(question, 200, json.dumps(body).encode() if question.guarded else b"")


def answered(name: str, *, full: bool = True) -> list[Answer]:
    return [good(question) for question in ENGINES[name].probes(full=full)]


def judged(name: str, answers: Sequence[Answer]) -> ProbeVerdict:
    return ENGINES[name].judge(answers, model=MODEL, attempt=ATTEMPT)


@every_engine
def test_what_is_asked(name: str) -> None:
    engine = ENGINES[name]
    short, full = engine.probes(full=False), engine.probes(full=True)
    assert short == (Question(engine.readiness_path),)
    assert full[0] == Question(engine.health_path)
    assert [question.guarded for question in full[1:]] == [True] * (len(full) - 1) != []


@every_engine
def test_what_is_asked_is_there_changes_nothing_and_is_no_work(name: str) -> None:
    """What we ask ourselves and is counted as a request would keep a drain from ever ending."""
    engine = ENGINES[name]
    asked = {engine.metrics, *engine.probes(full=True), *engine.probes(full=False)}
    harmless = {each.path for each in engine.paths if each.kind is PathClass.INFORMATION}
    paths = {question.path for question in asked}
    assert paths <= harmless
    assert engine.load.active is None or paths <= set(engine.load.apart_from)


@every_engine
@pytest.mark.parametrize("full", [True, False])
def test_a_healthy_engine_is_healthy_after_each_answer(name: str, full: bool) -> None:
    answers = answered(name, full=full)
    for end in range(1, len(answers) + 1):
        assert judged(name, answers[:end]) == HEALTHY


@every_engine
def test_no_answer_is_no_health(name: str) -> None:
    assert judged(name, ()) == NOTHING_ASKED
    assert not NOTHING_ASKED.healthy


@every_engine
@pytest.mark.parametrize("status", [0, 201, 204, 301, 401, 404, 500, 503])
def test_the_first_answer_that_is_none_decides(name: str, status: int) -> None:
    answers = answered(name)
    for place, answer in enumerate(answers):
        broken = Answer(answer.question, status, answer.body)
        found = judged(name, [*answers[:place], broken, *answers[place + 1 :]])
        waits = status == 503 and not answer.question.guarded
        assert found.reason == ("NotReady" if waits else "HttpError")
        assert found.message.startswith(f"{answer.question.path} answers {status}")


@pytest.mark.parametrize(
    ("name", "body", "verdict"),
    [
        ("vllm", b"{}", ProbeVerdict("WrongModel", "serves nothing instead of llama")),
        ("sglang", b"{}", ProbeVerdict("WrongModel", "serves nothing instead of llama")),
        (
            "vllm",
            b'{"data": [{"id": "b"}, {"id": "a"}]}',
            ProbeVerdict("WrongModel", "serves a, b instead of llama"),
        ),
        (
            "vllm",
            b'{"data": [{"id": "llama"}]}',
            ProbeVerdict("WrongAttempt", "does not serve isthmus-attempt-x7k2qp"),
        ),
        (
            "sglang",
            b'{"data": [{"id": "llama"}], "weight_version": "zzzzzz"}',
            ProbeVerdict("WrongAttempt", "is attempt zzzzzz instead of x7k2qp"),
        ),
        (
            "sglang",
            b'{"data": [{"id": "llama"}], "weight_version": ["x7k2qp"]}',
            ProbeVerdict("WrongAttempt", "is attempt unknown instead of x7k2qp"),
        ),
    ],
)
def test_a_stranger_is_told_by_model_and_attempt(
    name: str, body: bytes, verdict: ProbeVerdict
) -> None:
    questions = ENGINES[name].probes(full=True)
    answers = [Answer(question, 200, body) for question in questions]
    assert judged(name, answers) == verdict
    assert verdict.reason in ANSWERED


BODIES = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda names, version: json.dumps(
            {"data": [{"id": each} for each in names], "weight_version": version}
        ).encode(),
        names=st.lists(st.one_of(st.text(max_size=400), st.just(MODEL)), max_size=8),
        version=st.one_of(st.text(max_size=400), st.integers(), st.just(ATTEMPT)),
    ),
)


@every_engine
@given(data=st.data())
def test_h2_whatever_is_answered_has_a_verdict_of_one_bounded_line(
    name: str, data: st.DataObject
) -> None:
    """A stranger chooses the bodies; he is healthy only where he names our model and attempt."""
    questions = ENGINES[name].probes(full=True)
    answers = [Answer(question, 200, data.draw(BODIES)) for question in questions]
    found = judged(name, answers)
    assert len(found.message) <= 300
    assert found.message.isprintable()
    told = b"".join(answer.body for answer in answers)
    assert not found.healthy or (MODEL.encode() in told and ATTEMPT.encode() in told)


@pytest.mark.parametrize("text", ["x" * 10_000, "\x1b[2J\x00\ud800\n" * 100])
def test_h2_no_verdict_can_be_made_with_a_longer_message(text: str) -> None:
    found = ProbeVerdict("HttpError", text)
    assert len(found.message) <= 300
    assert found.message.isprintable()


def test_what_a_reason_says_of_who_answers_stands_in_one_place() -> None:
    assert set(get_args(ProbeReason)) > ANSWERED > STRANGER
    package = Path(isthmus.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if '"WrongAttempt"' in path.read_text(encoding="utf-8")
    }
    assert found == {"engines/questions.py", "engines/sglang.py", "engines/vllm.py"}


NESTED = b"[" * 900 + b"]" * 900


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'{"data": 3}',
        b'{"data": [null, 1, {}]}',
        b'{"data": [{"id": %s}]}' % NESTED,
        b'{"data": [{"id": ["llama"]}]}',
        b'{"data": %s}' % (b"[" * 100_000),
    ],
)
def test_malformed_answers_name_no_models(body: bytes) -> None:
    assert served_models(body) == frozenset()
