"""Every sshd of the SLURM cluster: the login node's, and one on each compute node.

All run as the job user, who alone can log in, with one client key. The login node is a node of its
own in everything but the network, which is the host's: its address is the bridge's, so pods, SLURM
nodes and the host reach it. Sessions wipe their environment; inside a node they end with it.
"""

import os
import pwd
import shutil
from collections.abc import Callable
from pathlib import Path

from playground import network, slurm_files
from playground.commands import run, wait_until
from playground.components import Components
from playground.config import Config, Names, slurm_node_names
from playground.files import listens, write

NODE = "login"


class Login:
    """The sshd processes, their keys, and their faults."""

    def __init__(
        self,
        *,
        config: Config,
        names: Names,
        components: Components,
        layout: Callable[[], slurm_files.Layout],
    ) -> None:
        self.config = config
        self.names = names
        self.components = components
        self._layout = layout
        self.root = config.state / "slurm"

    @property
    def address(self) -> str:
        """Of the login node, reachable from the host, from pods and from SLURM nodes."""
        return f"{self.names.slurm_subnet}.1"

    @property
    def port(self) -> int:
        """Of sshd on the login node and on each compute node."""
        return slurm_files.ssh_port(self.names)

    @property
    def key(self) -> Path:
        """Private key that every sshd lets in as the job user."""
        return self.root / "etc" / "id_client"

    @property
    def known_hosts(self) -> Path:
        """Host keys of the login node and the compute nodes, for ssh."""
        return self.root / "etc" / "known_hosts"

    def start(self) -> None:
        """Make what is missing and start the login node."""
        self.make_keys()
        self.components.start_node(NODE, network="", files=self.root / "etc")
        self._start_sshd()

    def make_keys(self) -> None:
        """The client's key, the host keys, and who knows whom."""
        ssh, user = self.root / "ssh", self.config.user
        hosts = [ssh / f"host_{node}" for node in (NODE, *slurm_node_names(self.config))]
        for key in (self.key, *hosts):
            if not key.exists():
                run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "playground", "-f", key])
        authorized = ssh / "authorized_keys"
        shutil.copyfile(self.key.with_suffix(".pub"), authorized)
        authorized.chmod(0o600)
        entry = pwd.getpwnam(user)
        for path in (authorized, *hosts, *(key.with_suffix(".pub") for key in hosts)):
            os.chown(path, entry.pw_uid, entry.pw_gid)
        write(self.known_hosts, "".join(self._known(key) for key in hosts))

    def _known(self, host_key: Path) -> str:
        node = host_key.name.removeprefix("host_")
        addresses: tuple[str, ...] = ("127.0.0.1", self.address)
        if node != NODE:
            number = slurm_node_names(self.config).index(node) + 1
            addresses = (node, slurm_files.node_address(self.names, number))
        public = " ".join(host_key.with_suffix(".pub").read_text(encoding="utf-8").split()[:2])
        return "".join(f"[{address}]:{self.port} {public}\n" for address in addresses)

    def start_on(self, node: str, *, address: str) -> None:
        """Start sshd on a compute node that has power, unless it runs."""
        self._start(f"sshd-{node}", node=node, listen=(address,))

    def _start_sshd(self, *, max_sessions: int | None = None) -> None:
        listen = ("127.0.0.1", self.address)
        self._start("sshd", node=NODE, listen=listen, max_sessions=max_sessions)

        def answers() -> bool:
            self.components.require("sshd")
            return listens(self.address, self.port)

        wait_until(
            answers, what="the login node answers", hint=f"see {self.components.log('sshd')}"
        )

    def _start(
        self, name: str, *, node: str, listen: tuple[str, ...], max_sessions: int | None = None
    ) -> None:
        configuration = self.root / "ssh" / f"{name}.conf"
        text = slurm_files.sshd_config(
            self.config,
            self.names,
            self._layout(),
            name=name,
            host_key=self.root / "ssh" / f"host_{node}",
            listen=listen,
            max_sessions=max_sessions or self.config.max_sessions,
        )
        write(configuration, text)
        entry = pwd.getpwnam(self.config.user)
        account = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
        self.components.start(
            name,
            ["/usr/sbin/sshd", "-D", "-e", "-f", configuration],
            environment=account | {"SHELL": "/bin/bash"},
            node=node,
            user=self.config.user,
        )

    # -- faults

    def stop(self) -> None:
        """The login node loses its power: every connection and tunnel through it ends."""
        self.components.power_off(NODE)

    def restart(self, *, max_sessions: int | None = None) -> None:
        """Start it after `stop`, or anew with another MaxSessions; waits until it answers."""
        if self.components.process(f"node-{NODE}") is not None:
            self.stop()
        self.components.start_node(NODE, network="", files=self.root / "etc")
        self._start_sshd(max_sessions=max_sessions)

    def cut(self) -> None:
        """Every packet to the login node's sshd is lost: connections hang and say nothing."""
        network.drop_port(self.names, address=self.address, port=self.port)

    def heal(self) -> None:
        """Undo `cut`."""
        network.restore_port(self.names, address=self.address, port=self.port)
