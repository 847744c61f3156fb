"""The parsers on outputs that a real SLURM printed, whole and damaged.

The samples were made by `samples/slurm/record.py`: the operator's own questions, byte for byte.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from isthmus.api.conditions import PendingClass
from isthmus.backends.slurm import parsing
from isthmus.backends.slurm.comments import parse_comment
from isthmus.backends.slurm.parsing import FormatError, JobList, OutputError, Section
from isthmus.backends.slurm.reasons import classify
from isthmus.backends.slurm.records import JobRecord, PublishedEndpoint, Refused, UnreadableJob
from isthmus.backends.slurm.sbatch_answers import outcome
from isthmus.backends.slurm.snapshots import nodes_hidden
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
FIELD_END, RECORD_END = parsing.field_end(MARKER), parsing.record_end(MARKER)


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
    return {job.name: job for job in parsing.parse_jobs(squeue.output, mark=MARKER).jobs}


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
    nodes = parsing.parse_nodes(sinfo.output, mark=MARKER)
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


def test_recorded_site_that_hides_its_nodes(release: str) -> None:
    """PrivateData=nodes: sinfo is refused, as it prints it in all three releases."""
    text = read(release, "snapshot-hidden.txt")
    squeue, sinfo = snapshot_sections(text)
    errors = text.rpartition(MARKER)[2]
    assert (squeue.returncode, sinfo.returncode, sinfo.output) == (0, 1, "")
    assert nodes_hidden(sinfo, errors)
    assert not nodes_hidden(sinfo, f"{errors}\nslurm_load_node: Socket timed out")
    assert not nodes_hidden(sinfo, "slurm_load_node: Unspecified error")
    running, nameless = parsing.parse_jobs(squeue.output, mark=MARKER).jobs
    assert (running.name, running.node) == ("llama", "gpu01")
    assert nameless.name == ""  # which SLURM takes, so it is no name that cannot be read


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


def test_keys_that_a_release_adds_are_not_part_of_a_value(release: str) -> None:
    """As SLURM's source has them: `Extra` (23.02), `FailedNode`, `SLUID` (with -d)."""
    (section,) = parsing.sections(read(release, "show-job-running.txt"), marker=MARKER, count=1)
    job_id = int(section.output.partition("JobId=")[2].split()[0])
    plain = parsing.parse_shown_job(section.output, job_id=job_id)
    text = section.output.replace(" UserId=", " SLUID=s5 UserId=", 1)
    text = text.replace(" Dependency=", " FailedNode=gpu09 Dependency=", 1)
    text = text.replace(" StdErr=", " Extra=cost=3 a StdErr=", 1)
    assert text.count("SLUID=") == text.count("FailedNode=") == text.count("Extra=") == 1
    assert parsing.parse_shown_job(text, job_id=job_id) == plain


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
    (section,) = parsing.sections(text, marker=MARKER, count=1)
    refused = outcome(section, text.rpartition(f"{MARKER} END")[2].partition("\n")[2])
    assert isinstance(refused, Refused)
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
    while (end := squeue.output.find(RECORD_END, ends[-1])) >= 0:
        ends.append(end + len(RECORD_END))
    cut = data.draw(st.integers(0, len(squeue.output)).filter(lambda n: n not in ends))
    with pytest.raises(OutputError):
        parsing.parse_jobs(squeue.output[:cut], mark=MARKER)


def test_noise_around_the_output_is_ignored(release: str) -> None:
    text = read(release, "snapshot.txt")
    noisy = f"*** Welcome to login1 ***\n{MARKER}\nmodule: command not found\n{text}\nbye\n"
    assert snapshot_sections(noisy) == snapshot_sections(text)


def test_empty_job_list_is_a_job_list() -> None:
    text = f"\n{MARKER} BEGIN\n\n{MARKER} END 0 1795241359\n"
    (section,) = parsing.sections(text, marker=MARKER, count=1)
    assert parsing.parse_jobs(section.output, mark=MARKER) == JobList()


def test_empty_node_list_is_a_site_that_hides_its_nodes() -> None:
    assert parsing.parse_nodes("", mark=MARKER) == {}


def recorded_texts(release: str) -> list[str]:
    squeue, _ = snapshot_sections(read(release, "snapshot.txt"))
    return squeue.output.split(RECORD_END)[:-1]


def joined(texts: list[str]) -> str:
    return "".join(text + RECORD_END for text in texts)


def with_field(text: str, field: str, value: str) -> str:
    values = text.split(FIELD_END)
    values[parsing.JOB_FIELDS.index(field)] = value
    return FIELD_END.join(values)


STRANGE = "?!\ufffd 1:2"
AN_IDENTITY = {"JobID"}
WORDS_AND_NUMBERS = {
    "State",
    "RestartCnt",
    "BatchHost",
    "NodeList",
    "SubmitTime",
    "StartTime",
    "EndTime",
    "TimeLimit",
    "exit_code",
}


