"""The record of `make engines`: what counts as passed, and that the table tells no other story."""

import dataclasses
from pathlib import Path

import pytest

from tests.engines import record
from tests.engines.client import Ask
from tests.engines.record import Record, Result
from tests.engines.rows import ROWS

ROW = next(row for row in ROWS if row.name == "drain_in_prefill")
OF_JOBS = next(row for row in ROWS if row.name == "identity")
GOOD = Result(
    problem="", seconds=41.3, note="2000 tokens", date="2026-11-30 18:00", logs="", commit="abc1234"
)


@pytest.fixture
def passed(tmp_path: Path) -> Record:
    made = Record(tmp_path)
    made.put("vllm-job", ROW.name, dataclasses.replace(GOOD, state=record.key(ROW)))
    return Record(tmp_path)  # as another run reads it


def test_a_row_that_passed_is_not_run_again(passed: Record) -> None:
    assert passed.passed("vllm-job", ROW)
    assert not passed.passed("sglang-job", ROW)
    assert not passed.passed("vllm-job", OF_JOBS)


def test_a_row_that_passed_with_something_else_is_run_again(passed: Record) -> None:
    passed.put("vllm-job", ROW.name, dataclasses.replace(GOOD, state="other"))
    assert not passed.passed("vllm-job", ROW)


def test_a_row_that_failed_is_run_again(passed: Record) -> None:
    failed = dataclasses.replace(GOOD, state=record.key(ROW), problem="the request was cut")
    passed.put("vllm-job", ROW.name, failed)
    assert not passed.passed("vllm-job", ROW)


def test_two_runs_keep_each_other_s_results(passed: Record, tmp_path: Path) -> None:
    other = Record(tmp_path)
    passed.put("sglang-job", ROW.name, GOOD)
    other.put("sglang-pod", ROW.name, GOOD)
    assert Record(tmp_path).get("sglang-job", ROW.name) == GOOD


def test_the_table_says_what_was_run_what_failed_and_what_was_not_run(
    passed: Record, tmp_path: Path
) -> None:
    failed = dataclasses.replace(GOOD, problem="a request\nwas cut", logs="/somewhere")
    passed.put("sglang-pod", ROW.name, failed)
    document = tmp_path / "engines.md"
    document.write_text(f"before\n{record.BEGIN}a former table\n{record.END}\nafter\n")
    passed.write(document)
    text = document.read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {ROW.promise} |")]
    cells = [cell.strip() for cell in line.split("|")[2:-1]]
    assert cells[0] == "ok, 2000 tokens (41 s, abc1234)"
    assert cells[1:3] == ["not run", "not run"]
    assert cells[3].startswith("FAILED")
    assert "a request was cut" in text
    assert "/somewhere" not in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "a former table" not in text


def judged(*events: dict[str, object], done: bool = True) -> str:
    return Ask("http://nowhere", tokens=3)._judge(list(events), done=done)


END = {"choices": [{"delta": {}, "finish_reason": "length"}]}
USAGE = {"choices": [], "usage": {"completion_tokens": 3}}


def test_an_answer_counts_only_if_it_is_whole() -> None:
    assert judged(END, USAGE) == ""
    assert "without [DONE]" in judged(END, USAGE, done=False)
    assert "tokens instead of 3" in judged(END)
    assert "tokens instead of 3" in judged(END, {"usage": {"completion_tokens": 2}})
    assert "finish_reason" in judged(USAGE)
    assert "error in the answer" in judged(END, USAGE, {"error": {"message": "died"}})
    stopped = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    assert "finish_reason" in judged(stopped, USAGE)
