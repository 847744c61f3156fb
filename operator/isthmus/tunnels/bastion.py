"""The sshd that jobs of mode Reverse call: one per SLURM cluster, as a child process of ours.

It runs nothing for anybody. A job's key may listen on the one port of its forward, and on nothing
else; keys come and go with the SlurmJobs that name them.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from isthmus.api.desired import ClusterReference
from isthmus.api.slurm_network import BastionSpec
from isthmus.apiserver.reading import read_cluster
from isthmus.apiserver.resources import SLURM_CLUSTERS
from isthmus.apiserver.secrets import SecretRef, Secrets
from isthmus.apiserver.store import Store
from isthmus.errors import IsthmusError
from isthmus.guarded import where
from isthmus.processes import end
from isthmus.ssh.files import PrivateFolder
from isthmus.ssh.options import ENVIRONMENT
from isthmus.tunnels.admission import is_public_key
from isthmus.tunnels.desired import Wanted

_log = logging.getLogger(__name__)

SSHD = "/usr/sbin/sshd"
_AGAIN_SECONDS = 5.0


def sshd_config(*, address: str, port: int, folder: Path) -> str:
    """sshd_config of a bastion: keys only, remote forwards only, no shell, no terminal.

    Jobs cannot know the address of the supervisor that they happen to reach, so their listeners
    are on all of its addresses (`GatewayPorts yes`); a key is bound to its port.
    """
    return "\n".join(
        [
            f"ListenAddress {address}",
            f"Port {port}",
            f"HostKey {folder}/key",
            f"AuthorizedKeysFile {folder}/authorized_keys",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "UseDNS no",
            "AuthenticationMethods publickey",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "AllowTcpForwarding remote",
            "AllowStreamLocalForwarding no",
            "GatewayPorts yes",
            "AllowAgentForwarding no",
            "X11Forwarding no",
            "PermitTTY no",
            "PermitTunnel no",
            "PermitUserRC no",
            "MaxSessions 0",
            # Who connects and says nothing keeps nobody out: not for long, and one address not by
            # its number, which leaves room for jobs behind one NAT.
            "LoginGraceTime 20",
            "MaxStartups 128:30:256",
            "PerSourceMaxStartups 96",
            "ClientAliveInterval 5",
            "ClientAliveCountMax 3",
            "PrintMotd no",
            "LogLevel ERROR",
            "",
        ]
    )


def authorized_keys(wanted: Iterable[Wanted]) -> str:
    """One line for each key: it may listen on its port and do nothing else."""
    return "".join(
        f'restrict,port-forwarding,permitlisten="{one.port}" {one.public_key}\n'
        for one in sorted(wanted, key=lambda one: one.port)
        if is_public_key(one.public_key)
    )


@dataclass(slots=True)
class _Running:
    spec: BastionSpec
    folder: PrivateFolder
    keys: str = ""
    process: asyncio.subprocess.Process | None = None
    not_before: float = 0.0


class Bastions:
    """The bastions of one supervisor."""

    def __init__(
        self, *, store: Store, secrets: Secrets, address: str, parent: Path | None = None
    ) -> None:
        """Prepare.

        Args:
            store: where the SlurmClusters are.
            secrets: host keys.
            address: to listen on.
            parent: where private folders are made, None for the folder of temporary files.
        """
        self._store, self._secrets, self._address = store, secrets, address
        self._parent = parent
        self._running: dict[ClusterReference, _Running] = {}

    async def admit(self, wanted: Mapping[str, Wanted]) -> None:
        """Let exactly these listen, each with its key on its port; failures are logged."""
        by_cluster: dict[ClusterReference, list[Wanted]] = {}
        for one in wanted.values():
            by_cluster.setdefault(one.cluster, []).append(one)
        for reference in [r for r in self._running if r not in by_cluster]:
            await self._end(self._running.pop(reference))
        for reference, some in by_cluster.items():
            try:
                await self._serve(reference, authorized_keys(some))
            except (IsthmusError, OSError) as error:
                _log.warning("The bastion of SlurmCluster %s: %s", reference.name, error)
            except Exception as error:  # one cluster's input is no reason to end the others' ways
                _log.error("The bastion of SlurmCluster %s: %s", reference.name, where(error))

    async def close(self) -> None:
        """End all."""
        for running in self._running.values():
            await self._end(running)
        self._running.clear()

    async def _serve(self, reference: ClusterReference, keys: str) -> None:
        spec = self._spec(reference)
        running = self._running.get(reference)
        if spec is None:
            return  # what runs goes on
        if running is not None and running.spec != spec:
            await self._end(self._running.pop(reference))
            running = None
        if running is None:
            running = _Running(spec=spec, folder=PrivateFolder(parent=self._parent))
            self._running[reference] = running
        if running.keys != keys:
            path = running.folder.path / "authorized_keys"
            path.with_suffix(".new").write_text(keys, encoding="ascii")
            path.with_suffix(".new").replace(path)
            running.keys = keys
        now = asyncio.get_running_loop().time()
        alive = running.process is not None and running.process.returncode is None
        if not alive and now >= running.not_before:
            running.not_before = now + _AGAIN_SECONDS
            await self._start(reference, running)

    def _spec(self, reference: ClusterReference) -> BastionSpec | None:
        raw = self._store.get(SLURM_CLUSTERS, reference.namespace, reference.name)
        cluster = None if raw is None else read_cluster(raw).value
        return None if cluster is None else cluster.spec.network.bastion

    async def _start(self, reference: ClusterReference, running: _Running) -> None:
        ref = running.spec.host_key_secret_ref
        key = await self._secrets.value(
            SecretRef(namespace=reference.namespace, name=ref.name, key=ref.key)
        )
        folder = running.folder
        folder.write(key=key, known_hosts=b"")
        configuration = folder.path / "sshd_config"
        configuration.write_text(
            sshd_config(address=self._address, port=running.spec.listening, folder=folder.path),
            encoding="ascii",
        )
        # sshd insists on being called by its full path.
        running.process = await asyncio.create_subprocess_exec(
            *_ends_with_us(),
            SSHD,
            "-D",
            "-e",
            "-f",
            str(configuration),
            stdin=asyncio.subprocess.DEVNULL,
            env=dict(ENVIRONMENT),
            cwd="/",
            start_new_session=True,
        )
        _log.info(
            "Bastion of SlurmCluster %s on %s:%d",
            reference.name,
            self._address,
            running.spec.listening,
        )

    async def _end(self, running: _Running) -> None:
        if running.process is not None:
            # Connections are processes in sessions of their own, which outlive their sshd.
            connections = _children(running.process.pid)
            await end(running.process, grace=2.0)
            for pid in connections:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGTERM)
        running.folder.close()


def _children(pid: int) -> list[int]:
    """Pids of the children of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


def _ends_with_us() -> tuple[str, ...]:
    return ("setpriv", "--pdeathsig", "TERM", "--") if shutil.which("setpriv") else ()
