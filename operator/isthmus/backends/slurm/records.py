"""The records of the SLURM backend: what SLURM said, and what is to be said to SLURM.

Apart from the code that fills and uses them, so that planners, parsers, the batch script and the
tests share one vocabulary without importing each other. Nothing here does any I/O.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
"""What can be the name of a job of ours: no list, no pattern and no path for any command."""

PORT_PLACEHOLDER = "@PORT@"
"""In an element of `JobTemplate.argv` or a value of `env`: the port the job found on its node."""

ATTEMPT_PLACEHOLDER = "@ATTEMPT@"
"""In an element of `JobTemplate.argv` or a value of `env`: the attempt of this job."""

KEY_FILE_PLACEHOLDER = "@KEYFILE@"
"""In an element of `JobTemplate.argv`: the engine's configuration file with its API key."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job as one `squeue` (or `scontrol show job`) showed it.

    Attributes:
        job_id: SLURM's number; it can be given to another job later, so compare `name` and
            `submit_time` too.
        name: the full job name.
        state: the one word that squeue prints, flags before the base state (`COMPLETING`).
        restart_count: how often SLURM started the job again under the same id.
        batch_host: the node that runs the batch script, "" while there is none.
        nodes: the compressed host list as printed, "" while there is none.
        submit_time: epoch seconds; a requeue changes it.
        start_time: epoch seconds; of a pending job the expected start, or None.
        end_time: epoch seconds; of a running job the granted end, None where there is no limit.
        time_limit_minutes: the granted limit, None for UNLIMITED or not set.
        exit_code: as a wait status (768 is exit code 3, 15 is signal 15), whatever form SLURM
            prints it in.
        partition: one, or several with commas while the job is pending.
        qos: "" where the cluster has none.
        reason: why it is pending or how it ended; free text.
        comment: free text, "" where there is none.
    """

    job_id: int
    name: str
    state: str
    restart_count: int
    batch_host: str
    nodes: str
    submit_time: int | None
    start_time: int | None
    end_time: int | None
    time_limit_minutes: int | None
    exit_code: int
    partition: str
    qos: str
    reason: str
    comment: str

    @property
    def has_run(self) -> bool:
        """Whether it got nodes in this run: one cancelled in the queue has a start time, too."""
        return bool(self.batch_host or self.nodes)

    @property
    def node(self) -> str:
        """The node that runs the batch script (of a job on one node: its node), or ""."""
        return self.batch_host or ("" if "[" in self.nodes or "," in self.nodes else self.nodes)


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node as `sinfo -N` showed it.

    Attributes:
        name: SLURM's name of the node (`NodeName`).
        address: how slurmctld reaches it (`NodeAddr`): an address, or a host name.
        states: base state and flags in upper case, e.g. `{"MIXED", "DRAIN"}`.
        reason: an administrator's text, "" where there is none.
        partitions: the partitions it is part of.
    """

    name: str
    address: str
    states: frozenset[str]
    reason: str
    partitions: frozenset[str]


