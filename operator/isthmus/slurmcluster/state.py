"""What is known of each SLURM cluster, in memory: snapshots, and what was concluded from them.

A restart begins with nothing and trusts nothing until a complete snapshot has come: identity is in
the jobs themselves.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from isthmus.api.desired import ClusterReference
from isthmus.api.reasons import Reason
from isthmus.backends.slurm.records import JobRecord, Snapshot, SnapshotChanges, UnreadableJob
from isthmus.backends.slurm.states import draining_nodes
from isthmus.errors import SlurmUnavailableError

_Job = JobRecord | UnreadableJob
_STARTS_KEPT = 8
_SET_BACK = 2.0
"""Seconds from which on the wall clock counts as set back."""


@dataclass(slots=True)
class ClusterState:
    """One cluster as its poller sees it.

    Attributes:
        stale_after: seconds after which a snapshot counts as no observation.
        snapshot: the last complete one.
        failure: why the poll after it failed, None if it did not.
        unprepared: why jobs cannot be submitted well although polls succeed: their folder.
        warning: what should be corrected although polls succeed; "" if nothing.
        confirmed_gone: (job id, job name) that the second source does not know.
        ports: job name to the port that stands in its run folder, and its job id.
    """

    stale_after: float
    snapshot: Snapshot | None = None
    failure: SlurmUnavailableError | None = None
    warning: str = ""
    unprepared: str = ""
    version: str | None = None
    confirmed_gone: set[tuple[int, str]] = field(default_factory=set)
    ports: dict[str, tuple[int, int]] = field(default_factory=dict)
    _starts: deque[float] = field(default_factory=lambda: deque(maxlen=_STARTS_KEPT))
    _last_seen: dict[str, float] = field(default_factory=dict)
    _by_name: dict[str, tuple[_Job, ...]] = field(default_factory=dict)

    @property
    def snapshot_starts(self) -> tuple[float, ...]:
        """When the last few snapshots that show all jobs were begun, epoch seconds."""
        return tuple(self._starts)

    def take(self, snapshot: Snapshot) -> SnapshotChanges:
        """Take in a complete snapshot.

        One that does not show all jobs (`Snapshot.shows_all`) is none of those by which something
        is found to be absent.
        """
        before, drained = self._by_name, draining_nodes(self.snapshot)
        found: dict[str, list[_Job]] = {}
        every: tuple[_Job, ...] = (*snapshot.jobs, *snapshot.unreadable)
        for record in every:
            found.setdefault(record.name, []).append(record)
        self._by_name = {name: tuple(records) for name, records in found.items()}
        self.snapshot, self.failure = snapshot, None
        if self._starts and self._starts[-1] > snapshot.started_at:
            self._clock_went_back(snapshot.started_at)
        if snapshot.shows_all:
            self._starts.append(snapshot.started_at)
        oldest = self._starts[0] if self._starts else snapshot.started_at
        self._last_seen = {
            name: start for name, start in self._last_seen.items() if start >= oldest
        } | dict.fromkeys(self._by_name, snapshot.started_at)
        self.confirmed_gone = {
            entry for entry in self.confirmed_gone if entry[1] not in self._by_name
        }
        self.ports = {name: told for name, told in self.ports.items() if name in self._by_name}
        names = before.keys() | self._by_name.keys()
        return SnapshotChanges(
            jobs=frozenset(name for name in names if before.get(name) != self._by_name.get(name)),
            draining=draining_nodes(snapshot) != drained,
        )

    def _clock_went_back(self, now: float) -> None:
        """Moments of before cannot be compared any more: count anew, and nothing was seen later."""
        self._starts.clear()
        self._last_seen = {name: min(start, now) for name, start in self._last_seen.items()}

    def fail(self, failure: SlurmUnavailableError) -> bool:
        """Take in a failed poll; returns whether the cause is a new one."""
        changed = self.failure is None or str(self.failure) != str(failure)
        self.failure = failure
        return changed

    def fresh(self, *, now: float) -> bool:
        """Whether the last look was complete and is recent."""
        return (
            self.snapshot is not None
            and self.failure is None
            # One of the future was taken before our clock was set back: how old is it?
            and -_SET_BACK <= now - self.snapshot.taken_at <= self.stale_after
        )

    def why_not_fresh(self, *, now: float) -> tuple[Reason, str]:
        """Reason and sentence for a cluster that cannot be seen."""
        if self.failure is not None:
            return self.failure.reason, str(self.failure)
        if self.snapshot is None:
            return (
                Reason.NOT_OBSERVED_YET,
                "the cluster has not been looked at since the operator started",
            )
        age = now - self.snapshot.taken_at
        return Reason.SNAPSHOT_STALE, f"the last complete look at the cluster is {age:.0f} s old"

    def records(self, name: str) -> tuple[JobRecord, ...]:
        """Jobs of the last complete snapshot with exactly this name."""
        return tuple(job for job in self._by_name.get(name, ()) if isinstance(job, JobRecord))

    def unreadable(self, name: str) -> tuple[UnreadableJob, ...]:
        """Jobs of exactly this name that the last snapshot shows, and nothing more of them."""
        return tuple(job for job in self._by_name.get(name, ()) if isinstance(job, UnreadableJob))

    def last_seen(self, name: str) -> float | None:
        """Begin of the last complete snapshot that showed this name; None if none of late did."""
        return self._last_seen.get(name)


class ClusterStates:
    """The states of all clusters that are polled."""

    def __init__(self) -> None:
        self._states: dict[ClusterReference, ClusterState] = {}

    def get(self, reference: ClusterReference) -> ClusterState | None:
        """The state of a cluster, None if it is not polled."""
        return self._states.get(reference)

    def put(self, reference: ClusterReference, state: ClusterState) -> None:
        """Begin with a cluster, or begin anew after its access changed."""
        self._states[reference] = state

    def drop(self, reference: ClusterReference) -> None:
        """Forget a cluster that is no more."""
        self._states.pop(reference, None)

    def forget_job(self, reference: ClusterReference, job_name: str) -> None:
        """Forget what was confirmed of an attempt whose SlurmJob is gone."""
        state = self._states.get(reference)
        if state is not None:
            state.confirmed_gone = {one for one in state.confirmed_gone if one[1] != job_name}

    def references(self) -> Iterable[ClusterReference]:
        """All clusters that are polled."""
        return tuple(self._states)
