"""Records of the simulated squeue in which one field has a form that nobody knows.

What an operator gets of them goes through the project's own parser: the records are printed as
squeue does, the field is put in, and the text is read.
"""

from collections.abc import Iterable

from isthmus.backends.slurm import parsing
from isthmus.backends.slurm.parsing import JobList
from isthmus.backends.slurm.records import JobRecord

TEXTS = ("0:0:0:0", "?", "2026-11-30T18:00:00", "1+0", "a b")
"""What no field but a free text holds."""

_MARK = "0123456789abcdef"


class StrangeFields:
    """Which field of which job is strange now."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[str, str]] = {}  # job id → field, its text
        self.of_new: tuple[str, str] | None = None  # in each job that is accepted

    def put(self, job_id: int, field: str, text: str) -> None:
        self._of[job_id] = field, text

    def take(self, job_id: int) -> None:
        self._of.pop(job_id, None)

    def accepted(self, job_id: int) -> None:
        """A new job."""
        if self.of_new is not None:
            self._of[job_id] = self.of_new

    def clear(self) -> None:
        self._of.clear()
        self.of_new = None

    def read(self, records: Iterable[JobRecord]) -> JobList:
        """What is read of these records.

        Raises:
            OutputError: so much is strange that it is the format.
        """
        shown = tuple(records)
        if not any(record.job_id in self._of for record in shown):
            return JobList(jobs=shown)
        return parsing.parse_jobs("".join(map(self._printed, shown)), mark=_MARK)

    def _printed(self, record: JobRecord) -> str:
        values = {**_words(record), **dict([self._of.get(record.job_id, ("", ""))])}
        fields = (values[name] for name in parsing.JOB_FIELDS)
        return parsing.field_end(_MARK).join(fields) + parsing.record_end(_MARK)


def _words(record: JobRecord) -> dict[str, str]:
    """The fields of a record as squeue prints them since 23.02."""

    def time(moment: int | None) -> str:
        return "N/A" if moment is None else str(moment)

    minutes = record.time_limit_minutes
    return {
        "JobID": str(record.job_id),
        "State": record.state,
        "RestartCnt": str(record.restart_count),
        "BatchHost": record.batch_host or "n/a",
        "NodeList": record.nodes,
        "SubmitTime": time(record.submit_time),
        "StartTime": time(record.start_time),
        "EndTime": time(record.end_time),
        "TimeLimit": "UNLIMITED" if minutes is None else f"{minutes}:00",
        "exit_code": f"{record.exit_code >> 8}:{record.exit_code & 0x7F}",
        "Partition": record.partition,
        "QOS": record.qos or "(null)",
        "Name": record.name,
        "Reason": record.reason,
        "Comment": record.comment or "(null)",
    }
