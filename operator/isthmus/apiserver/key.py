"""The name of one object, and an interval of its own."""

import zlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One object to reconcile."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """Return `Kind namespace/name`, as log lines show it."""
        return f"{self.kind} {self.namespace}/{self.name}"


def spread(seconds: float, *, key: Key) -> float:
    """An interval that differs by up to a tenth from key to key and is the same for each key.

    Thousands of objects that were looked at together after a start drift apart by it.
    """
    share = zlib.crc32(str(key).encode()) / 2**32
    return seconds * (0.9 + 0.2 * share)
