"""What supervisors that are dead left behind, and when it is taken away.

Apart from the rounds, since it is about others: their slices, and whether they live.
"""

import logging

from isthmus.apiserver.objects import owner_uids
from isthmus.tunnels.heartbeat import Heartbeat
from isthmus.tunnels.publisher import Publisher

_log = logging.getLogger(__name__)


class Leftovers:
    """Removes slices and Leases of supervisors that are dead."""

    def __init__(self, *, publisher: Publisher, heartbeat: Heartbeat, host: str) -> None:
        """Prepare.

        Args:
            publisher: knows the slices of all.
            heartbeat: the Leases of all.
            host: id of this supervisor.
        """
        self._publisher, self._heartbeat, self._host = publisher, heartbeat, host
        self._written: frozenset[tuple[str, str, int | None]] | None = None

    async def remove(self, mine: frozenset[str]) -> None:
        """Take them away once we hold the same ourselves, or where nobody wants it any more.

        Args:
            mine: uids of SlurmJobs whose forwards we hold, or that are over.

        Raises:
            ApiError: a write failed.
        """
        hosts = self._publisher.hosts() | self._heartbeat.known()
        for host in sorted(self._heartbeat.dead(hosts)):
            left = 0
            for obj in self._publisher.slices(host):
                if mine & set(owner_uids(obj)):
                    _log.info("Removing a slice of %s, which is dead", host)
                    await self._publisher.remove(obj)
                else:
                    left += 1
            if not left:
                await self._heartbeat.bury(host)

    def listen(self) -> None:
        """Who writes slices lives; deleting those of one that has just come back empties a set."""
        before, self._written = self._written, self._publisher.written()
        if before is not None:
            for host in {host for host, *_ in self._written - before} - {self._host}:
                self._heartbeat.heard(host)
