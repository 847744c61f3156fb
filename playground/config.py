"""What a playground is asked to be, and every name, port and address that follows from it.

Apart and pure, because `down` has to find the same names again when the state folder is damaged,
and because two playgrounds on one machine must never meet: each name holds the instance number.
"""

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, cast, get_args

from playground.errors import PlaygroundError

Part = Literal["apiserver", "kubernetes", "slurm"]
PARTS: tuple[Part, ...] = get_args(Part)
INSTANCES = range(16)
DEFAULT_STATE = Path("/var/tmp/isthmus-playground")  # svc must be able to traverse it: not in /root
MAX_STATE_LENGTH = 60  # unix sockets below it must stay under 108 characters
# Nodes mount their own file systems over these, or they vanish at a restart of the machine.
FORBIDDEN_STATE = ("/run", "/var/run", "/proc", "/sys", "/dev", "/var/lib", "/var/log")


def default_cache() -> Path:
    """Where builds, images and Python packages are kept: the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "isthmus"


def parse_parts(text: str) -> frozenset[Part]:
    """`"kubernetes,slurm"` as a set; raises PlaygroundError for an unknown part."""
    names = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [name for name in names if name not in PARTS]
    if unknown or not names:
        wrong = ", ".join(unknown) or "nothing"
        raise PlaygroundError(f"PARTS names {wrong}; write some of {', '.join(PARTS)}")
    return frozenset(cast("list[Part]", names))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What to start. Times are in seconds, memory in MiB.

    Attributes:
        state: folder of everything that this playground writes; `down` removes it.
        instance: 0 to 15, part of every name and address; None takes the first free one.
        parts: `apiserver` is etcd and kube-apiserver only, for tests of the custom resources.
        nodes: Kubernetes nodes, named gpu-1, gpu-2, ...
        slurm_nodes: SLURM nodes, named gpu01, gpu02, ...
        gpus: fake GPUs of every node of both kinds.
        cpus: processors that each SLURM node claims to have (an even number).
        memory: MiB that each SLURM node claims to have.
        user: the account that runs jobs and the operator; made when missing.
        slurm_prefix: a SLURM installed elsewhere (with bin/, sbin/ and lib/slurm), else Debian's.
        slurm_conf: further lines for slurm.conf.
        min_job_age: how long slurmctld remembers finished jobs.
        kill_wait: time between TERM and KILL of a cancelled job.
        slurmd_timeout: a silent node is DOWN after it; 10 and less hits healthy nodes too.
        credential_lifetime: a requeued job waits this long (SLURM's default is 120).
        max_sessions: of the login node's sshd; real sites usually have 10.
        cache: folder for builds, images and packages, shared by all playgrounds of the user.
    """

    state: Path = DEFAULT_STATE
    instance: int | None = 0
    parts: frozenset[Part] = frozenset({"kubernetes", "slurm"})
    nodes: int = 2
    slurm_nodes: int = 4
    gpus: int = 8
    cpus: int = 64
    memory: int = 1_000_000
    user: str = "svc"
    slurm_prefix: Path | None = None
    slurm_conf: str = ""
    min_job_age: int = 300
    kill_wait: int = 3
    slurmd_timeout: int = 20
    credential_lifetime: int = 10
    max_sessions: int = 200
    cache: Path = dataclasses.field(default_factory=default_cache)

    def __post_init__(self) -> None:
        check_state(self.state)
        if self.instance is not None and self.instance not in INSTANCES:
            raise PlaygroundError(f"instance {self.instance}: write a number from 0 to 15")
        if not self.parts or not self.parts <= set(PARTS):
            raise PlaygroundError(f"parts: write some of {', '.join(PARTS)}")
        for name, low, high in (("nodes", 1, 9), ("slurm_nodes", 1, 32), ("gpus", 0, 16)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise PlaygroundError(f"{name} is {value}; write a number from {low} to {high}")

    def to_json(self) -> str:
        """Readable by `from_json`; kept in the state folder so that `down` and `status` know."""
        plain = dataclasses.asdict(self) | {"parts": sorted(self.parts)}
        return json.dumps(plain, indent=1, default=str)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """The inverse of `to_json`; raises PlaygroundError for a damaged file."""
        try:
            plain = json.loads(text)
            for name in ("state", "cache", "slurm_prefix"):
                plain[name] = None if plain[name] is None else Path(plain[name])
            return cls(**plain | {"parts": frozenset(plain["parts"])})
        except (ValueError, TypeError, KeyError) as error:
            raise PlaygroundError(f"the record of the playground is damaged: {error}") from error


def check_state(state: Path) -> None:
    """Refuse a state folder in which the daemons could not work; raises PlaygroundError."""
    text = str(state)
    if not state.is_absolute() or ".." in state.parts or len(state.parts) < 3:
        raise PlaygroundError(
            f"STATE={text}: write an absolute path such as {DEFAULT_STATE}, not a top folder"
        )
    if len(text) > MAX_STATE_LENGTH:
        raise PlaygroundError(
            f"STATE={text} has {len(text)} characters; unix sockets allow {MAX_STATE_LENGTH}"
        )
    if not all(c.isalnum() or c in "/._-" for c in text):
        raise PlaygroundError(f"STATE={text!r}: use letters, digits and / . _ - only")
    if any(text == f or text.startswith(f + "/") for f in FORBIDDEN_STATE):
        raise PlaygroundError(f"STATE={text}: choose a folder outside {', '.join(FORBIDDEN_STATE)}")


@dataclasses.dataclass(frozen=True, slots=True)
class Names:
    """Every name, port and address of one instance, derived from its number alone."""

    instance: int

    @property
    def prefix(self) -> str:
        """Start of each network device, namespace and control group of this instance."""
        return f"isth{self.instance}-"

    @property
    def tag(self) -> str:
        """Comment of this instance's firewall rules."""
        return f"isthmus-playground-{self.instance}"

    @property
    def kubernetes_bridge(self) -> str:
        """Network device of the Kubernetes nodes."""
        return f"{self.prefix}k8s"

    @property
    def slurm_bridge(self) -> str:
        """Network device of the SLURM nodes."""
        return f"{self.prefix}slurm"

    @property
    def kubernetes_subnet(self) -> str:
        """First three bytes of the Kubernetes nodes' addresses."""
        return f"10.78.{self.instance}"

    @property
    def slurm_subnet(self) -> str:
        """First three bytes of the SLURM nodes' addresses."""
        return f"10.79.{self.instance}"

    @property
    def pod_network(self) -> str:
        """All pods."""
        return f"10.{208 + self.instance}.0.0/16"

    def pod_subnet(self, node: int) -> str:
        """The pods of the node with this number (from 1)."""
        return f"10.{208 + self.instance}.{node}.0/24"

    @property
    def service_network(self) -> str:
        """All Service addresses."""
        return f"10.{176 + self.instance}.0.0/16"

    @property
    def networks(self) -> tuple[str, ...]:
        """All networks that this instance occupies."""
        return (
            f"{self.kubernetes_subnet}.0/24",
            f"{self.slurm_subnet}.0/24",
            self.pod_network,
            self.service_network,
        )

    @property
    def kubernetes_base(self) -> int:
        """First of 50 ports of the control plane."""
        return 16400 + 100 * self.instance

    @property
    def slurm_base(self) -> int:
        """First of 50 ports of SLURM."""
        return self.kubernetes_base + 50

    def namespace(self, node: str) -> str:
        """Name of the network namespace of a node."""
        return f"{self.prefix}{node}"

    def device(self, node: str) -> str:
        """Host end of a node's network device (at most 15 characters)."""
        return f"{self.prefix}{node}"


def node_names(config: Config) -> tuple[str, ...]:
    """The Kubernetes nodes' names."""
    return tuple(f"gpu-{number}" for number in range(1, config.nodes + 1))


def slurm_node_names(config: Config) -> tuple[str, ...]:
    """The SLURM nodes' names."""
    return tuple(f"gpu{number:02}" for number in range(1, config.slurm_nodes + 1))


def describe_parts(parts: Iterable[Part]) -> str:
    """For messages: `kubernetes and slurm`."""
    return " and ".join(sorted(parts))
