"""What is known of one SlurmJob when it is planned, and what the plan is.

Apart from the planner because the reconciler makes one and executes the other.
"""

from dataclasses import dataclass
from typing import Literal

from isthmus.backends.base import Load
from isthmus.backends.slurm.records import JobRecord, UnreadableJob
from isthmus.engines.questions import ProbeReason
from isthmus.routing.tunnel_slice import TunnelSlice
from isthmus.rules.drain import UNREADABLE
from isthmus.slurmcluster.observation import ClusterObservation
from isthmus.slurmjob.actions import SlurmJobAction
from isthmus.slurmjob.record import AttemptStatus


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds and counts that the rules use; from the operator's settings.

    Attributes:
        submit_unknown_wait: how long an unclear submission may still turn up.
        deregister_delay: least time between leaving the membership and TERM.
        termination_grace: between TERM and scancel.
        repeat: before a cancellation that shows no effect is sent again.
        tunnel_patience: how long a deletion waits for a tunnel supervisor to take the worker out
            of rotation, before that is done for it; as long as a supervisor's heartbeat lasts.
        max_unresolved: unclear submissions, of a cluster and of a namespace on it, beyond which
            nothing is submitted.
        unclear_pause_cap: longest pause between two submissions of one attempt, if that is longer
            than `submit_unknown_wait`.
        unsent_pause: before the second try of a submission that could not be sent.
        unsent_pause_cap: before any later one.
    """

    submit_unknown_wait: float
    deregister_delay: float
    termination_grace: float
    repeat: float = 10.0
    tunnel_patience: float = 15.0
    max_unresolved: int = 16
    unclear_pause_cap: float = 600.0
    unsent_pause: float = 10.0
    unsent_pause_cap: float = 300.0


@dataclass(frozen=True, slots=True)
class EndpointRules:
    """What an endpoint must look like, and how long a start may take (seconds).

    Attributes:
        networks: `network.nodeCIDRs`; empty for any address.
    """

    port_from: int
    port_to: int
    startup_timeout: float
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Network:
    """How the worker is to be reached.

    Attributes:
        mode: the cluster's, never Auto.
        service: whose membership it belongs to.
        free_port: a port for a forward, reserved for this attempt; None where all are taken.
        port_lost: another worker has the port that the status says; `free_port` takes its place.
        tunnels: the slices of its forward, one for each supervisor that holds it.
    """

    mode: str = "Direct"
    service: str = ""
    free_port: int | None = None
    port_lost: bool = False
    tunnels: tuple[TunnelSlice, ...] = ()


@dataclass(frozen=True, slots=True)
class SlurmJobObservation:
    """One SlurmJob.

    Attributes:
        records: jobs in the last complete snapshot with exactly the attempt's job name.
        unreadable: jobs of that name in it of which only id and name can be read.
        last_seen: begin of the last complete snapshot that showed the name, epoch seconds.
        confirmed_gone: the second source said that the job id does not exist.
        probe_healthy: None while no probe has given a verdict.
        probe_age: seconds since the last probe ended.
        slice_target: address and port that stand in the membership now.
        load: what its engine's metrics say.
        drain_timeout: seconds that its requests get to finish once it is out of rotation.
        slice_in_service: the slice, if there is one, belongs to the membership Service.
        renderable: the revision it runs is known, so that it can be submitted.
        work_directory: the attempt's own, or else the cluster's, for script, log and gate.
        others_answer: another worker of the same cluster answers our probes now.
        others_good: another member of the same deployment is known to be good.
        network: how it is to be reached.
        deleting_since: when its deletion was asked for, epoch seconds.
        owner_is_there: its ModelDeployment is; without it nothing is submitted.
        told_port: what the job has written into its run folder; None where that is not known.
        excluded_nodes: that a submission is to leave out (`policy.blame`).
        unread: which fields of its object cannot be read, "" if all can; it is followed and ended,
            and not submitted.
    """

    job_name: str
    attempt: str
    deleting: bool
    has_finalizer: bool
    status: AttemptStatus
    cluster: ClusterObservation
    limits: Limits
    endpoint: EndpointRules
    records: tuple[JobRecord, ...] = ()
    unreadable: tuple[UnreadableJob, ...] = ()
    last_seen: float | None = None
    confirmed_gone: bool = False
    probe_healthy: bool | None = None
    probe_reason: ProbeReason | Literal[""] = ""
    probe_message: str = ""
    probe_age: float = 0.0
    slice_target: tuple[str, int] | None = None
    load: Load = UNREADABLE
    drain_timeout: float = 300.0
    slice_in_service: bool = True
    renderable: bool = True
    work_directory: str = ""
    others_answer: bool = False
    others_good: bool = True
    network: Network = Network()
    deleting_since: float | None = None
    owner_is_there: bool = True
    told_port: int | None = None
    excluded_nodes: tuple[str, ...] = ()
    unread: str = ""

    @property
    def clear(self) -> bool:
        """Whether SLURM has just told all about this attempt, if only that it has no job of it."""
        seen = self.cluster.shows_all or bool(self.records)
        return self.cluster.fresh and seen and not self.unreadable


@dataclass(frozen=True, slots=True)
class SlurmJobPlan:
    """What to do about one SlurmJob.

    Attributes:
        status: to be written.
        actions: in order.
        requeue_after: seconds until the next look, None for the next change.
        probe_now: have a probe made at once: the next decision needs a fresh one.
    """

    status: AttemptStatus
    actions: tuple[SlurmJobAction, ...] = ()
    requeue_after: float | None = None
    probe_now: bool = False
