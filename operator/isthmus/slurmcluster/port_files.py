"""Ports that jobs have told by a file, because their comment may not say them.

One question for all jobs of a work directory at a time, however many wait: sites that let nobody
change a comment let nobody change any.
"""

import logging
from collections.abc import Callable

from isthmus.api.desired import ClusterReference
from isthmus.errors import SlurmError
from isthmus.slurmcluster.running import Clusters
from isthmus.slurmcluster.state import ClusterStates

_log = logging.getLogger(__name__)

EVERY = 20.0
"""Seconds between two questions about one work directory."""
AT_ONCE = 200
"""Jobs of one question."""

_Place = tuple[ClusterReference, str]


class PortFiles:
    """Asks for the files of silent jobs, and puts what they say into the clusters' states."""

    def __init__(
        self, *, clusters: Clusters, states: ClusterStates, clock: Callable[[], float]
    ) -> None:
        """Prepare.

        Args:
            clusters: whose folders are read.
            states: where the ports go.
            clock: monotonic seconds.
        """
        self._clusters, self._states, self._clock = clusters, states, clock
        self._waiting: dict[_Place, dict[str, int]] = {}
        self._asked: dict[_Place, float] = {}

    def told(self, reference: ClusterReference, *, job_name: str, job_id: int | None) -> int | None:
        """The port of a job, None where no file has told it."""
        state = self._states.get(reference)
        port, whose = (None, None) if state is None else state.ports.get(job_name, (None, None))
        return port if whose == job_id else None

    async def read(
        self, reference: ClusterReference, *, folder: str, job_name: str, job_id: int
    ) -> None:
        """Look for the port of a job, together with all that wait; a failure can wait."""
        place = reference, folder
        self._waiting.setdefault(place, {})[job_name] = job_id
        now = self._clock()
        if now - self._asked.get(place, -EVERY) < EVERY:
            return
        self._asked[place] = now
        jobs = list(self._waiting.pop(place).items())[:AT_ONCE]
        try:
            found = await self._clusters.work_folder(reference).published_ports(
                work_directory=folder, jobs=jobs
            )
        except SlurmError as error:
            _log.warning("Looking for ports in %s: %s", folder, error)
            return
        state, ids = self._states.get(reference), dict(jobs)
        if state is not None:
            state.ports |= {name: (port, ids[name]) for name, port in found.items()}
