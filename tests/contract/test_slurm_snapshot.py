"""The parsers on outputs that a real SLURM printed, whole and damaged.

The samples were made by `samples/slurm/record.py`: the operator's own questions, byte for byte.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.api.conditions import PendingClass
from isthmus.backends.slurm import parsing
from isthmus.backends.slurm.comments import parse_comment
from isthmus.backends.slurm.parsing import OutputError, Section
from isthmus.backends.slurm.reasons import classify, refusal
from isthmus.backends.slurm.records import JobRecord, PublishedEndpoint
from isthmus.backends.slurm.states import (
    JobState,
    exit_status,
    gate_refused,
    node_down,
    node_draining,
    node_usable,
    observe,
)

SAMPLES = Path(__file__).parent / "samples" / "slurm"
RELEASES = sorted(path.name for path in SAMPLES.iterdir() if path.is_dir())
MARKER = "isthmus-sample"


def read(release: str, name: str) -> str:
    return (SAMPLES / release / name).read_text()


def snapshot_sections(text: str) -> tuple[Section, ...]:
    return parsing.sections(text, marker=MARKER, count=2)


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def jobs(release: str) -> dict[str, JobRecord]:
    squeue, _ = snapshot_sections(read(release, "snapshot.txt"))
    return {job.name: job for job in parsing.parse_jobs(squeue.output)}


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("running", JobState.Running),
        ("completed", JobState.Finished),
        ("failed", JobState.Failed),
        ("gate", JobState.Failed),
        ("killed", JobState.Failed),
        ("refused", JobState.Refused),
        ("held", JobState.Pending),
        ("begin", JobState.Pending),
        ("resources", JobState.Pending),
        ("timeout", JobState.Expired),
        ("cancelled", JobState.Cancelled),
        ("suspended", JobState.Suspended),
        ("completing", JobState.Completing),
        ("requeue-held", JobState.Requeued),
        ("node-fail", JobState.NodeFault),
        ("preempted", JobState.Preempted),
    ],
)
def test_recorded_jobs(jobs: dict[str, JobRecord], name: str, state: JobState) -> None:
    assert observe(jobs[name]) is state


def test_fields_of_recorded_jobs(jobs: dict[str, JobRecord]) -> None:
    running = jobs["running"]
    assert (running.nodes, running.batch_host, running.node) == ("gpu01", "gpu01", "gpu01")
    assert running.time_limit_minutes == 26 * 60 + 3
    assert running.start_time is not None
    assert running.end_time == running.start_time + (26 * 60 + 3) * 60
    assert running.partition == "gpu"
    assert (running.qos, running.reason) == ("", "")
    assert running.comment == "isthmus:v1:sample01:default/running:hpc:0:x7k2qp"
    assert jobs["requeued"].restart_count == 1
    assert jobs["two-nodes"].nodes == "gpu[03-04]"
    assert jobs["two-nodes"].node == "gpu03"
    assert jobs["unlimited"].time_limit_minutes is None
    assert jobs["held"].start_time is None
    assert jobs["held"].end_time is None
    assert jobs["held"].node == ""
    assert jobs["no-comment"].comment == ""
    assert exit_status(jobs["failed"]) == 3
    assert exit_status(jobs["killed"]) == 137
    assert gate_refused(jobs["gate"])
    assert not gate_refused(jobs["failed"])


def test_recorded_reasons(jobs: dict[str, JobRecord]) -> None:
    expected = {
        "held": PendingClass.HELD,
        "requeue-held": PendingClass.HELD,
        "begin": PendingClass.RESOURCES,
        "resources": PendingClass.RESOURCES,
        "drained": PendingClass.RESOURCES,
        "too-long": PendingClass.NEVER,
        "dependency-never": PendingClass.NEVER,
    }
    assert {name: classify(jobs[name].reason) for name in expected} == expected


def test_free_text_of_others_breaks_nothing(jobs: dict[str, JobRecord]) -> None:
    weird = jobs["weird | name, ünïcode"]
    assert observe(weird) is JobState.Running
    assert weird.comment == "a|b, c=d\nsecond line \x1f unit"


def test_recorded_nodes(release: str) -> None:
    _, sinfo = snapshot_sections(read(release, "snapshot.txt"))
    nodes = parsing.parse_nodes(sinfo.output)
    assert set(nodes) == {"gpu01", "gpu02", "gpu03", "gpu04"}
    assert nodes["gpu01"].partitions == {"gpu", "spot", "spotcancel", "short"}
    assert nodes["gpu01"].address.startswith("10.")
    assert node_usable(nodes["gpu01"])
    assert node_down(nodes["gpu02"])
    assert nodes["gpu02"].reason == "dead PSU, rack 4"
    assert node_draining(nodes["gpu03"])
    assert not node_down(nodes["gpu03"])
    assert nodes["gpu03"].reason == "ECC | bank 3"
    assert nodes["gpu04"].reason == ""


@pytest.mark.parametrize("name", ["running", "held", "failed", "requeued", "weird"])
def test_second_source_agrees_with_the_first(
    release: str, jobs: dict[str, JobRecord], name: str
) -> None:
    first = next(job for key, job in jobs.items() if key.split()[0] == name)
    text = read(release, f"show-job-{name}.txt")
    (section,) = parsing.sections(text, marker=MARKER, count=1)
    assert parsing.parse_shown_job(section.output, job_id=first.job_id) == first
    with pytest.raises(OutputError):
        parsing.parse_shown_job(section.output, job_id=first.job_id + 1)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("partition", "InvalidPartition"),
        ("configuration", "NodeConfigurationNotAvailable"),
        ("node", "InvalidNodeName"),
        ("constraint", "InvalidConstraint"),
        ("reservation", "InvalidReservation"),
        ("time", "InvalidOption"),
        ("option", "InvalidOption"),
    ],
)
def test_recorded_refusals(release: str, name: str, reason: str) -> None:
    text = read(release, f"sbatch-{name}.txt")
    refused = refusal(text.rpartition(MARKER)[2])
    assert refused is not None
    assert refused.reason == reason


def test_recorded_acceptance(release: str) -> None:
    text = read(release, "sbatch-accepted.txt")
    (section,) = parsing.sections(text, marker=MARKER, count=1)
    job_id = parsing.parse_job_id(section.output)
    assert job_id is not None
    assert job_id > 0
    assert parsing.parse_job_id(f"{job_id};cluster-a\n") == job_id
    assert parsing.parse_job_id("") is None
    assert parsing.parse_job_id("12\n13\n") is None
    assert parsing.parse_job_id("0\n") is None


@given(data=st.data())
def test_output_that_breaks_off_is_never_taken_for_less_jobs(data: st.DataObject) -> None:
    text = read(RELEASES[0], "snapshot.txt")
    last_mark = text.rstrip("\n").rindex(MARKER)
    cut = data.draw(st.integers(0, last_mark + len(MARKER)))
    with pytest.raises(OutputError):
        snapshot_sections(text[:cut])


@given(data=st.data())
def test_job_list_that_breaks_off_is_refused_unless_between_records(data: st.DataObject) -> None:
    squeue, _ = snapshot_sections(read(RELEASES[0], "snapshot.txt"))
    ends = [0]
    while (end := squeue.output.find(parsing.RECORD_END, ends[-1])) >= 0:
        ends.append(end + len(parsing.RECORD_END))
    cut = data.draw(st.integers(0, len(squeue.output)).filter(lambda n: n not in ends))
    with pytest.raises(OutputError):
        parsing.parse_jobs(squeue.output[:cut])


def test_noise_around_the_output_is_ignored(release: str) -> None:
    text = read(release, "snapshot.txt")
    noisy = f"*** Welcome to login1 ***\n{MARKER}\nmodule: command not found\n{text}\nbye\n"
    assert snapshot_sections(noisy) == snapshot_sections(text)


def test_empty_job_list_is_a_job_list() -> None:
    text = f"\n{MARKER} BEGIN\n\n{MARKER} END 0 1795241359\n"
    (section,) = parsing.sections(text, marker=MARKER, count=1)
    assert parsing.parse_jobs(section.output) == ()


def test_empty_node_list_is_not_believed() -> None:
    with pytest.raises(OutputError):
        parsing.parse_nodes("")


def test_wrong_field_count_is_refused() -> None:
    with pytest.raises(OutputError, match="fields"):
        parsing.parse_jobs("1\x1fRUNNING\x1f\x1e\n")
    with pytest.raises(OutputError, match="not a number"):
        parsing.parse_jobs("\x1f".join(["x"] * 15) + "\x1f\x1e\n")


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for parse in (parsing.parse_jobs, parsing.parse_nodes):
        try:
            parse(text)
        except OutputError:
            continue


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("1:00", 1),
        ("0:30", 1),
        ("1:00:00", 60),
        ("7-00:00:00", 7 * 1440),
        ("1-02:03:00", 26 * 60 + 3),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_time_limits(text: str, minutes: int | None) -> None:
    assert parsing.parse_time_limit(text) == minutes


@pytest.mark.parametrize(
    ("comment", "published"),
    [
        (
            "isthmus:v1:sample01:default/llama:hpc:0:x7k2qp:port=41007",
            PublishedEndpoint("x7k2qp", 41007),
        ),
        ("isthmus:v1:sample01:default/llama:hpc:0:x7k2qp", None),
        ("isthmus:v1:sample01:default/llama:hpc:0:x7k2qp:port=", None),
        ("isthmus:v1:sample01:default/llama:hpc:0:x7k2qp:port=0", None),
        ("isthmus:v1:sample01:default/llama:hpc:0:x7k2qp:port=65536", None),
        ("isthmus:v1:sample01:default/llama:hpc:0:x7k2qp:port=41007\n", None),
        ("isthmus:v1:sample01:default/llama:hpc:0:x7k2qp:port=41007 rm -rf", None),
        ("isthmus:v1:sample01:default/llama:hpc:0:x7k2qp:port=٤١٠٠٧", None),
        ("isthmus:v2:sample01:default/llama:hpc:0:x7k2qp:port=41007", None),
        ("x isthmus:v1:sample01:default/llama:hpc:0:x7k2qp:port=41007", None),
        ("isthmus:v1:" + "a" * 10_000 + ":port=41007", None),
        ("", None),
    ],
)
def test_published_endpoint(comment: str, published: PublishedEndpoint | None) -> None:
    assert parse_comment(comment) == published
