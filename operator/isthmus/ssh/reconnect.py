"""When a lost connection may be opened again. Pure; times are seconds of one monotonic clock.

The first attempt after a loss is immediate. After one that failed there is at most one per
`pause`, since sites ban addresses that knock too often; after one that the host refused for good
(key, host key) one per `refused_pause`, until the files change.
"""

from __future__ import annotations

from dataclasses import dataclass

_SHORT_LIVED = 2
"""So many connections in a row that end within `pause` count as a failed attempt."""


@dataclass(slots=True)
class Reconnects:
    """The history of one connection, as far as it matters."""

    pause: float = 30.0
    refused_pause: float = 300.0
    _not_before: float = 0.0
    _connected_at: float | None = None
    _short_lived: int = 0

    def wait(self, *, now: float) -> float:
        """Seconds until the next attempt may begin; 0 for at once."""
        return max(0.0, self._not_before - now)

    def failed(self, *, now: float, permanent: bool = False) -> None:
        """Note an attempt that failed."""
        self._connected_at = None
        self._not_before = now + (self.refused_pause if permanent else self.pause)

    def connected(self, *, now: float) -> None:
        """Note an attempt that succeeded."""
        self._connected_at = now
        self._not_before = 0.0

    def lost(self, *, now: float) -> None:
        """Note that the connection ended; one that keeps ending at once is no success."""
        if self._connected_at is None:
            return
        brief = now - self._connected_at < self.pause
        self._short_lived = self._short_lived + 1 if brief else 0
        if self._short_lived >= _SHORT_LIVED:
            self._not_before = self._connected_at + self.pause
        self._connected_at = None

    def changed(self) -> None:
        """Forget the past: key or host keys are new."""
        self._not_before = 0.0
        self._short_lived = 0
