"""Argument vectors of the OpenSSH client. Pure: the one place where its options are chosen.

Nobody's ssh_config is read (`-F none`): what a Secret and a SlurmCluster say must mean the same in
a pod, on a login node and on a laptop. No vector holds anything secret, only names of files.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal

from isthmus.api.ip_family import host_port

ALIVE_INTERVAL: Final = 15
"""Seconds between two questions over a silent connection; three without an answer end it."""

ControlCommand = Literal["check", "exit", "stop", "forward", "cancel"]

ENVIRONMENT: Final[Mapping[str, str]] = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LC_ALL": "C",
}
"""Of every ssh: no agent, no locale that the server would be sent, English messages."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a connection leads: one sshd and one account."""

    host: str
    port: int
    user: str

    def __str__(self) -> str:
        """Return user@host:port, as messages name it."""
        return f"{self.user}@{host_port(self.host, self.port)}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Files by which both sides are recognised.

    Attributes:
        key: private key, mode 0600.
        known_hosts: the only host keys that are accepted; `@cert-authority` lines work.
    """

    key: Path
    known_hosts: Path


class Direction(StrEnum):
    """On which side a forward listens."""

    LOCAL = "-L"
    """Here; connections come out at the server."""
    REMOTE = "-R"
    """At the server; connections come out here."""


@dataclass(frozen=True, slots=True)
class Forward:
    """One forwarded TCP port.

    Attributes:
        address: what the listener binds to.
        port: that it listens on.
        host: where connections are taken, as seen from the other side.
        host_port: the port there.
    """

    address: str
    port: int
    host: str
    host_port: int
    direction: Direction = Direction.LOCAL

    @property
    def argument(self) -> str:
        """The value of -L or -R."""
        here = host_port(self.address, self.port)
        return f"{here}:{host_port(self.host, self.host_port)}"


def master_argv(
    target: Target,
    *,
    identity: Identity,
    control_path: Path,
    connect_timeout: float = 10.0,
    proxy_command: str = "",
    options: Sequence[str] = (),
) -> tuple[str, ...]:
    """An `ssh -N` in the foreground that others share through `control_path`.

    Args:
        target: where to.
        identity: key and host keys.
        control_path: its socket; see `files.PrivateFolder.socket` for its length.
        connect_timeout: seconds for the TCP connection and the banner.
        proxy_command: reaches the target instead of a connection of its own (`jump_command`).
        options: further options as `Name=value`; the first mention of a name wins in ssh, and
            these come first.
    """
    words = [
        *options,
        "BatchMode=yes",
        "ControlMaster=yes",
        "ControlPersist=no",
        f"ConnectTimeout={max(1, round(connect_timeout))}",
        f"ServerAliveInterval={ALIVE_INTERVAL}",
        "ServerAliveCountMax=3",
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={identity.known_hosts}",
        "GlobalKnownHostsFile=/dev/null",
        "UpdateHostKeys=no",
        f"IdentityFile={identity.key}",
        "IdentitiesOnly=yes",
        "PreferredAuthentications=publickey,gssapi-with-mic",
        "ForwardAgent=no",
        "ForwardX11=no",
        "PermitLocalCommand=no",
    ]
    if proxy_command:
        words.append(f"ProxyCommand={proxy_command}")
    return (*_base(control_path), "-N", *_options(words), *_where(target))


def control_argv(
    target: Target,
    *,
    control_path: Path,
    command: ControlCommand,
    forward: Forward | None = None,
) -> tuple[str, ...]:
    """A question or an order to the master behind `control_path`; it never connects by itself."""
    words = ["BatchMode=yes", "ControlMaster=no", "ProxyCommand=false"]
    which = () if forward is None else (str(forward.direction), forward.argument)
    argv = (*_base(control_path), *_options(words), "-O", command, *which)
    return (*argv, *_where(target))


def session_argv(target: Target, *, control_path: Path, command: str) -> tuple[str, ...]:
    """A command through the master, and through nothing else.

    Where the master is gone or the server refuses one more session, ssh would open a connection
    of its own without a word; the proxy command that fails makes it end with 255 instead.

    Args:
        target: where the master leads.
        control_path: its socket.
        command: read by the account's login shell; let it be a constant.
    """
    words = ["BatchMode=yes", "ControlMaster=no", "ProxyCommand=false", "ClearAllForwardings=yes"]
    return (*_base(control_path), *_options(words), *_where(target), command)


def jump_command(target: Target, *, control_path: Path, to: Target) -> str:
    """The proxy command that reaches a further host through the master behind `control_path`.

    ssh gives it to a shell, so the host is quoted here and not left to ssh's `%h`, which is put
    in as it is; a `%` is doubled for ssh.
    """
    words = ["BatchMode=yes", "ControlMaster=no", "ProxyCommand=false"]
    where = f"[{to.host}]:{to.port}"
    argv = (*_base(control_path), *_options(words), "-W", where, *_where(target))
    return shlex.join(argv).replace("%", "%%")


def _base(control_path: Path) -> tuple[str, ...]:
    return ("ssh", "-F", "none", "-T", "-S", str(control_path), "-o", "LogLevel=ERROR")


def _options(words: Sequence[str]) -> list[str]:
    return [part for word in words for part in ("-o", word)]


def _where(target: Target) -> tuple[str, ...]:
    return ("-l", target.user, "-p", str(target.port), "--", target.host)
