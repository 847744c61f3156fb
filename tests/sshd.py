"""A real sshd as a process of the test's own account on loopback, with keys made for it.

It logs in only that account. Nothing of the account's own (~/.ssh, ssh_config) takes part.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from isthmus.ssh.options import Identity, Target
from tests.ports import free_port

SSHD = "/usr/sbin/sshd"
SEPARATION_FOLDER = Path("/run/sshd")  # sshd insists on it when it runs as root


class Sshd:
    """One server; `start` and `stop` as often as wanted, on the same port."""

    def __init__(
        self,
        folder: Path,
        *,
        max_sessions: int = 10,
        environment: Mapping[str, str] | None = None,
        forwarding: str = "yes",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.max_sessions = max_sessions
        # a home of its own: the account's .bashrc may do a lot at each command
        self.environment = {"HOME": str(folder), **(environment or {})}
        self.forwarding = forwarding
        self.host_key = new_key(folder / "host_key")
        self.client_key = new_key(folder / "client_key")
        self.process: subprocess.Popen[bytes] | None = None
        self._made_separation_folder = False

    @property
    def target(self) -> Target:
        return Target(host="127.0.0.1", port=self.port, user=self.user)

    @property
    def known_hosts(self) -> str:
        public = self.host_key.with_suffix(".pub").read_text().split()[:2]
        return f"[127.0.0.1]:{self.port} {' '.join(public)}\n"

    def identity(self, folder: Path) -> Identity:
        """Files that let a client in."""
        folder.mkdir(parents=True, exist_ok=True)
        known_hosts = folder / "known_hosts"
        known_hosts.write_text(self.known_hosts)
        return Identity(key=self.client_key, known_hosts=known_hosts)

    def start(self) -> None:
        authorized = self.folder / "authorized_keys"
        authorized.write_text(self.client_key.with_suffix(".pub").read_text())
        configuration = self.folder / "sshd_config"
        configuration.write_text("\n".join(self._lines(authorized)) + "\n")
        if os.getuid() == 0 and not SEPARATION_FOLDER.exists():
            SEPARATION_FOLDER.mkdir(mode=0o755)
            self._made_separation_folder = True
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + 20
        while not listens(self.port):
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError((self.folder / "log").read_text())
            time.sleep(0.02)

    def _lines(self, authorized: Path) -> Iterator[str]:
        yield from (
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.host_key}",
            f"PidFile {self.folder}/pid",
            f"AuthorizedKeysFile {authorized}",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            f"AllowTcpForwarding {self.forwarding}",
            "GatewayPorts clientspecified",
            f"MaxSessions {self.max_sessions}",
            "UseDNS no",
            "PrintMotd no",
        )
        yield "SetEnv " + " ".join(f"{k}={v}" for k, v in self.environment.items())

    def stop(self) -> None:
        """KILL the server and every connection of it, as a lost power supply would."""
        if self.process is None:
            return
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=10)
        self.process = None

    def sessions(self) -> list[int]:
        """Pids of the processes that serve connections."""
        return [] if self.process is None else descendants(self.process.pid)

    def close(self) -> None:
        self.stop()
        if self._made_separation_folder:
            with contextlib.suppress(OSError):
                SEPARATION_FOLDER.rmdir()


def new_key(path: Path) -> Path:
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(argv, check=True, timeout=30, stdin=subprocess.DEVNULL)
    return path


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def descendants(pid: int) -> list[int]:
    """Children and their children, of /proc."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()
                parents[int(entry)] = int(fields[1])
    found, wanted = [], {pid}
    while wanted:
        wanted = {child for child, parent in parents.items() if parent in wanted}
        found += sorted(wanted)
    return found
