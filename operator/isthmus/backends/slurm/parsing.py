"""Reads what SLURM's text commands print. Pure; raises rather than guess.

Apart from `commands.py`, which runs the commands, so that recorded outputs of several releases can
be parsed in tests. The formats are the same from 22.05 to 26.05: unit separators between the
fields, a record separator at the end of each record (names and comments may hold line breaks),
free text last, width 0 (squeue would cut at 20 characters otherwise).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isthmus.backends.slurm.records import JobRecord, NodeRecord

FIELD_END = "\x1f"
RECORD_END = "\x1f\x1e\n"

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

_NOTHING = frozenset({"", "(null)", "n/a", "N/A", "none", "None"})


class OutputError(ValueError):
    """An output is incomplete or not of the expected form."""


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


def output_format(fields: Sequence[str]) -> str:
    """The value of `-O` of squeue or sinfo for these fields."""
    return ",".join(f"{name}:{FIELD_END}" for name in fields) + "\x1e"


def framed(commands: Sequence[Sequence[str]], *, marker: str, limit: float) -> tuple[str, ...]:
    """One bash call that runs the commands in order, each under `timeout` and between marks.

    A login node may print anything before and after; a stream that breaks off lacks its end mark.
    The first command gets standard input, a command after a failed one is not run.

    Args:
        commands: argument vectors.
        marker: a word that nobody can guess, so that no job's comment can hold an end mark.
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
        OutputError: fewer complete sections than `count`.
    """
    word = re.escape(marker)
    pattern = rf"^{word} BEGIN\n(.*?)\n{word} END (\d+) (\d+)$"
    found = tuple(
        Section(output=match[1], returncode=int(match[2]), clock=int(match[3]))
        for match in re.finditer(pattern, text, re.DOTALL | re.MULTILINE)
    )
    if len(found) != count:
        raise OutputError(f"the answer broke off: {len(found)} of {count} parts have an end mark")
    return found


def parse_jobs(text: str) -> tuple[JobRecord, ...]:
    """The output of squeue with `output_format(JOB_FIELDS)`.

    Raises:
        OutputError: a record is cut off, has too few fields or a number that is none.
    """
    return tuple(_job(fields) for fields in _records(text, JOB_FIELDS))


def parse_nodes(text: str) -> Mapping[str, NodeRecord]:
    """The output of `sinfo -N -a` with `output_format(NODE_FIELDS)`: a record per partition.

    Raises:
        OutputError: a record is cut off, has too few fields, or there is none at all.
    """
    nodes: dict[str, NodeRecord] = {}
    for name, address, states, partition, reason in _records(text, NODE_FIELDS):
        known = nodes.get(name)
        partitions = {partition.rstrip("*")} - {""}
        nodes[name] = NodeRecord(
            name=name,
            address=address,
            states=_node_states(states),
            reason=_text(reason),
            partitions=frozenset(partitions | (known.partitions if known else set())),
        )
    if not nodes:
        raise OutputError("sinfo lists no node")
    return nodes


def _records(text: str, names: Sequence[str]) -> list[list[str]]:
    *whole, rest = text.split(RECORD_END)
    if rest:
        raise OutputError(f"a record is cut off: {rest[:60]!r}")
    records = [record.split(FIELD_END, len(names) - 1) for record in whole]
    for record in records:
        if len(record) != len(names):
            raise OutputError(f"{len(record)} fields instead of {len(names)}: {record[0][:60]!r}")
    return records


def _job(fields: Sequence[str]) -> JobRecord:
    value = dict(zip(JOB_FIELDS, fields, strict=True))
    return JobRecord(
        job_id=_number(value["JobID"]),
        name=value["Name"],
        state=value["State"],
        restart_count=_number(value["RestartCnt"]),
        batch_host=_text(value["BatchHost"]),
        nodes=_text(value["NodeList"]),
        submit_time=_time(value["SubmitTime"]),
        start_time=_time(value["StartTime"]),
        end_time=_time(value["EndTime"]),
        time_limit_minutes=parse_time_limit(value["TimeLimit"]),
        exit_code=_exit_code(value["exit_code"]),
        partition=value["Partition"],
        qos=_text(value["QOS"]),
        reason=_text(value["Reason"]),
        comment=_text(value["Comment"]),
    )


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise OutputError(f"not a number: {text[:60]!r}")
    return int(text)


def _exit_code(text: str) -> int:
    """The raw wait status: 22.05 prints it, 23.02 and newer print `code:signal`, or nothing."""
    code, _, signal = text.partition(":")
    if signal:
        return _number(code) << 8 | _number(signal)
    return _number(code) if code else 0


def _time(text: str) -> int | None:
    """Epoch seconds; N/A, Unknown, NONE and the like are None."""
    return int(text) if text.isascii() and text.isdigit() else None


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
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * 1440 + hours * 60 + minutes + (1 if seconds else 0)


def parse_job_id(text: str) -> int | None:
    """The id that `sbatch --parsable` printed (`id[;cluster]`), or None."""
    found = re.findall(r"^(\d+)(?:;[\w.-]+)?$", text, re.MULTILINE)
    return int(found[0]) if len(found) == 1 and int(found[0]) > 0 else None


def parse_shown_job(text: str, *, job_id: int) -> JobRecord:
    """One job of `scontrol -o show job`.

    Values may hold blanks, so each is read up to the key that follows it.

    Raises:
        OutputError: the job is not there or a field is missing.
    """
    for record in re.split(r"^(?=JobId=)", text, flags=re.MULTILINE):
        if record.startswith(f"JobId={job_id} "):
            return _shown_job(record)
    raise OutputError(f"scontrol does not show job {job_id}")


def _shown_job(record: str) -> JobRecord:
    code, _, signal = _shown(record, "ExitCode", " ").partition(":")
    comment = re.search(r" Comment=(.*?)\s+StdErr=", record, re.DOTALL)
    host = re.search(r" BatchHost=(\S*)", record)
    return JobRecord(
        job_id=_number(_shown(record, "JobId", " ")),
        name=_shown(record, "JobName", " UserId="),
        state=_shown(record, "JobState", " "),
        restart_count=_number(_shown(record, "Restarts", " ")),
        batch_host=_text(host[1]) if host else "",
        nodes=_text(_shown(record, " NodeList", " ")),
        submit_time=_time(_shown(record, "SubmitTime", " ")),
        start_time=_time(_shown(record, "StartTime", " ")),
        end_time=_time(_shown(record, "EndTime", " ")),
        time_limit_minutes=parse_time_limit(_shown(record, "TimeLimit", " ")),
        exit_code=_number(code) << 8 | _number(signal or "0"),
        partition=_shown(record, "Partition", " "),
        qos=_text(_shown(record, "QOS", " ")),
        reason=_text(_shown(record, "Reason", " Dependency=")),
        comment=_text(comment[1]) if comment else "",
    )


def _shown(record: str, key: str, until: str) -> str:
    match = re.search(rf"(?:^|(?<=\s)|(?= )){key}=(.*?){until}", record, re.DOTALL)
    if match is None:
        raise OutputError(f"scontrol shows no {key.strip()}")
    return match[1]
