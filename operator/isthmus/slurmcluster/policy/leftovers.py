"""Which files of attempts that are over may go from a work directory.

Each attempt leaves its log, its claim and a folder there, and now and then a key that no job took.
They are kept for a while: logs are read after the fact, and a claim turns a submission away that
turns up late. Pure, and named after whole job names of this installation: others share folders.
"""

import re
from collections.abc import Iterable, Set
from typing import Final

from isthmus.api.names import parse_slurm_job_name

MOST: Final = 200
"""Files that go at a time."""

KEY_SECONDS: Final = 3600.0
"""After this long a key file belongs to no submission: while a job waits, its SlurmJob is there."""

_FILE: Final = re.compile(
    r"(?P<job>[a-z0-9][a-z0-9.-]{0,254}?)"
    r"(\.claim|\.[0-9]{1,12}\.log|\.(key|tunnel)(\.[0-9]{1,10}\.[0-9]{1,5})?)?"
)


def may_go(files: Iterable[str], *, installation_id: str, known: Set[str]) -> tuple[str, ...]:
    """Return the names of the files that may be removed, at most MOST.

    Args:
        files: names of what is old enough in a work directory.
        installation_id: ours.
        known: names of all jobs that SLURM shows, readable or not, and of all SlurmJobs.
    """
    found: list[str] = []
    for file in files:
        match = _FILE.fullmatch(file)
        name = None if match is None else parse_slurm_job_name(match["job"])
        if match is None or name is None or name.installation_id != installation_id:
            continue
        if match["job"] not in known:
            found.append(file)
    return tuple(sorted(found)[:MOST])
