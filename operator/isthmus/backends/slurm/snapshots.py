"""One look at a cluster: the two questions, and what their answers mean together. Pure.

Apart from `commands.py`, which asks, and from `parsing.py`, which reads one answer: here stands
what a site may keep from us (its nodes) without being out of order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from isthmus.api.names import parse_slurm_job_name
from isthmus.backends.slurm import parsing, reasons
from isthmus.backends.slurm.parsing import JobList, Section
from isthmus.backends.slurm.records import JobRecord, NodeRecord
from isthmus.backends.slurm.states import observe

_HIDDEN = re.compile(r"slurm_load_(node|part)\w*( error)?: Access/permission denied")


def questions(path: Callable[[str], str], *, mark: str) -> tuple[tuple[str, ...], ...]:
    """The commands, squeue before sinfo; `path` says where one is."""
    jobs = parsing.output_format(parsing.JOB_FIELDS, mark=mark)
    nodes = parsing.output_format(parsing.NODE_FIELDS, mark=mark)
    return (
        (path("squeue"), "-h", "--me", "--states=all", "-O", jobs),
        (path("sinfo"), "-h", "-N", "-a", "-O", nodes),
    )


def nodes_hidden(nodes: Section, errors: str) -> bool:
    """Whether sinfo failed because the site shows its nodes to nobody (PrivateData=nodes).

    Args:
        nodes: what sinfo printed; squeue had succeeded before it.
        errors: what both printed to standard error.
    """
    denied = nodes.returncode != 0 and _HIDDEN.search(errors) is not None
    return denied and reasons.outage(errors) is None


def read(
    *, jobs: Section, nodes: Section, hidden: bool, mark: str
) -> tuple[JobList, Mapping[str, NodeRecord]]:
    """The jobs, and the nodes by name.

    Raises:
        OutputError: an answer is cut off.
        FormatError: an answer is in a form that is not known.
    """
    found = parsing.parse_jobs(jobs.output, mark=mark)
    return found, {} if hidden else parsing.parse_nodes(nodes.output, mark=mark)


def unlisted_hosts(
    jobs: Iterable[JobRecord], *, nodes: Mapping[str, NodeRecord]
) -> tuple[str, ...]:
    """Names of the nodes that live jobs of ours run on and that sinfo does not list."""
    names = {
        job.node
        for job in jobs
        if job.node not in nodes
        and observe(job).live
        and parse_slurm_job_name(job.name) is not None
    }
    return tuple(sorted(names - {""}))
