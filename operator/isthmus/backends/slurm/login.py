"""How a SLURM cluster is reached, as a record, and what is reached so.

Apart from both kinds of executor, which know nothing of each other, and from the reconciler, which
only compares records.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from isthmus.apiserver.secrets import SecretRef, Secrets
from isthmus.backends.slurm.addresses import login_lookup, system_lookup
from isthmus.backends.slurm.client import SlurmClient
from isthmus.backends.slurm.commands import CommandClient
from isthmus.backends.slurm.executor import CommandExecutor, LocalExecutor
from isthmus.backends.slurm.ssh import OpenSshExecutor
from isthmus.backends.slurm.work_folder import ShellWorkFolder, WorkFolder
from isthmus.ssh.connection import Connection
from isthmus.ssh.credentials import SecretCredentials
from isthmus.ssh.options import Target
from isthmus.ssh.reconnect import Reconnects

REFUSED_FACTOR = 10
"""So many pauses pass after a login that was refused for good, unless the Secret changes."""


@dataclass(frozen=True, slots=True)
class SshAccess:
    """A login node: hosts that lead to the same place, one account, and where its keys are.

    Attributes:
        reconnect_pause: seconds between two attempts to log in after one that failed.
    """

    hosts: tuple[str, ...]
    port: int
    user: str
    key: SecretRef
    known_hosts: SecretRef
    reconnect_pause: float

    @property
    def reconnects(self) -> Reconnects:
        """The history of a connection that is to be made."""
        pause = self.reconnect_pause
        return Reconnects(pause=pause, refused_pause=pause * REFUSED_FACTOR)

    @property
    def targets(self) -> tuple[Target, ...]:
        """The hosts in the order in which they are tried."""
        return tuple(Target(host=host, port=self.port, user=self.user) for host in self.hosts)


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """How a cluster is reached; another value means another client and poller.

    Times are seconds. `ssh` is None where SLURM's commands run beside the operator.
    """

    bin_directory: str
    work_directory: str
    poll_interval: float
    timeout: float
    submit_timeout: float
    stale_after: float
    ssh: SshAccess | None = None


@dataclass(frozen=True, slots=True)
class ClusterHandle:
    """A cluster that can be asked.

    Attributes:
        client: its scheduler.
        work_folder: the files of its jobs.
        warning: says what a person should correct although all goes well; "" if nothing.
        close: lets go of the way to it, when nothing more is asked.
    """

    client: SlurmClient
    work_folder: WorkFolder
    warning: Callable[[], str]
    close: Callable[[], Awaitable[None]]


def reach(access: ClusterAccess, *, secrets: Secrets) -> ClusterHandle:
    """Have commands run as the operator's own user here, or as the login's there."""
    executor = _executor(access, secrets=secrets)
    return ClusterHandle(
        client=CommandClient(
            executor,
            bin_directory=access.bin_directory,
            timeout=access.timeout,
            submit_timeout=access.submit_timeout,
            lookup=system_lookup if access.ssh is None else login_lookup(executor),
        ),
        work_folder=ShellWorkFolder(executor, timeout=access.timeout),
        warning=lambda: executor.warning,
        close=executor.close,
    )


def _executor(access: ClusterAccess, *, secrets: Secrets) -> CommandExecutor:
    ssh = access.ssh
    if ssh is None:
        return LocalExecutor(bin_directory=access.bin_directory)
    credentials = SecretCredentials(secrets, key=ssh.key, known_hosts=ssh.known_hosts)
    return OpenSshExecutor(
        Connection(ssh.targets, credentials=credentials, reconnects=ssh.reconnects),
        user=ssh.user,
        bin_directory=access.bin_directory,
    )
