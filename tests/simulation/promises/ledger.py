"""What the judge keeps in mind: attempts, members, what operators may not know yet; and violations.

Apart from the rules, which are told in modules of their own and all write here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from isthmus.api.conditions import Phase
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import SLURM_CLUSTERS
from tests.simulation.apiserver import ApiSimulator, Json
from tests.simulation.engines import Engine, Machines
from tests.simulation.promises.desired import Place, drain_timeout
from tests.simulation.shape import FIRST, Shape
from tests.simulation.slurm import Slurm
from tests.simulation.slurm_jobs import Job

FLOOR = 5.0
"""Least seconds of a drain, by the settings."""

INTRUDERS = "team-x"
"""Namespace of SlurmJobs that no operator made: no attempts, and nothing may be done for them."""

WAITING = frozenset({None, Phase.WAITING, Phase.SUBMITTING, Phase.SUBMIT_UNKNOWN, Phase.PENDING})


@dataclass(slots=True)
class View:
    """When one operator's process last saw the cluster."""

    complete: float | None = None
    failed: float | None = None
    shown: dict[str, float] = field(default_factory=dict)  # job name → since when without a break
    nameless: float | None = None  # since when a record may be any job's


@dataclass(slots=True)
class Attempt:
    """One SlurmJob object, from its creation on."""

    namespace: str
    name: str
    uid: str
    deployment: str
    job_name: str
    cluster: str = FIRST  # name of the SlurmCluster
    intents: int = 0  # writes that made the phase Submitting
    phase: str | None = None
    submissions: list[float] = field(default_factory=list)
    made_at: float = 0.0
    tried: bool = False  # and nothing was sent
    answer: str = ""  # of a site that takes nothing from its namespace
    answered_at: float = 0.0
    alike: int = 0  # such answers in a row
    refused: bool = False
    wiped: bool = False
    deleted_at: float | None = None  # deletionTimestamp was set
    over_at: float | None = None  # its phase became a terminal one
    gone: bool = False
    forsaken: bool = False  # let go because two snapshots lied about it, or without a SlurmCluster
    lost: bool = False  # its object vanished with its API server's state
    slice_left: float | None = None
    slice_left_before: float | None = None  # it was let in once more after that,
    let_in_at: float = -1e9  # at this time
    failing: str = ""  # the command that failed last, and nothing has worked since
    failing_by: str = ""
    failed_at: float = -1e9
    failures: int = 0  # in a row
    withdrawn: bool = False  # its tunnel supervisors are told that it gets no requests

    @property
    def place(self) -> Place:
        """Of its deployment."""
        return self.namespace, self.deployment


class Ledger:
    """Everything that more than one rule looks at."""

    def __init__(
        self,
        *,
        api: ApiSimulator,
        slurm: Slurm,
        machines: Machines,
        shape: Shape | None = None,
    ) -> None:
        self._api, self._slurm, self._machines = api, slurm, machines
        self._clusters = {slurm.name: slurm}
        self.shape = shape or Shape()
        self.violations: list[str] = []
        self.off = False
        self.attempts: dict[str, Attempt] = {}  # job name → attempt
        self.views: dict[tuple[str, str], View] = {}  # process and cluster → view
        self.clocks_jumped = False
        self.stale_after = 120.0
        self.caches_late_until = 0.0
        self.deletions_untold_until = 0.0  # until the periodic list: no watch will tell of them
        self.lag = 3.0
        self._replicas: dict[tuple[str, str], list[tuple[float, int]]] = {}
        self._members: dict[str, dict[str, float | None]] = {}  # Service → member → left at
        self._patience: dict[Place, float] = {}  # the shortest startupTimeout that there was
        self._joined: dict[str, float] = {}  # member → since when
        self.wanted_is_cancelled: Callable[[str, Job], None] = lambda name, job: None
        self.readable: Callable[[Engine], bool] = lambda _: True  # its metrics, by an operator
        self.engine_of_pod: Callable[[Json], Engine | None] = lambda _: None
        self._drained_pods: set[str] = set()
        self._pods_with_keys: set[str] = set()  # addresses of those whose keys were looked for
        self._lost_uids: set[str] = set()  # of SlurmJobs that vanished and came back as others
        self.others: list[Ledger] = []  # judges of other installations on the same account

    def is_anothers(self, job_name: str) -> bool:
        """Whether a job is of another installation, whatever id stands in its name."""
        return any(job_name in other.attempts for other in self.others)

    def cluster_of(self, job_name: str) -> Slurm:
        """Where the attempt of a job is, the first cluster for a job of no attempt."""
        attempt = self.attempts.get(job_name)
        return self._slurm if attempt is None else self._clusters[attempt.cluster]

    def _its_object(self, cluster: str) -> Json | None:
        """The SlurmCluster of that name."""
        found = (obj for obj in self._api.all(SLURM_CLUSTERS) if k8s.name(obj) == cluster)
        return next(found, None)

    def patience(self, place: Place) -> float:
        """Seconds after which a worker that does not serve may be given up."""
        return self._patience.get(place, 0.0)

    def require(self, good: bool, what: str) -> None:
        if not good and not self.off:
            self.violations.append(f"{self._slurm.now:9.2f}  VIOLATION: {what}")

    @property
    def now(self) -> float:
        return self._slurm.now

    @property
    def caches_late(self) -> bool:
        """Whether operators may not know for long what is written in the API server."""
        return self.now < self.caches_late_until

    def not_cut(
        self,
        what: str,
        name: str,
        engine: Engine,
        *,
        place: Place,
        since: float | None,
        attempt: Attempt | None = None,
    ) -> None:
        """No request that has begun is cut before its budget, where the engine could tell of it."""
        held = engine.held(self.now)
        silent = self.now - self._machines.good_since(engine) < 60 or engine.terminated_at
        silent = silent or not self.readable(engine)
        if not held or silent or self.clocks_jumped or (attempt is not None and attempt.wiped):
            return
        waited = self.now - (engine.started_at if since is None else since)
        over = waited >= FLOOR + drain_timeout(self._api, place) - 2
        self.require(over, f"{what} {name}: {held} requests cut after {waited:.0f} s")

    def tells(self, job: Job) -> bool:
        """Whether an operator that knows nothing could find out that a job's engine serves."""
        engine = job.engine
        if engine is None or not job.comment.endswith(f"{engine.attempt}:port={engine.port}"):
            return False
        found = self._its_object(self.cluster_of(job.name).name)
        ports = k8s.dig(found, "spec", "network", "ports")
        allowed = isinstance(ports, dict) and ports["from"] <= engine.port <= ports["to"]
        long_enough = self.now - self._machines.good_since(engine) > 100  # three probes
        return allowed and long_enough and self._machines.serves(engine, now=self.now)


def over(job: Json) -> bool:
    phase = k8s.dig(job, "status", "phase")
    return phase in list(Phase) and Phase(str(phase)).terminal
