"""The tables of a run, for the terminal and as Markdown."""

import os
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from bench.handover import HandOver
from bench.idle import Idle
from bench.lab import LOAD_SECONDS
from bench.startup import Comparison


@dataclass(slots=True)
class Report:
    """Everything that one run has measured."""

    command: str
    runs: int
    comparisons: list[Comparison] = field(default_factory=list)
    idles: list[Idle] = field(default_factory=list)
    handovers: list[HandOver] = field(default_factory=list)


Rows = list[tuple[str, ...]]


def console_tables(report: Report) -> Iterator[Table]:
    """For the terminal."""
    return tables(_sections(report))


def markdown(report: Report) -> str:
    """The tables with what they were measured on."""
    note = f"The simulated engines load for {LOAD_SECONDS} s."
    return markdown_tables(_sections(report), command=report.command, note=note)


def tables(sections: Iterable[tuple[str, Rows]]) -> Iterator[Table]:
    """Title and rows as tables for the terminal."""
    for title, rows in sections:
        table = Table(title=title, title_justify="left")
        for index, head in enumerate(rows[0]):
            table.add_column(head, justify="right" if index else "left")
        for row in rows[1:]:
            table.add_row(*row)
        yield table


def markdown_tables(sections: Iterable[tuple[str, Rows]], *, command: str, note: str = "") -> str:
    """The tables as Markdown, with the command and the machine; `note` is a sentence more."""
    head = f"Measured on {datetime.now(UTC):%Y-%m-%d} by `{command}` on {_machine()}. {note}"
    lines = [head.rstrip()]
    for title, rows in sections:
        lines += ["", f"**{title}**", "", _line(rows[0])]
        lines.append(_line(("---", *("---:" for _ in rows[0][1:]))))
        lines += [_line(row) for row in rows[1:]]
    return "\n".join(lines) + "\n"


def _line(row: tuple[str, ...]) -> str:
    return f"| {' | '.join(row)} |"


def _sections(report: Report) -> Iterator[tuple[str, Rows]]:
    if report.comparisons:
        title = f"Until workers serve, in seconds: median of {report.runs} (least to most)"
        yield title, _comparison_rows(report.comparisons)
    if report.idles:
        yield "While nothing changes", _idle_rows(report.idles)
    if report.handovers:
        title = f"A hand-over between two operators, in seconds: median of {len(report.handovers)}"
        yield title, _handover_rows(report.handovers)


def _comparison_rows(comparisons: list[Comparison]) -> Rows:
    rows: Rows = [("what", "raw commands", "raw", "Isthmus", "ratio", "more")]
    for each in comparisons:
        raw, ours = statistics.median(each.raw), statistics.median(each.isthmus)
        rows.append(
            (
                each.name,
                each.raw_name,
                _times(each.raw),
                _times(each.isthmus),
                f"{ours / raw:.2f}",
                f"{ours - raw:+.2f} s",
            )
        )
    return rows


def _handover_rows(found: list[HandOver]) -> Rows:
    return [
        ("from SIGTERM until", "seconds"),
        ("its Lease is free", _times([each.released for each in found])),
        ("the other one reconciles", _times([each.reconciling for each in found])),
        ("its process is gone", _times([each.ended for each in found])),
    ]


def _times(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _idle_rows(idles: list[Idle]) -> Rows:
    heads = [f"{each.workers} SLURM workers" for each in idles]
    rows: Rows = [("", *heads)]
    lines: dict[str, Callable[[Idle], str]] = {
        "requests to slurmctld, per minute": lambda i: f"{i.rpcs / i.seconds * 60:.1f}",
        "writes to the API server, but the Lease's": lambda i: f"{i.writes} in {i.seconds:.0f} s",
        "renewals of the Lease, per minute": lambda i: f"{i.renewals:.0f}",
        "processor time of the operator": lambda i: f"{i.cpu / i.seconds:.2%}",
        "processor time of its commands": lambda i: f"{i.commands_cpu / i.seconds:.2%}",
        "memory of the operator, resident": lambda i: f"{i.memory:.0f} MiB",
    }
    rows += [(name, *(value(each) for each in idles)) for name, value in lines.items()]
    return rows


def _machine() -> str:
    memory = Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]
    return f"{os.cpu_count()} processors and {int(memory) / 2**20:.0f} GiB of memory"
