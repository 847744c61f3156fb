"""Counts of transitions, for Prometheus: the second reader, beside the events.

It counts what is told, also what the rate of events leaves out. Labels are the kind and the reason,
both closed sets; names of objects and of tenants are none.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, generate_latest

from isthmus.api.reasons import Reason
from isthmus.apiserver.objects import Object
from isthmus.small_server import Page
from isthmus.telemetry.events import EventType
from isthmus.telemetry.transitions import TOLD

PATH: Final = "/metrics"
_TEXT_FORMAT: Final = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What the operator counts, in a registry of its own (`EventSink`)."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._transitions = Counter(
            "isthmus_transitions",
            "What became different of our objects, by kind and reason (docs/reasons.md).",
            ["kind", "reason"],
            registry=self._registry,
        )
        for kind, reasons in TOLD.items():
            for reason in reasons:  # from 0 on: the first one is an increase too
                self._transitions.labels(kind=kind, reason=str(reason))

    def emit(self, obj: Object, *, type: EventType, reason: Reason, message: str) -> None:
        """Count a change of `obj`, an object as it is stored."""
        self._transitions.labels(kind=str(obj.get("kind", "")), reason=str(reason)).inc()

    def page(self) -> Page:
        """All counts, in the text format of Prometheus."""
        return Page(generate_latest(self._registry), content_type=_TEXT_FORMAT)
