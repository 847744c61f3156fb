"""The connections of one supervisor: one per SLURM cluster, and in mode NodeSSH one per node.

A node is reached through the connection to its cluster's login host, so that one is held too.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from isthmus.api.conditions import Reason
from isthmus.api.desired import ClusterReference
from isthmus.api.slurm_login import SshLogin
from isthmus.apiserver.derived import Derived
from isthmus.apiserver.objects import Object
from isthmus.apiserver.reading import read_cluster
from isthmus.apiserver.secrets import SecretRef, Secrets
from isthmus.errors import SshError
from isthmus.guarded import where
from isthmus.ssh.credentials import SecretCredentials
from isthmus.ssh.files import PrivateFolder
from isthmus.ssh.master import Master
from isthmus.ssh.options import Forward, Target, jump_command
from isthmus.tunnels.link import Connect, Connection, Link, Way

_log = logging.getLogger(__name__)

_ALIVE = ("ServerAliveInterval=5", "ServerAliveCountMax=3")
"""Looked at more often than by commands: requests wait meanwhile."""


@dataclass(frozen=True, slots=True)
class LinkKey:
    """Where a connection leads: a cluster's login host, or a node of it by its address."""

    cluster: ClusterReference
    node: str = ""


@dataclass(slots=True)
class _Site:
    """What the links of one cluster share."""

    login: SshLogin
    node_port: int
    folder: PrivateFolder
    credentials: SecretCredentials
    numbers: "itertools.count[int]"


