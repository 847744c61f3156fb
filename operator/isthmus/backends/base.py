"""The records that every backend hands to the planner, so that one planner speaks of pods and jobs.

Kept apart from both backends: neither may know the other, and no planner knows either.
"""

from dataclasses import dataclass, field
from typing import Literal

from isthmus.api.conditions import PendingClass

Backend = Literal["kubernetes", "slurm"]

WAITING_FOR_PLACE = frozenset(
    {PendingClass.UNSCHEDULABLE, PendingClass.RESOURCES, PendingClass.QUOTA, PendingClass.HELD}
)
"""Kinds of wait in which a worker has no place yet, so that another pool may serve meanwhile."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Why a worker is not ready yet, in a user's words.

    Attributes:
        pending_class: what kind of wait it is; decides whether waiting can help.
        reason: the scheduler's own word (`Unschedulable`, `Priority`, `ErrImagePull`).
        message: one sentence with what to do where something can be done.
        since: epoch seconds, None where the backend does not tell.
    """

    pending_class: PendingClass
    reason: str
    message: str
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine's metrics say of the requests that it holds.

    Attributes:
        requests: running and waiting together at the last reading; None if there was none.
        age: seconds since that reading.
        silent_for: seconds since which no reading succeeds; infinite where none can be made.
        idle_for: seconds from the first to the last of the readings in a row that found it idle;
            0 for a single one.
        proof: seconds for which idleness must have stood before it is believed: how late what the
            engine says of itself may be.
    """

    requests: int | None
    age: float = 0.0
    silent_for: float = 0.0
    idle_for: float = 0.0
    proof: float = 0.0


@dataclass(frozen=True, slots=True)
class Draining:
    """A worker that has left the rotation for good, or so it was planned.

    Attributes:
        since: epoch seconds.
        released_at: when it was told to end, epoch seconds; None while its requests are waited for.
        cut: requests that it still held when its budget ended.
        grace: seconds that Kubernetes gives a pod from its deletion on; None if not being deleted.
    """

    since: float
    released_at: float | None = None
    cut: int | None = None
    grace: float | None = None

    @property
    def waits(self) -> bool:
        """Its requests are waited for: nothing that cannot be undone has happened yet."""
        return self.released_at is None and self.grace is None


@dataclass(frozen=True, slots=True)
class Worker:
    """One pod or one SLURM attempt, as observed.

    Attributes:
        name: of the Pod or the SlurmJob object.
        phase: for display; the Pod's or the SlurmJob's.
        ready: health (and off-cluster: model and attempt) agree.
        in_rotation: a ready endpoint of the deployment's EndpointSlices.
        serving: may carry traffic or did; taking it away costs capacity. A worker whose probes
            fail only in our view is still serving.
        stopping: terminating or draining; never counted.
        failed: ended; never counted.
        tunnel: "Up" or "Down" where it is reached through a forward, else None.
        draining: it is on its way out, and how far.
        load: what its engine's metrics say, None where nobody asks.
        shares_key: an attempt that was started with the deployment's API key.
        silent_since: epoch seconds since when a worker that was ready fails its probes; None where
            it does not, or where nobody can ask it.
        problem: what is to be done about it and fails; "" for nothing.
        replaces: name of the displaced worker that it was made for, None for nobody in particular.
    """

    name: str
    uid: str
    pool: str
    backend: Backend
    revision: str
    phase: str
    ready: bool = False
    in_rotation: bool = False
    serving: bool = False
    stopping: bool = False
    failed: bool = False
    slot: int = 0
    job_id: int | None = None
    node: str | None = None
    url: str | None = None
    tunnel: str | None = None
    healthy: bool | None = None
    started_at: str | None = None
    ends_at: str | None = None
    finished_at: float | None = None
    pending: Pending | None = None
    draining: Draining | None = None
    load: Load | None = None
    shares_key: bool = False
    silent_since: float | None = None
    problem: str = ""
    replaces: str | None = None

    @property
    def live(self) -> bool:
        """Counted as a replica: neither ended nor being stopped."""
        return not self.stopping and not self.failed

    @property
    def available(self) -> bool:
        """Ready and in the membership: a client can reach it."""
        return self.live and self.ready and self.in_rotation


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """All workers of one revision of one pool.

    Attributes:
        wanted: what has been asked of the backend: `spec.replicas` of the Deployment less the pods
            that drain, or the number of SlurmJob objects neither ended nor being deleted.
        exists: whether the backend's own object (a Deployment) is there.
        problem: why the backend itself makes no workers (for example a quota), if it says so.
    """

    pool: str
    backend: Backend
    revision: str
    wanted: int
    exists: bool = True
    workers: tuple[Worker, ...] = field(default=())
    problem: Pending | None = None

    @property
    def live_workers(self) -> tuple[Worker, ...]:
        """Workers that count as replicas."""
        return tuple(worker for worker in self.workers if worker.live)

    @property
    def waiting(self) -> tuple[Worker, ...]:
        """Workers whose requests are waited for before they are removed."""
        return tuple(
            w for w in self.workers if w.draining is not None and w.draining.waits and not w.failed
        )

    @property
    def available(self) -> int:
        """Number of workers a client can reach and that will stay.

        Of workers beyond `wanted` some are about to go, though none is ending yet.
        """
        return min(self.wanted, sum(worker.available for worker in self.workers))

    @property
    def rotating(self) -> int:
        """Number of live workers that stand in the membership, and that will stay."""
        return min(self.wanted, sum(worker.live and worker.in_rotation for worker in self.workers))

    @property
    def serving(self) -> int:
        """Number of live workers that may carry traffic and that will stay."""
        return min(self.wanted, sum(worker.live and worker.serving for worker in self.workers))