@pytest.mark.parametrize("field", parsing.JOB_FIELDS)
def test_a_field_in_an_unknown_form_sets_its_record_aside(release: str, field: str) -> None:
    texts = recorded_texts(release)
    whole = parsing.parse_jobs(joined(texts), mark=MARKER)
    assert (whole.unreadable, whole.nameless) == ((), ())
    for index, job in enumerate(whole.jobs):
        changed = [*texts[:index], with_field(texts[index], field, STRANGE), *texts[index + 1 :]]
        found = parsing.parse_jobs(joined(changed), mark=MARKER)
        others = [other for other in found.jobs if other.job_id != job.job_id]
        assert others == [other for other in whole.jobs if other is not job]
        if field in AN_IDENTITY:
            assert [f"{field} is {STRANGE!r}"] == list(found.nameless)
        elif field in WORDS_AND_NUMBERS:
            (aside,) = found.unreadable
            assert aside == UnreadableJob(job.job_id, job.name, f"{field} is {STRANGE!r}")
        else:  # free text reads as it is
            assert len(found.jobs) == len(whole.jobs)


@given(data=st.data())
def test_whatever_one_field_holds_all_other_records_are_as_before(data: st.DataObject) -> None:
    texts = recorded_texts(data.draw(st.sampled_from(RELEASES)))
    whole = parsing.parse_jobs(joined(texts), mark=MARKER).jobs
    index = data.draw(st.integers(0, len(texts) - 1))
    odd = st.sampled_from(["\x1f", "\x1e", "\n", RECORD_END, "9" * 5000, "-1", "0:0:0", ""])
    value = "".join(data.draw(st.lists(st.one_of(st.text(max_size=5), odd), max_size=4)))
    field = data.draw(st.sampled_from(parsing.JOB_FIELDS))
    changed = [*texts[:index], with_field(texts[index], field, value), *texts[index + 1 :]]
    assume(value.count(RECORD_END) < parsing.FEW_UNREADABLE - 1)
    found = parsing.parse_jobs(joined(changed), mark=MARKER)
    assert found.jobs[:index] == whole[:index]
    rest = whole[index + 1 :]
    assert found.jobs[len(found.jobs) - len(rest) :] == rest
    # The job itself is never without a trace, or it would be taken to be gone.
    assert len(found.jobs) + len(found.unreadable) + len(found.nameless) >= len(texts)


FORGED = [
    "\x1f\x1e\n",
    "x\x1f\x1e\ny",
    "x\x1f\x1e\n"
    + "\x1f".join(["9" * 400, "RUNNING", *["0"] * 10, "victim", "None", "x"])
    + "\x1f",
    f"\n{MARKER[:-1]} END 0 1\n",
    FIELD_END[:-1] + RECORD_END[1:],
]


@pytest.mark.parametrize("field", ["Name", "Comment", "Reason"])
@pytest.mark.parametrize("text", FORGED)
def test_m1_f15_no_name_and_no_comment_forges_or_hides_a_record(field: str, text: str) -> None:
    texts = recorded_texts(RELEASES[0])
    whole = parsing.parse_jobs(joined(texts), mark=MARKER).jobs
    found = parsing.parse_jobs(joined([with_field(texts[0], field, text), *texts[1:]]), mark=MARKER)
    assert (found.unreadable, found.nameless) == ((), ())
    assert found.jobs[1:] == whole[1:]
    assert getattr(found.jobs[0], field.lower()) == text


@pytest.mark.parametrize("field", sorted({"JobID", *WORDS_AND_NUMBERS} - {"BatchHost", "NodeList"}))
@pytest.mark.parametrize("text", ["9" * 20, "9" * 400, "9" * 5000, f"{'9' * 400}:00:00", "٣"])
def test_m1_no_number_is_longer_than_what_holds_it(field: str, text: str) -> None:
    record = with_field(recorded_texts(RELEASES[0])[0], field, text)
    found = parsing.parse_jobs(joined([record]), mark=MARKER)
    assert found.jobs == ()


@pytest.mark.parametrize(
    ("total", "strange", "known"), [(2, 2, True), (3, 3, False), (29, 3, False), (30, 3, True)]
)
def test_only_where_few_records_are_strange_the_format_is_known(
    total: int, strange: int, known: bool
) -> None:
    text = recorded_texts(RELEASES[0])[0]
    texts = [with_field(text, "JobID", str(number + 1)) for number in range(total)]
    for number in range(strange):
        texts[number] = with_field(texts[number], "exit_code", "0:0:0")
    if known:
        assert len(parsing.parse_jobs(joined(texts), mark=MARKER).unreadable) == strange
        return
    with pytest.raises(FormatError) as caught:
        parsing.parse_jobs(joined(texts), mark=MARKER)
    assert str(caught.value).startswith("too many records of squeue cannot be read")
    assert "exit_code is '0:0:0'" in str(caught.value)


def test_a_record_without_all_fields_may_be_any_job() -> None:
    found = parsing.parse_jobs(f"1{FIELD_END}RUNNING{RECORD_END}", mark=MARKER)
    assert found.jobs == found.unreadable == ()
    assert len(found.nameless) == 1
    assert "3 fields instead of 15" in found.nameless[0] or "2 fields" in found.nameless[0]


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for parse in (parsing.parse_jobs, parsing.parse_nodes):
        try:
            parse(text, mark=MARKER)
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
