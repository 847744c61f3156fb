"""Which nodes the next attempt of a revision leaves out, because it failed there again and again.

The back-off knows how often a revision has failed, this knows where: two failures on one node
within ten minutes are held against the node for half an hour. Only where other nodes that SLURM has
named are left, for a revision that is broken fails everywhere and must not run out of nodes.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from isthmus.api.conditions import Phase, Reason
from isthmus.backends.slurm.records import NodeRecord
from isthmus.backends.slurm.states import (
    node_down,
    node_draining,
    node_maintenance,
    node_suspect,
)

FAILURES: Final = 2
WITHIN: Final = 600.0
"""Seconds between the first and the last of them."""
LASTS: Final = 1800.0
"""Seconds after the last one for which it is held against the node."""
MOST: Final = 16
"""Nodes that are left out at a time."""

_OF_THE_NODE: Final = frozenset(
    {Reason.JOB_FAILED, Reason.JOB_NODE_FAILED, Reason.STARTUP_TIMEOUT, Reason.PROBE_FAILED}
)
"""Ends that may be the node's fault; what SLURM or the start gate refused is not."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.,-]+")
_REFUSED: Final = frozenset({Reason.SUBMIT_REFUSED, Reason.PENDING_NEVER})
"""Ends by which SLURM says that no node is left, perhaps for what we have left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of the revision, as far as this rule looks at it.

    Attributes:
        node: that it ran on, "" where it never ran or ran on several.
        phase: where it stands.
        reason: why.
        finished_at: epoch seconds, None while it lives.
        without: it was submitted without some nodes.
    """

    node: str
    phase: Phase | None
    reason: str
    finished_at: float | None
    without: bool = False


def blamed(attempts: Iterable[Attempt], *, now: float) -> tuple[str, ...]:
    """The nodes that failures speak against, the worst first.

    Args:
        attempts: of one revision of one pool on one cluster.
        now: epoch seconds.
    """
    failures: dict[str, list[float]] = {}
    serves = set()
    for attempt in attempts:
        if attempt.phase is Phase.READY:
            serves.add(attempt.node)
        ended = attempt.finished_at
        if attempt.node and ended is not None and attempt.reason in _OF_THE_NODE:
            failures.setdefault(attempt.node, []).append(ended)
    found = {
        node: times
        for node, times in failures.items()
        if node not in serves and _lasts(sorted(times), now=now)
    }
    return tuple(sorted(found, key=lambda node: (-len(found[node]), -max(found[node]), node)))


def _lasts(times: Sequence[float], *, now: float) -> bool:
    """Whether as many failures lie as close together as it takes, not too long ago."""
    pairs = zip(times, times[FAILURES - 1 :], strict=False)
    return any(last - first <= WITHIN and now - last < LASTS for first, last in pairs)


def excluded(
    attempts: Sequence[Attempt],
    *,
    nodes: Iterable[NodeRecord],
    partitions: frozenset[str],
    options: Sequence[str],
    now: float,
) -> tuple[str, ...]:
    """The nodes that the next attempt is not to get, sorted; never all that it could get.

    In each partition that it may get a node is left that takes jobs. What SLURM refuses without
    some nodes is tried with them again.

    Args:
        attempts: of one revision of one pool on one cluster.
        nodes: that the last snapshot names; a site that hides them has nothing excluded.
        partitions: of which it may get one; empty where the site's default is not known, and then
            each in which a node that is blamed is.
        options: of sbatch, as the user gave them.
        now: epoch seconds.
    """
    suspects = blamed(attempts, now=now)
    if not suspects:
        return ()  # nearly always, and a cluster may have thousands of nodes
    users = _users_choice(options)
    if users is None or any(_refused_without(attempt, now=now) for attempt in attempts):
        return ()
    usable = {node.name: node for node in nodes if _takes_jobs(node) and node.name not in users}
    left: dict[str, int] = {}
    for node in usable.values():
        for partition in node.partitions & partitions if partitions else node.partitions:
            left[partition] = left.get(partition, 0) + 1
    found: list[str] = []
    for name in suspects:
        its = usable[name].partitions & left.keys() if name in usable else frozenset()
        if its and len(found) < MOST and all(left[partition] > 1 for partition in its):
            found.append(name)
            left |= {partition: left[partition] - 1 for partition in its}
    return tuple(sorted(found))


def said_of(nodes: Sequence[str]) -> str:
    """The end of a message of an attempt that was submitted without these nodes."""
    return f"; {told(nodes)}" if nodes else ""


def told(nodes: Sequence[str]) -> str:
    """The words for a message that says which nodes an attempt was submitted without."""
    return f"not on {', '.join(nodes)}, where this revision failed {FAILURES} times or more"


def _users_choice(options: Sequence[str]) -> frozenset[str] | None:
    """Nodes that the user excludes; None where he names those to use, or by a pattern."""
    found: set[str] = set()
    for option in options:
        name, _, value = option.partition("=")
        if name == "--nodelist" or (name == "--exclude" and not _PLAIN.fullmatch(value)):
            return None
        if name == "--exclude":
            found.update(value.split(","))
    return frozenset(found)


def _refused_without(attempt: Attempt, *, now: float) -> bool:
    ended = attempt.finished_at
    recent = ended is not None and now - ended < LASTS
    return attempt.without and recent and attempt.reason in _REFUSED


def _takes_jobs(node: NodeRecord) -> bool:
    tests = (node_down, node_draining, node_maintenance, node_suspect)
    return not any(test(node) for test in tests)
