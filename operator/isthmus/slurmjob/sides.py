"""What the passes over SlurmJobs reach, by side: the API server, SLURM, the installation itself.

Apart from their users, so that each takes a side as a whole instead of its parts.
"""

from collections.abc import Callable
from dataclasses import dataclass

from isthmus.api.slurmcluster import SlurmCluster
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.gate import Gate
from isthmus.apiserver.store import Store
from isthmus.slurmcluster.port_files import PortFiles
from isthmus.slurmcluster.running import Clusters
from isthmus.slurmcluster.state import ClusterStates
from isthmus.slurmcluster.submission_line import SubmissionLine
from isthmus.slurmjob.observation import Limits
from isthmus.telemetry.events import EventSink


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSide:
    """The API server.

    Attributes:
        store: what it said.
        api: gated; its answers go into the store.
        gate: the lease's, checked once more right before a SLURM command that changes something.
        events: told of each transition.
    """

    store: Store
    api: ApiServer
    gate: Gate
    events: EventSink


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmSide:
    """The clusters.

    Attributes:
        clusters: their clients.
        states: what the pollers saw.
        port_files: what jobs have written into their run folders.
        line: who may submit now.
    """

    clusters: Clusters
    states: ClusterStates
    port_files: PortFiles
    line: SubmissionLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What is set for the whole installation.

    Attributes:
        identity: stands in the comment of a job.
        limits: times that apply to jobs of a cluster.
        resync: seconds after which an attempt is looked at again although nothing changed.
    """

    identity: str
    limits: Callable[[SlurmCluster | None], Limits]
    resync: float
