"""The compute nodes of a simulated cluster: on which of them a job starts, and what sinfo shows.

Apart from the jobs: slurmctld knows both, and neither decides about the other.
"""

import re
from collections.abc import Mapping
from random import Random

from isthmus.backends.slurm.records import NodeRecord
from tests.simulation.slurm_jobs import Job, Site

_NODES = re.compile(r"--nodes=(\d+)")
_NAME = re.compile(r"(.*?)(\d+)")


def addresses(count: int, *, network: int) -> dict[str, str]:
    """Names and addresses; all clusters give their nodes the same names, as sites do."""
    return {f"gpu{n:02}": f"10.1{network}.0.{n}" for n in range(1, count + 1)}


def placed(job: Job, *, nodes: Mapping[str, str], site: Site, random: Random) -> tuple[str, ...]:
    """Nodes that the job may get, the one of its script first.

    One where everything fails is always idle.
    """
    options = () if job.request is None else job.request.options
    excluded = {
        name
        for option in options
        if option.startswith("--exclude=")
        for name in option.partition("=")[2].split(",")
    }
    closed = site.drained.keys() | site.states.keys()
    free = nodes.keys() - excluded
    drawn = random.choice(sorted(free - closed or free))
    bad = site.bad_node
    gone = excluded | closed
    first = bad if bad and bad not in gone and job.request is not None else drawn
    more = sorted((free - closed or free) - {first})
    return first, *more[: _asked(options) - 1]


def _asked(options: tuple[str, ...]) -> int:
    found = [_NODES.fullmatch(option) for option in options]
    return max([int(one[1]) for one in found if one is not None], default=1)


def hostlist(nodes: tuple[str, ...]) -> str:
    """As SLURM writes several names: `gpu[01,03]`."""
    if len(nodes) < 2:
        return "".join(nodes)
    parts = [one for name in sorted(nodes) if (one := _NAME.fullmatch(name)) is not None]
    return f"{parts[0][1]}[{','.join(one[2] for one in parts)}]"


def shown(nodes: Mapping[str, str], *, site: Site) -> dict[str, NodeRecord]:
    """The records of sinfo."""
    return {
        name: NodeRecord(
            name=name,
            address=address,
            states=_states(name, site),
            reason=site.drained.get(name, site.reasons.get(name, "")),
            partitions=frozenset({"gpu"}),
        )
        for name, address in nodes.items()
    }


def _states(name: str, site: Site) -> frozenset[str]:
    flags = site.states.get(name, frozenset())
    base = frozenset[str]() if "DOWN" in flags else frozenset({"MIXED"})
    return base | flags | ({"DRAIN"} if name in site.drained else frozenset())


def usable(nodes: Mapping[str, str], *, site: Site) -> int:
    """On how many a job could start."""
    return len(nodes.keys() - site.drained.keys() - site.states.keys())
