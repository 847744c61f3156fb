"""The running side of the SLURM clusters: one way to it and one poller per SlurmCluster.

The SlurmCluster reconciler says what should run; this module starts, replaces and ends it. A
poller that dies ends the process, as every background task does.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from isthmus.api.desired import ClusterReference
from isthmus.api.ip_family import IpFamily
from isthmus.api.reasons import Reason
from isthmus.backends.slurm.addresses import nodes_family
from isthmus.backends.slurm.client import SlurmClient
from isthmus.backends.slurm.login import ClusterAccess, ClusterHandle
from isthmus.backends.slurm.records import (
    NotSent,
    Snapshot,
    SnapshotChanges,
    SubmitOutcome,
    SubmitRequest,
)
from isthmus.backends.slurm.work_folder import WorkFolder
from isthmus.errors import SlurmUnavailableError
from isthmus.slurmcluster.poller import Poller, PollListener, PollTimes
from isthmus.slurmcluster.state import ClusterState, ClusterStates

_log = logging.getLogger(__name__)

SUBMISSIONS_AT_ONCE = 8


Reach = Callable[[ClusterAccess], ClusterHandle]
ChangeListener = Callable[[ClusterReference, SnapshotChanges | None], None]
"""Called with what a snapshot changed, or None when the cluster's reachability changed."""


@dataclass(slots=True)
class _Running:
    access: ClusterAccess
    handle: ClusterHandle
    poller: Poller
    task: asyncio.Task[None]
    submissions: asyncio.Semaphore


