"""Reads what SLURM's text commands print. Pure; sets aside or raises rather than guess.

Apart from `commands.py`, which runs the commands, so that recorded outputs of several releases can
be parsed in tests. The questions are the same for every release: each field and each record ends
with a mark that is made for one call, so that no name and no comment can hold one and forge a
record (SLURM keeps control characters and line breaks in both); width 0 (squeue would cut at 20
characters otherwise). The answers are not: a field may change its form (`exit_code` did in 23.02).
A record that holds a field in an unknown form is set aside and all others stand; only where that is
no exception the whole answer is refused.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isthmus.api.texts import one_line
from isthmus.backends.slurm.records import JobRecord, NodeRecord, UnreadableJob

JOB_FIELDS = (
    "JobID",
    "State",
    "RestartCnt",
    "BatchHost",
    "NodeList",
    "SubmitTime",
    "StartTime",
    "EndTime",
    "TimeLimit",
    "exit_code",
    "Partition",
    "QOS",
    "Name",
    "Reason",
    "Comment",
)
NODE_FIELDS = ("NodeList", "NodeAddr", "StateComplete", "Partition", "Reason")

MOST_UNREADABLE = 0.1
"""Share of the records above which it is the format that is not known, and not a few jobs."""
FEW_UNREADABLE = 3
"""So many at least, for of a handful of jobs one is more than that share."""

_NOTHING = frozenset({"", "(null)", "n/a", "N/A", "none", "None"})
_NO_TIME = frozenset({"", "(null)", "n/a", "unknown", "none"})
_NO_LIMIT = frozenset({"", "unlimited", "not_set", "invalid", "partition_limit", "n/a", "infinite"})
_NO_SHELL = (
    "The account must be able to run /bin/bash: see whether its key is bound to a command "
    "(command=... in authorized_keys), whether a startup file of its login shell ends that or "
    "reads standard input, and whether the account or its password has expired."
)
_MOST = 2**32 - 1
_MOST_RESTARTS = 2**31 - 1


class OutputError(ValueError):
    """An output is incomplete or not of the expected form."""


class FormatError(OutputError):
    """An output is complete, and in a form that is not known."""


@dataclass(frozen=True, slots=True)
class JobList:
    """What squeue listed.

    Attributes:
        jobs: whose records can be read.
        unreadable: whose id and name can be read and whose record cannot.
        nameless: what is wrong with each record of which not even that can be read.
    """

    jobs: tuple[JobRecord, ...] = ()
    unreadable: tuple[UnreadableJob, ...] = ()
    nameless: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """What one framed command printed.

    Attributes:
        output: its standard output, exactly.
        returncode: its own.
        clock: epoch seconds where it ran, just after it.
    """

    output: str
    returncode: int
    clock: int


def field_end(mark: str) -> str:
    """What stands behind each field.

    The control character keeps squeue from reading the mark's first digits as a width.
    """
    return f"\x1f{mark}"


def record_end(mark: str) -> str:
    """What stands behind each record, after the end of its last field."""
    return f"{field_end(mark)}\x1e\n"


def output_format(fields: Sequence[str], *, mark: str) -> str:
    """The value of `-O` of squeue or sinfo for these fields.

    Args:
        fields: by SLURM's names.
        mark: letters, digits and -, that nobody can guess.
    """
    end = field_end(mark)
    return ",".join(f"{name}:{end}" for name in fields) + "\x1e"


def framed(commands: Sequence[Sequence[str]], *, marker: str, limit: float) -> tuple[str, ...]:
    """One bash call that runs the commands in order, each under `timeout` and between marks.

    A login node may print anything before and after; a stream that breaks off lacks its end mark.
    The first command gets standard input, a command after a failed one is not run.

    Args:
        commands: argument vectors.
        marker: a word that nobody can guess, so that no job's comment can hold an end mark; the
            fields of squeue's and sinfo's answers end with it, too.
        limit: seconds for each command.
    """
    lines = ["r=0"]
    for command in commands:
        limited = shlex.join(["timeout", "-k", "5", f"{limit:g}", *command])
        lines.append(f"printf '\\n%s BEGIN\\n' {marker}")
        lines.append(f"[ $r -ne 0 ] || {limited}; r=$?")
        lines.append(f"printf '\\n%s END %s %(%s)T\\n' {marker} $r -1")
    return ("/bin/bash", "--noprofile", "--norc", "-c", "\n".join(lines))


def sections(text: str, *, marker: str, count: int) -> tuple[Section, ...]:
    """The outputs of `framed` commands.

    Raises:
        OutputError: fewer complete sections than `count`; without any mark, what came instead.
    """
    word = re.escape(marker)
    pattern = rf"^{word} BEGIN\n(.*?)\n{word} END ([0-9]{{1,10}}) ([0-9]{{1,19}})$"
    found = tuple(
        Section(output=match[1], returncode=int(match[2]), clock=int(match[3]))
        for match in re.finditer(pattern, text, re.DOTALL | re.MULTILINE)
    )
    if f"{marker} BEGIN" not in text and text.strip():
        said = one_line(text.strip().splitlines()[0], limit=200)
        raise OutputError(
            f"no command was run there; what came instead begins with '{said}'. {_NO_SHELL}"
        )
    if len(found) != count:
        raise OutputError(f"the answer broke off: {len(found)} of {count} parts have an end mark")
    return found


def parse_jobs(text: str, *, mark: str) -> JobList:
    """The output of squeue with `output_format(JOB_FIELDS)` and this mark.

    Raises:
        OutputError: a record is cut off.
        FormatError: too many records cannot be read.
    """
    jobs: list[JobRecord] = []
    unreadable: list[UnreadableJob] = []
    nameless: list[str] = []
    problems: list[str] = []
    for fields in _records(text, mark=mark):
        try:
            job_id, name = _identity(fields)
        except OutputError as error:
            nameless.append(str(error))
            problems.append(str(error))
            continue
        try:
            jobs.append(_job(fields))
        except OutputError as error:
            unreadable.append(UnreadableJob(job_id=job_id, name=name, problem=str(error)))
            problems.append(str(error))
    total = len(jobs) + len(problems)
    if len(problems) >= FEW_UNREADABLE and len(problems) > MOST_UNREADABLE * total:
        # Without numbers, and by no order of squeue's: the same cause is told in the same words.
        raise FormatError(f"too many records of squeue cannot be read, for one {min(problems)}")
    unreadable.sort(key=lambda job: job.job_id)
    return JobList(jobs=tuple(jobs), unreadable=tuple(unreadable), nameless=tuple(sorted(nameless)))


def parse_nodes(text: str, *, mark: str) -> Mapping[str, NodeRecord]:
    """The output of `sinfo -N -a` with `output_format(NODE_FIELDS)`: a record per partition.

    An empty one is the list of a site that hides its nodes.

    Raises:
        OutputError: a record is cut off.
        FormatError: a record has too few fields.
    """
    nodes: dict[str, NodeRecord] = {}
    for fields in _records(text, mark=mark):
        _check_count(fields, NODE_FIELDS)
        name, address, states, partition, reason = fields
        known = nodes.get(name)
        partitions = {partition.rstrip("*")} - {""}
        nodes[name] = NodeRecord(
            name=name,
            address=address,
            states=_node_states(states),
            reason=_text(reason),
            partitions=frozenset(partitions | (known.partitions if known else set())),
        )
    return nodes


def _records(text: str, *, mark: str) -> list[list[str]]:
    *whole, rest = text.split(record_end(mark))
    if rest:
        raise OutputError(f"a record is cut off: {rest[:60]!r}")
    return [record.split(field_end(mark)) for record in whole]


def _check_count(fields: Sequence[str], names: Sequence[str]) -> None:
    if len(fields) != len(names):
        shown = fields[0][:40]
        raise FormatError(f"there are {len(fields)} fields instead of {len(names)}: {shown!r}")


def _identity(fields: Sequence[str]) -> tuple[int, str]:
    """Id and name, which say whose record it is. SLURM takes an empty name, too."""
    _check_count(fields, JOB_FIELDS)
    value = dict(zip(JOB_FIELDS, fields, strict=True))
    return _number("JobID", value["JobID"]), value["Name"]


def _job(fields: Sequence[str]) -> JobRecord:
    value = dict(zip(JOB_FIELDS, fields, strict=True))
    return JobRecord(
        job_id=_number("JobID", value["JobID"]),
        name=value["Name"],
        state=_state("State", value["State"]),
        restart_count=_number("RestartCnt", value["RestartCnt"], most=_MOST_RESTARTS),
        batch_host=_hosts("BatchHost", value["BatchHost"]),
        nodes=_hosts("NodeList", value["NodeList"]),
        submit_time=_time("SubmitTime", value["SubmitTime"]),
        start_time=_time("StartTime", value["StartTime"]),
        end_time=_time("EndTime", value["EndTime"]),
        time_limit_minutes=_time_limit("TimeLimit", value["TimeLimit"]),
        exit_code=_exit_code("exit_code", value["exit_code"]),
        partition=value["Partition"],
        qos=_text(value["QOS"]),
        reason=_text(value["Reason"]),
        comment=_text(value["Comment"]),
    )


def _unknown(field: str, text: str) -> FormatError:
    return FormatError(f"{field} is {text[:40]!r}")


def _number(field: str, text: str, *, most: int = _MOST) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > most:
        raise _unknown(field, text)
    return int(text)


def _state(field: str, text: str) -> str:
    """A word, known or not; one that is not known has its own meaning (`JobState.Unknown`)."""
    if not re.fullmatch(r"[A-Z][A-Z_]*( by [0-9]+)?", text):
        raise _unknown(field, text)
    return text


def _hosts(field: str, text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._,\[\]-]*", found := _text(text)):
        raise _unknown(field, text)
    return found


def _exit_code(field: str, text: str) -> int:
    """As a wait status: 22.05 prints that, 23.02 and newer `code:signal`, or nothing."""
    code, colon, signal = text.partition(":")
    if not colon:
        return _number(field, code) if code else 0
    try:
        return _number(field, code, most=255) << 8 | _number(field, signal, most=127)
    except FormatError as error:
        raise _unknown(field, text) from error


def _time(field: str, text: str) -> int | None:
    """Epoch seconds; N/A, Unknown, NONE and the like are None."""
    if text.lower() in _NO_TIME:
        return None
    if not re.fullmatch(r"[0-9]{1,10}", text):
        raise _unknown(field, text)
    return int(text)


def _time_limit(field: str, text: str) -> int | None:
    minutes = parse_time_limit(text)
    if minutes is None and text.lower() not in _NO_LIMIT:
        raise _unknown(field, text)
    return minutes


def _text(text: str) -> str:
    return "" if text in _NOTHING else text


def _node_states(text: str) -> frozenset[str]:
    """`mixed+drain` -> {"MIXED", "DRAIN"}; the suffixes of short forms become flags."""
    suffixes = {"*": "NOT_RESPONDING", "~": "POWERED_DOWN", "%": "POWERING_DOWN"}
    words: set[str] = set()
    for word in text.upper().split("+"):
        bare = word.rstrip("*~#!%$@^-")
        words |= {bare, *(suffixes[c] for c in word[len(bare) :] if c in suffixes)} - {""}
    return frozenset(words)


def parse_time_limit(text: str) -> int | None:
    """Minutes of `MM:SS`, `HH:MM:SS` or `D-HH:MM:SS`; None for UNLIMITED, NOT_SET and the like."""
    match = re.fullmatch(r"(?:([0-9]{1,6})-)?(?:([0-9]{1,10}):)?([0-9]{1,10}):([0-9]{1,10})", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * 1440 + hours * 60 + minutes + (1 if seconds else 0)


def parse_job_id(text: str) -> int | None:
    """The id that `sbatch --parsable` printed (`id[;cluster]`), or None."""
    found = re.findall(r"^([0-9]{1,10})(?:;[\w.-]+)?$", text, re.MULTILINE)
    return int(found[0]) if len(found) == 1 and int(found[0]) > 0 else None


def parse_shown_job(text: str, *, job_id: int) -> JobRecord:
    """One job of `scontrol -o show job`.

    Values may hold blanks, so free text is read up to one of the keys that may follow it.

    Raises:
        OutputError: the job is not there.
        FormatError: a field is missing or in a form that is not known.
    """
    for record in re.split(r"^(?=JobId=)", text, flags=re.MULTILINE):
        if record.startswith(f"JobId={job_id} "):
            return _shown_job(record)
    raise OutputError(f"scontrol does not show job {job_id}")


def _shown_job(record: str) -> JobRecord:
    # A release adds keys (SLUID, FailedNode, Extra), and leaves some out where there is nothing.
    comment = re.search(r" Comment=(.*?)\s+(?:Extra|StdErr)=", record, re.DOTALL)
    host = re.search(r" BatchHost=(\S*)", record)
    return JobRecord(
        job_id=_number("JobId", _shown(record, "JobId")),
        name=_shown(record, "JobName", until="SLUID|UserId"),
        state=_state("JobState", _shown(record, "JobState")),
        restart_count=_number("Restarts", _shown(record, "Restarts"), most=_MOST_RESTARTS),
        batch_host=_hosts("BatchHost", host[1]) if host else "",
        nodes=_hosts("NodeList", _shown(record, "NodeList")),
        submit_time=_time("SubmitTime", _shown(record, "SubmitTime")),
        start_time=_time("StartTime", _shown(record, "StartTime")),
        end_time=_time("EndTime", _shown(record, "EndTime")),
        time_limit_minutes=_time_limit("TimeLimit", _shown(record, "TimeLimit")),
        exit_code=_exit_code("ExitCode", _shown(record, "ExitCode")),
        partition=_shown(record, "Partition"),
        qos=_text(_shown(record, "QOS")),
        reason=_text(_shown(record, "Reason", until="FailedNode|Dependency")),
        comment=_text(comment[1]) if comment else "",
    )


def _shown(record: str, key: str, *, until: str = "") -> str:
    """The value of a key: one word, or all up to one of the keys that `until` names."""
    value = rf"(.*?)\s+(?:{until})=" if until else r"(\S*)"
    match = re.search(rf"(?:^|\s){key}={value}", record, re.DOTALL)
    if match is None:
        raise FormatError(f"scontrol shows no {key}")
    return match[1]
