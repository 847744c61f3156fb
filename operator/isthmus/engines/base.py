"""What the operator must know of an inference engine, as one record of pure functions.

An engine is described once, here and in one module per engine; the backends ask for a command
line and for probe paths, the prober for questions and what their answers mean, and none of them
knows an engine by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from isthmus.api.ip_family import IpFamily
from isthmus.engines.metrics import LoadRule
from isthmus.engines.paths import EnginePath
from isthmus.engines.questions import Answer, ProbeVerdict, Question


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """What a command line is made of.

    Attributes:
        model: what the engine loads: a Hugging Face name or a path.
        revision: of the model, None for the default branch.
        served_names: names that clients may ask for, the first one preferred.
        port: a number, or a placeholder that the batch script replaces.
        attempt: token of the SLURM attempt that the engine must report; None for pods, whose
            identity is their address.
        drain_seconds: how long the engine may finish requests after SIGTERM, at least 1.
        args: the user's own, with derived parallelism appended.
        key_file: the configuration file that holds the API key, a path or a placeholder; None
            where the engine takes its key by a variable, or has none.
        listen: address that it binds to. Of a family, for SGLang's server takes one only: `::` is
            IPv6 alone for it (asyncio and uvloop), and both for vLLM.
    """

    model: str
    revision: str | None
    served_names: tuple[str, ...]
    port: str
    attempt: str | None
    drain_seconds: int
    args: tuple[str, ...]
    key_file: str | None = None
    listen: str = IpFamily.IPV4.any_address


class EngineProfile(Protocol):
    """One engine.

    Attributes:
        name: value of `engine.type`.
        program: with which its command line begins.
        health_path: answers 200 once requests are served; may take seconds.
        readiness_path: the cheap path for frequent probes of a pod.
        health_timeout: seconds within which `health_path` answers on a loaded engine.
        metrics: where it shows its metrics, open even where an API key guards the rest.
        load: how a page of them becomes the number of requests it holds.
        open_paths: what it answers to whoever reaches its port, though it has an API key.
        paths: all that it answers, each with for whom it is.
        key_variable: environment variable by which it takes its API key; None for an engine that
            takes it by a configuration file only. Never by an argument, which everybody can read.
    """

    @property
    def name(self) -> str:
        """Value of `engine.type`."""

    @property
    def program(self) -> str:
        """First word of its command line."""

    @property
    def health_path(self) -> str:
        """Path that answers 200 once requests are served."""

    @property
    def readiness_path(self) -> str:
        """Cheap path for frequent probes."""

    @property
    def health_timeout(self) -> int:
        """Seconds within which `health_path` answers on a loaded engine."""

    @property
    def metrics(self) -> Question:
        """Where it shows its metrics."""

    @property
    def load(self) -> LoadRule:
        """How a page of its metrics becomes the number of requests it holds."""

    @property
    def open_paths(self) -> tuple[str, ...]:
        """Paths that it answers without its API key."""

    @property
    def paths(self) -> tuple[EnginePath, ...]:
        """All that it answers, each with for whom it is."""

    @property
    def key_variable(self) -> str | None:
        """Environment variable of its API key, None: `LaunchRequest.key_file`."""

    def command(
        self, request: LaunchRequest, *, rank: int = 0, size: int = 1, rendezvous: str | None = None
    ) -> tuple[str, ...]:
        """The command line, program first.

        Args:
            request: what it is made of.
            rank: of the node among the worker's, from 0; the first one serves.
            size: nodes of the worker.
            rendezvous: `host:port` at which they meet; None for a worker of one node.

        Raises:
            ValueError: a worker of more than one node, which no engine is started as yet.
        """

    def probes(self, *, full: bool) -> tuple[Question, ...]:
        """What to ask, in this order, until `judge` finds something wrong.

        Args:
            full: with the identity, and with the thorough question for its health; otherwise the
                cheapest one that still shows a dead or draining engine.
        """

    def judge(self, answers: Sequence[Answer], *, model: str, attempt: str) -> ProbeVerdict:
        """What the answers so far mean: healthy if nothing is wrong by them.

        Args:
            answers: to the first of `probes`, at least one.
            model: served name that must be listed.
            attempt: that it must report.
        """


def only_one_node(*, rank: int, size: int, rendezvous: str | None) -> None:
    """Refuse what would start the engine as a part of a worker of several nodes.

    Raises:
        ValueError: as its message says.
    """
    if (rank, size, rendezvous) != (0, 1, None):
        raise ValueError(f"a worker is one node, and this would be node {rank} of {size}")