class Links:
    """A changing set of links."""

    def __init__(
        self,
        *,
        secrets: Secrets,
        on_change: Callable[[], None],
        clock: Callable[[], float],
        connect_timeout: float,
        pause: float,
        connect: Connect | None = None,
        parent: Path | None = None,
    ) -> None:
        """Prepare.

        Args:
            secrets: keys and host keys.
            on_change: told when a connection or a forward changed.
            clock: seconds, monotonic.
            connect_timeout: seconds for one attempt to connect.
            pause: seconds between attempts after one that failed.
            connect: makes a connection; by default an ssh master.
            parent: where private folders are made, None for the folder of temporary files.
        """
        self._secrets, self._on_change, self._clock = secrets, on_change, clock
        self._connect_timeout, self._pause = connect_timeout, pause
        self._connect = connect or _master
        self._parent = parent
        self._sites: dict[ClusterReference, _Site] = {}
        self._links: dict[LinkKey, Link] = {}
        self._problems: dict[ClusterReference, str] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._derived = Derived(most=256)

    def set(
        self,
        wanted: Mapping[LinkKey, Mapping[str, Forward]],
        *,
        clusters: Mapping[tuple[str, str], Object],
    ) -> None:
        """Hold exactly these links with exactly these forwards.

        Args:
            wanted: forwards by link.
            clusters: SlurmClusters by namespace and name; of one that cannot be read what is held
                stays as it is.
        """
        for reference in dict.fromkeys(key.cluster for key in wanted):
            raw = clusters.get((reference.namespace, reference.name))
            with self._guarded(reference):
                self._take_cluster(reference, raw)
        needed = set(wanted) | {LinkKey(key.cluster) for key in wanted}
        for reference in self._problems.keys() - {key.cluster for key in wanted}:
            del self._problems[reference]
        for key in [key for key in self._links if key not in needed]:
            self._end(self._links.pop(key))
        for reference in [r for r in self._sites if LinkKey(r) not in self._links]:
            if not any(key.cluster == reference for key in needed):
                with self._guarded(reference):
                    self._sites.pop(reference).folder.close()
        # Login hosts first: nodes are reached through them.
        for key in sorted(needed, key=lambda key: (key.node != "", str(key))):
            site = self._sites.get(key.cluster)
            if site is None:
                continue
            with self._guarded(key.cluster):
                if key not in self._links:
                    self._links[key] = self._make(key, site)
                    self._links[key].start()
                self._links[key].want(wanted.get(key, {}))

    @contextlib.contextmanager
    def _guarded(self, reference: ClusterReference) -> Iterator[None]:
        """What fails, such as a full disk, is one cluster's ways, not everybody's."""
        try:
            yield
        except Exception as error:
            self._problems[reference] = f"its SlurmCluster: unexpected {type(error).__name__}"
            _log.error("Links of SlurmCluster %s: %s", reference.name, where(error))

    def get(self, key: LinkKey) -> Link | None:
        """A link, None where there is none."""
        return self._links.get(key)

    def problem(self, key: LinkKey) -> str:
        """Why there is no link."""
        return self._problems.get(key.cluster, "no connection yet")

    def connected(self) -> int:
        """Number of connections that are open."""
        return sum(link.connected for link in self._links.values())

    async def close(self) -> None:
        """End every connection."""
        for key in list(self._links):
            self._end(self._links.pop(key))
        await asyncio.gather(*self._ending, return_exceptions=True)
        for site in self._sites.values():
            site.folder.close()
        self._sites.clear()

    def _take_cluster(self, reference: ClusterReference, raw: Object | None) -> None:
        reading = None if raw is None else self._derived.of(raw, read_cluster)
        if reading is None:
            self._problems[reference] = "its SlurmCluster is gone"
            return
        cluster = reading.value
        if cluster is None:
            self._problems[reference] = f"its SlurmCluster cannot be read: {reading.problem}"
            return
        login = cluster.spec.login.ssh
        if login is None:
            self._problems[reference] = "its SlurmCluster has no login.ssh: tunnels need one"
            return
        self._problems.pop(reference, None)
        known = self._sites.get(reference)
        node_port = cluster.spec.network.node_ssh_port
        if known is not None and (known.login, known.node_port) == (login, node_port):
            return
        if known is not None:
            _log.info("login.ssh of SlurmCluster %s changed: connecting anew", reference.name)
            for key in [key for key in self._links if key.cluster == reference]:
                self._end(self._links.pop(key))
        folder = known.folder if known else PrivateFolder(parent=self._parent)
        self._sites[reference] = _Site(
            login=login,
            node_port=node_port,
            folder=folder,
            credentials=SecretCredentials(
                self._secrets,
                key=_secret(reference, login.key_secret_ref.name, login.key_secret_ref.key),
                known_hosts=_secret(
                    reference, login.known_hosts_ref.name, login.known_hosts_ref.key
                ),
            ),
            numbers=known.numbers if known else itertools.count(1),
        )

    def _make(self, key: LinkKey, site: _Site) -> Link:
        login = site.login
        if key.node:
            hosts = [Target(host=key.node, port=site.node_port, user=login.user)]
        else:
            hosts = [Target(host=host, port=login.port, user=login.user) for host in login.hosts]

        async def prepare() -> Way:
            credentials = await site.credentials.read()
            changed = site.folder.write(key=credentials.key, known_hosts=credentials.known_hosts)
            return Way(
                identity=site.folder.identity,
                changed=changed,
                proxy_command=self._jump(key, to=hosts[0]) if key.node else "",
            )

        return Link(
            name=f"{key.cluster.name}/{key.node}" if key.node else key.cluster.name,
            hosts=hosts,
            prepare=prepare,
            connect=self._connect,
            control_path=site.folder.socket(f"m{next(site.numbers)}"),
            on_change=self._on_change,
            clock=self._clock,
            connect_timeout=self._connect_timeout,
            pause=self._pause,
        )

    def _jump(self, key: LinkKey, *, to: Target) -> str:
        login = self._links.get(LinkKey(key.cluster))
        if login is None or login.through is None:
            why = "not connected" if login is None else login.problem
            raise SshError(
                f"waits for the login host of {key.cluster.name}: {why}",
                reason=Reason.SSH_UNREACHABLE,
            )
        return jump_command(login.through, control_path=login.control_path, to=to)

    def _end(self, link: Link) -> None:
        task = asyncio.create_task(link.close(), name=f"end link {link.name}")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _secret(reference: ClusterReference, name: str, key: str) -> SecretRef:
    return SecretRef(namespace=reference.namespace, name=name, key=key)


def _master(target: Target, way: Way, control_path: Path) -> Connection:
    return Master(
        target,
        identity=way.identity,
        control_path=control_path,
        proxy_command=way.proxy_command,
        options=_ALIVE,
    )
