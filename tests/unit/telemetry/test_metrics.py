"""What is counted of transitions, and that labels are bounded."""

import re
from pathlib import Path

from isthmus.api.reasons import Reason
from isthmus.telemetry.metrics import Metrics
from isthmus.telemetry.report import Readers
from isthmus.telemetry.transitions import TOLD

DOCS = Path(__file__).parents[3] / "docs"


def counted(metrics: Metrics) -> dict[tuple[str, str], float]:
    lines = metrics.page().body.decode().splitlines()
    found = (
        re.fullmatch(r'isthmus_transitions_total\{kind="(\w+)",reason="(\w+)"\} (\S+)', line)
        for line in lines
    )
    return {(one[1], one[2]): float(one[3]) for one in found if one is not None}


def test_all_that_may_be_told_is_there_from_the_start() -> None:
    everything = {(kind, str(reason)) for kind, reasons in TOLD.items() for reason in reasons}
    assert counted(Metrics()) == dict.fromkeys(everything, 0.0)


def test_each_is_counted_by_kind_and_reason_alone() -> None:
    """Whatever is in an object or a message: names of tenants are no labels."""
    metrics, said = Metrics(), []

    class Events:
        def emit(self, obj: object, *, type: str, reason: Reason, message: str) -> None:
            said.append(message)

    both = Readers(Events(), metrics)
    for number in range(3):
        job = {"kind": "SlurmJob", "metadata": {"name": f"j{number}", "namespace": "team-a"}}
        both.emit(job, type="Normal", reason=Reason.JOB_SUBMITTED, message=f"as job {number}")
    assert said == ["as job 0", "as job 1", "as job 2"]
    found = counted(metrics)
    assert found.pop(("SlurmJob", "JobSubmitted")) == 3
    assert set(found.values()) == {0.0}
    assert b"team-a" not in metrics.page().body


def test_the_page_for_people_lists_what_is_counted() -> None:
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    for kind, reasons in TOLD.items():
        (row,) = re.findall(rf"^\| `{kind}` \| (.*) \|$", text, flags=re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) == set(map(str, reasons))