class Clusters:
    """All clusters that are polled."""

    def __init__(
        self,
        *,
        states: ClusterStates,
        reach: Reach,
        on_change: ChangeListener,
        on_death: Callable[[BaseException], None],
    ) -> None:
        """Prepare; `ensure` starts clusters.

        Args:
            states: where snapshots go.
            reach: makes the way to a cluster.
            on_change: told after every snapshot and failure that changes something.
            on_death: told when a poller ends by an error, which must end the process.
        """
        self._states = states
        self._reach = reach
        self._on_change = on_change
        self._on_death = on_death
        self._running: dict[ClusterReference, _Running] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def states(self) -> ClusterStates:
        """What was seen of the clusters."""
        return self._states

    def ensure(self, reference: ClusterReference, access: ClusterAccess) -> None:
        """Have the cluster polled in this way, keeping what runs if it is the same."""
        current = self._running.get(reference)
        if current is not None and current.access == access:
            return
        self.stop(reference)
        self._states.put(reference, ClusterState(stale_after=access.stale_after))
        handle = self._reach(access)
        poller = Poller(
            handle.client,
            times=PollTimes(
                interval=access.poll_interval,
                backoff_cap=min(300.0, access.poll_interval * 10),
                probe_interval=min(15.0, access.poll_interval),
                poke_gap=min(2.0, access.poll_interval / 2),
            ),
            listener=PollListener(
                on_snapshot=lambda found: self._take(reference, found, warning=handle.warning()),
                on_failure=lambda failure: self._fail(reference, failure),
                prepare=lambda: self._prepare(reference, handle, access),
            ),
        )
        task = asyncio.create_task(self._poll(handle, poller), name=f"poller {reference.name}")
        task.add_done_callback(self._done)
        self._running[reference] = _Running(
            access=access,
            handle=handle,
            poller=poller,
            task=task,
            submissions=asyncio.Semaphore(SUBMISSIONS_AT_ONCE),
        )

    def refuse(self, reference: ClusterReference, failure: SlurmUnavailableError) -> None:
        """Run nothing for a cluster, and say why it cannot be seen."""
        state = self._states.get(reference)
        if reference in self._running or state is None:
            self.stop(reference)
            self._states.put(reference, ClusterState(stale_after=0.0))
        self._fail(reference, failure)

    def stop(self, reference: ClusterReference) -> None:
        """End the polling of a cluster, if it is polled, and forget what was seen."""
        running = self._running.pop(reference, None)
        if running is not None:
            running.task.cancel()
            self._ending.add(running.task)
            running.task.add_done_callback(self._ending.discard)
        self._states.drop(reference)

    async def close(self) -> None:
        """End all pollers and the ways to their clusters."""
        for reference in tuple(self._running):
            self.stop(reference)
        await asyncio.gather(*self._ending, return_exceptions=True)

    def client(self, reference: ClusterReference) -> SlurmClient:
        """The scheduler of a cluster.

        Raises:
            SlurmUnavailableError: the cluster is not polled (its object is gone).
        """
        return self._handle(reference).client

    def work_folder(self, reference: ClusterReference) -> WorkFolder:
        """The files of a cluster's jobs.

        Raises:
            SlurmUnavailableError: the cluster is not polled (its object is gone).
        """
        return self._handle(reference).work_folder

    def _handle(self, reference: ClusterReference) -> ClusterHandle:
        running = self._running.get(reference)
        if running is None:
            raise SlurmUnavailableError(
                f"SlurmCluster {reference.namespace}/{reference.name} is not being polled",
                reason=Reason.NOT_OBSERVED_YET,
            )
        return running.handle

    async def submit(
        self,
        reference: ClusterReference,
        request: SubmitRequest,
        *,
        check: Callable[[], str],
    ) -> SubmitOutcome:
        """Submit once, with at most a few submissions of a cluster at a time.

        Args:
            reference: the cluster.
            request: what to submit.
            check: called right before sbatch, after the wait for a place: returns why it is not
                wanted any more, "" if it is; raises if it must not be.
        """
        running = self._running.get(reference)
        if running is None:
            return NotSent("its cluster was being set up anew")
        async with running.submissions:
            unwanted = check()
            return NotSent(unwanted) if unwanted else await running.handle.client.submit(request)

    def family(self, reference: ClusterReference) -> IpFamily:
        """Family of the addresses of a cluster's nodes, as the last complete snapshot has them."""
        state = self._states.get(reference)
        snapshot = None if state is None else state.snapshot
        return nodes_family(() if snapshot is None else snapshot.nodes.values())

    def poke(self, reference: ClusterReference) -> None:
        """Ask for a snapshot soon."""
        running = self._running.get(reference)
        if running is not None:
            running.poller.poke()

    @staticmethod
    async def _poll(handle: ClusterHandle, poller: Poller) -> None:
        try:
            await poller.run()
        finally:
            await handle.close()

    async def _prepare(
        self, reference: ClusterReference, handle: ClusterHandle, access: ClusterAccess
    ) -> bool:
        """Make what jobs need before they can be submitted; returns whether that is done."""
        state = self._states.get(reference)
        if state is None:
            return False
        try:
            await handle.work_folder.prepare(work_directory=access.work_directory)
            state.version = await handle.client.version()
        except SlurmUnavailableError as failure:
            state.unprepared = str(failure)
            return False
        state.unprepared = ""
        return True

    def _take(self, reference: ClusterReference, snapshot: Snapshot, *, warning: str) -> None:
        state = self._states.get(reference)
        if state is None:
            return
        was_seen = state.snapshot is not None and state.failure is None
        changed = state.take(snapshot)
        warning = warning or state.unprepared
        warned, state.warning = state.warning != warning, warning
        if not was_seen:
            _log.info("SlurmCluster %s/%s answers", reference.namespace, reference.name)
            self._on_change(reference, None)
        else:
            self._on_change(reference, None if warned else changed)

    def _fail(self, reference: ClusterReference, failure: SlurmUnavailableError) -> None:
        state = self._states.get(reference)
        if state is not None and state.fail(failure):
            _log.warning(
                "SlurmCluster %s/%s cannot be seen: %s",
                reference.namespace,
                reference.name,
                failure,
            )
            self._on_change(reference, None)

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_death(error)
