"""A job as slurmctld believes it to be, and how its site behaves. Records, without behaviour."""

from dataclasses import dataclass, field

from isthmus.backends.slurm.records import SubmitRequest
from tests.simulation.engines import Engine
from tests.simulation.shape import DAY

LIVE = frozenset({"PENDING", "RUNNING", "COMPLETING", "SUSPENDED"})


@dataclass(slots=True, eq=False)
class Job:
    """One job as slurmctld believes it to be; times are loop times."""

    id: int
    name: str
    comment: str
    request: SubmitRequest | None  # None: not a job of ours
    submitted_at: float
    eligible_at: float
    state: str = "PENDING"
    reason: str = "Priority"
    held: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    node: str = ""  # of its script
    nodes: tuple[str, ...] = ()
    restarts: int = 0
    exit_code: int = 0
    engine: Engine | None = None
    woken_at: float = 0.0  # from its last suspension
    rolled_back: bool = False  # slurmctld forgot that it had started
    ends_at: float | None = None  # as granted
    walltime: float = DAY


@dataclass(slots=True)
class Site:
    """How this cluster behaves; faults change these values for a while."""

    gpus: int = 6
    quota: int = 1000  # jobs of ours that may run at a time
    folder_broken: bool = False  # the work directory cannot be written
    queue_seconds: float = 20.0
    load_seconds: float = 40.0
    drain_seconds: float = 20.0
    kill_wait: float = 5.0
    min_job_age: float = 300.0
    publish_delay: float = 1.0
    forged_port: int | None = None
    rewrite_comments: bool = False
    crash_chance: float = 0.0
    clock_skew: float = 0.0
    nodes_hidden: bool = False
    walltime: float = DAY
    bad_node: str = ""  # engines that start there fail
    drained: dict[str, str] = field(default_factory=dict)  # node → the administrator's reason
    states: dict[str, frozenset[str]] = field(default_factory=dict)  # node → words that close it
    reasons: dict[str, str] = field(default_factory=dict)  # node → why, where somebody said so
