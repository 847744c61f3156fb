"""Hands the transitions of an object to whoever reads them: events and counts."""

from isthmus.api.reasons import Reason
from isthmus.apiserver.objects import Object
from isthmus.telemetry.events import EventSink, EventType
from isthmus.telemetry.transitions import Status, transitions


class Readers:
    """Hands what is told to several (`EventSink`)."""

    def __init__(self, *readers: EventSink) -> None:
        self._readers = readers

    def emit(self, obj: Object, *, type: EventType, reason: Reason, message: str) -> None:
        """Hand it to each, in their order."""
        for reader in self._readers:
            reader.emit(obj, type=type, reason=reason, message=message)


def report(events: EventSink, obj: Object, *, before: Status | None, after: Status) -> None:
    """Tell what became different of an object, once its new status is stored.

    Args:
        events: takes it; never fails and never waits.
        obj: as it is stored.
        before: its status as the pass found it.
        after: as the pass wrote it.
    """
    for one in transitions(before, after):
        kind: EventType = "Warning" if one.warning else "Normal"
        events.emit(obj, type=kind, reason=one.reason, message=one.message)
