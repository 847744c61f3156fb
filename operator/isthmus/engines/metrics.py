"""Reads a page of an engine's metrics: how many requests it holds.

The Prometheus text format is read here and not by a library, because only some lines of a page of
thousands are wanted, every few seconds, of thousands of workers, and the page comes from a process
that need not be ours: nothing of it may be expensive or raise. It is read piece by piece as it
comes and nothing of it is kept, because a page grows (SGLang keeps every unknown path that anybody
has ever asked for).

The text of this module also stands in front of the hook of each pod (backends/kubernetes/prestop),
so that operator and hook cannot judge differently: standard library only, and nothing that
Python 3.8 would not take.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import NamedTuple

MOST_PAGE_BYTES = 64_000_000
MOST_LINE_BYTES = 1_000_000

_ENDPOINT = re.compile(rb'[{,]\s*endpoint="((?:[^"\\]|\\.)*)"')


class LoadRule(NamedTuple):
    """How a page becomes the number of requests that an engine holds.

    The number is the larger one of two that count the same requests at different places: what the
    scheduler says, and what the HTTP server says. So nothing that either of them knows is missed.

    Attributes:
        gauges: metrics of the scheduler, whose sum over all samples it is; all must be there.
        proof: seconds for which 0 must have stood before it is believed: how late a page may be.
        active: gauge of the requests that the HTTP server has taken and not finished, with the
            label `endpoint`; None for an engine whose gauges say it all.
        apart_from: endpoints that are no work: what probes, routers and scrapers ask. All others
            count, also unknown ones: they are answered with 404 at once, and a release to come may
            serve by a path that is not known here.
        proof_without: as `proof`, where `active` does not stand on the page.
    """

    gauges: tuple[str, ...]
    proof: float
    active: str | None = None
    apart_from: tuple[str, ...] = ()
    proof_without: float = 0.0


class Reading(NamedTuple):
    """What a page said.

    Attributes:
        requests: that the engine holds, running and waiting.
        proof: seconds for which 0 must have stood before it is believed.
    """

    requests: int
    proof: float


class LoadReader:
    """Takes one page in pieces; `reading` when it has ended."""

    def __init__(self, rule: LoadRule) -> None:
        """Prepare for one page."""
        self._rule = rule
        names = rule.gauges if rule.active is None else (*rule.gauges, rule.active)
        self._names = tuple(name.encode() for name in names)
        self._sums: dict[str, float] = {}
        self._rest = b""
        self._size = 0
        self._broken = False

    def feed(self, piece: bytes) -> bool:
        """Take the next piece; False when no more of this page is of any use."""
        self._size += len(piece)
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.startswith(self._names):
                self._line(line)
        if self._size > MOST_PAGE_BYTES or len(self._rest) > MOST_LINE_BYTES:
            self._broken = True
        return not self._broken

    def reading(self) -> Reading | None:
        """What the page said; None where a gauge is missing or a value is no number."""
        if self._rest.startswith(self._names):
            self._line(self._rest)
            self._rest = b""
        rule, sums = self._rule, self._sums
        if self._broken or not all(name in sums for name in rule.gauges):
            return None
        held = sum(sums[name] for name in rule.gauges)
        if rule.active is None:
            return Reading(round(held), rule.proof)
        if rule.active not in sums:
            return Reading(round(held), rule.proof_without)
        return Reading(round(max(held, sums[rule.active])), rule.proof)

    def _line(self, line: bytes) -> None:
        name = re.split(rb"[{ \t]", line, maxsplit=1)[0]
        if name not in self._names:
            return  # a longer name
        labels, brace, rest = line[len(name) :].rpartition(b"}")
        value = _number(rest)
        if value is None or labels.startswith(b"{") is not bool(brace):
            self._broken = True
            return
        own = name.decode()
        if own == self._rule.active and self._apart(labels):
            value = 0.0
        self._sums[own] = self._sums.get(own, 0.0) + value

    def _apart(self, labels: bytes) -> bool:
        found = _ENDPOINT.search(labels)
        return found is not None and found[1].decode(errors="replace") in self._rule.apart_from


def held_requests(page: bytes, *, rule: LoadRule) -> Reading | None:
    """What a whole page says: see `LoadReader`."""
    reader = LoadReader(rule)
    reader.feed(page)
    return reader.reading()


def _number(rest: bytes) -> float | None:
    """The value of a sample, which a time stamp may follow."""
    words = rest.split()
    try:
        value = float(words[0])
    except (IndexError, ValueError):
        return None
    return value if isfinite(value) and value >= 0 else None