@dataclass(frozen=True, slots=True)
class UnreadableJob:
    """A job whose id and name can be read and whose record holds something that cannot.

    It is there, and no more is known of it: neither that it goes on nor that it has ended.

    Attributes:
        job_id: as in `JobRecord`.
        name: the full job name.
        problem: the field and what stands in it, for people.
    """

    job_id: int
    name: str
    problem: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One complete look at a cluster; an incomplete one is an exception, never a Snapshot.

    Attributes:
        jobs: every job of our user that slurmctld still knows, finished ones too, as far as their
            records can be read.
        nodes: by SLURM's name; none at all where the site hides them (PrivateData=nodes).
        started_at: wall clock of the operator when the first command began, epoch seconds. A
            submission acknowledged after this may be missing here.
        taken_at: the same, when the answer was complete.
        cluster_time: clock of the machine that ran the commands, epoch seconds; compare SLURM's
            times with this one.
        unreadable: the jobs whose records cannot be read.
        nameless: what is wrong with each record of which not even id and name can be read: it may
            be any job, so such a snapshot proves that jobs are there and never that one is not.
        hosts: addresses by name of nodes that jobs of ours run on and that `nodes` does not list.
    """

    jobs: tuple[JobRecord, ...]
    nodes: Mapping[str, NodeRecord]
    started_at: float
    taken_at: float
    cluster_time: int
    unreadable: tuple[UnreadableJob, ...] = ()
    nameless: tuple[str, ...] = ()
    hosts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def shows_all(self) -> bool:
        """Whether a job that it does not show is not there."""
        return not self.nameless

    def address(self, node: str) -> str | None:
        """How a node is reached, by its name; None for one that nobody knows."""
        known = self.nodes.get(node)
        return self.hosts.get(node) if known is None else known.address


@dataclass(frozen=True, slots=True)
class PublishedEndpoint:
    """What a job says about itself in its comment: untrusted, the host comes from SLURM."""

    attempt: str
    port: int


@dataclass(frozen=True, slots=True)
class SubmitRequest:
    """One `sbatch`.

    Attributes:
        job_name: the full job name; unique per attempt.
        comment: the identity in clear, without a secret.
        script: the batch script, sent on standard input.
        options: of `sbatch`, in the form `--name=value`, already validated.
    """

    job_name: str
    comment: str
    script: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Submitted:
    """SLURM gave a job id. Believe in the job when a snapshot shows it."""

    job_id: int


@dataclass(frozen=True, slots=True)
class Refused:
    """SLURM, or sbatch itself, looked at this specification and said no: there is no job.

    Attributes:
        reason: whose limit or field it is, before the message, e.g. `InvalidPartition`.
        message: SLURM's own words and what to do.
    """

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Unclear:
    """The submission may or may not have made a job: look before trying again.

    Attributes:
        message: what happened.
        words: what sbatch and the site said, bounded; "" where no words came.
    """

    message: str
    words: str = ""


@dataclass(frozen=True, slots=True)
class NotSent:
    """Nothing was sent to the cluster, so there is no job: try again later."""

    message: str


SubmitOutcome: TypeAlias = Submitted | Refused | Unclear | NotSent


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What the administrator says about a cluster (`SlurmCluster.spec`), as the script needs it.

    Attributes:
        work_directory: absolute path that is shared by all nodes and the commands.
        ports_from: first port that an engine may use.
        ports_to: last port that an engine may use.
        default_partition: where a pool names none; None leaves it to SLURM.
        default_account: the same.
        default_qos: the same.
        default_time_limit_minutes: where a pool names no limit.
        gpu_directive: `gres`, `gpus-per-node` or `none`.
        gpu_types: neutral type (`h100`) to the site's name of it.
        memory_directive: `mem`, `mem-per-gpu` or `none`.
        exclusive: ask for whole nodes.
        modules: environment modules to load, in order.
        setup: shell text that runs before the engine.
    """

    work_directory: str
    ports_from: int
    ports_to: int
    default_partition: str | None
    default_account: str | None
    default_qos: str | None
    default_time_limit_minutes: int
    gpu_directive: str = "gres"
    gpu_types: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    memory_directive: str = "mem"
    exclusive: bool = False
    modules: tuple[str, ...] = ()
    setup: str = ""


@dataclass(frozen=True, slots=True)
class BastionCall:
    """Where a job calls so that its engine can be reached (`network.mode: Reverse`).

    Attributes:
        host: name or address of the bastion.
        port: of its sshd.
        user: account there.
        host_key: its public host key in one line, the only one that is accepted.
        forward_port: the one port that the job's key may listen on there.
    """

    host: str
    port: int
    user: str
    host_key: str
    forward_port: int


@dataclass(frozen=True, slots=True)
class JobTemplate:
    """What one revision of a pool froze of its jobs; no secret in it.

    Attributes:
        argv: the engine's command line; `PORT_PLACEHOLDER` and `ATTEMPT_PLACEHOLDER` may stand
            for or inside any element.
        env: names and values for the engine.
        gpus: per node; 0 asks for none.
        gpu_type: neutral type, None for any.
        cpus: for the one task, None leaves it to SLURM.
        memory_mib: per node, None leaves it to SLURM.
        partitions: the first that can start the job wins; empty for the site's default.
        account: None for the site's default.
        qos: None for the site's default.
        time_limit_minutes: None for the site's default.
        sbatch_options: the user's own, in the form `--name=value`.
        key: digest of the API key that the engine gets, None without a key.
        key_variable: the variable by which it gets it; None: by `KEY_FILE_PLACEHOLDER`.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    gpus: int = 0
    gpu_type: str | None = None
    cpus: int | None = None
    memory_mib: int | None = None
    partitions: tuple[str, ...] = ()
    account: str | None = None
    qos: str | None = None
    time_limit_minutes: int | None = None
    sbatch_options: tuple[str, ...] = ()
    key: str | None = None
    key_variable: str | None = None


@dataclass(frozen=True, slots=True)
class SnapshotChanges:
    """What a snapshot says otherwise than the one before it.

    Attributes:
        jobs: names of the jobs whose records differ.
        draining: whether other nodes are drained now, or for another reason.
    """

    jobs: frozenset[str]
    draining: bool = False
