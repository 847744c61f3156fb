"""What every source of displacement says of a worker; the rollout knows nothing else of it."""

from dataclasses import dataclass

from isthmus.api.reasons import Reason


@dataclass(frozen=True, slots=True)
class Displacement:
    """A live worker that is to be replaced by another of the same revision.

    Attributes:
        worker: its name.
        reason: why, for the status.
        message: the same in a sentence.
        ready_by: epoch seconds from which on its successor is due; None: no hurry.
        involuntary: it ends anyway, so its successor comes beyond the surge once it is due.
        on_trial: its successor shows whether it has to go; it does not go for that alone.
    """

    worker: str
    reason: Reason
    message: str
    ready_by: float | None = None
    involuntary: bool = False
    on_trial: bool = False

    def due(self, *, now: float) -> bool:
        """Whether its successor should exist; `now` in epoch seconds."""
        return self.ready_by is None or self.ready_by <= now
