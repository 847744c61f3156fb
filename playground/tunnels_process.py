"""The tunnel supervisor as a process of the job user, with the rights of deploy/tunnels.yaml.

As the operator's (`operator_process.py`); two of them on two addresses of the host are what two
pods are in a cluster.
"""

import os
import pwd
from collections.abc import Sequence
from pathlib import Path

from playground import kubernetes_files
from playground.cluster import Playground
from playground.commands import SYSTEM_PATH
from playground.components import Components
from playground.files import write_secret
from playground.operator_process import NAMESPACE, install_manifests
from playground.processes import Process, children, command_line, identify
from playground.python_environment import python_environment

SERVICE_ACCOUNT = "isthmus-tunnels"


class TunnelHost:
    """One supervisor process: `start()`, `stop()`, `kill()`."""

    def __init__(
        self,
        playground: Playground,
        *,
        name: str = "tunnels",
        address: str = "",
        arguments: Sequence[str] = (),
    ) -> None:
        """Describe it; nothing happens yet.

        Args:
            playground: where it runs.
            name: of the process, its log, its folder and its slices.
            address: of the host to listen on; by default that of the Kubernetes nodes' bridge.
            arguments: further arguments of `isthmus tunnels`.
        """
        self.playground = playground
        self.name = name
        self.address = address or f"{playground.names.kubernetes_subnet}.1"
        self.arguments = tuple(arguments)

    @property
    def components(self) -> Components:
        """Where its process is recorded."""
        return self.playground.components

    @property
    def folder(self) -> Path:
        """Its own folder, which only the job user can read."""
        return self.playground.state / self.name

    @property
    def log(self) -> Path:
        """Its output, of all starts."""
        return self.components.log(self.name)

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.components.process(self.name) is not None

    def output(self) -> str:
        """All it has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def start(self) -> None:
        """Start `isthmus tunnels` as the job user, with the working tree's code as it is now."""
        if self.running:
            return
        install_manifests(self.playground)
        command = python_environment(self.playground.config, self.playground.progress)
        entry = pwd.getpwnam(self.playground.config.user)
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        kubeconfig = self._kubeconfig()
        for path in (kubeconfig, self.folder, temporary):
            os.chown(path, entry.pw_uid, entry.pw_gid)
        self.folder.chmod(0o700)
        where: list[str | Path] = ["--kubeconfig", kubeconfig, "--address", self.address]
        own = ["--set", f"host-id={self.name}", "--set", "status-port=0"]
        self.components.start(
            self.name,
            [command, "tunnels", *where, *own, *self.arguments],
            environment={
                "HOME": entry.pw_dir,
                "USER": entry.pw_name,
                "PATH": f"{self.playground.bin_folder}:{SYSTEM_PATH}",
                "TMPDIR": str(temporary),
                "PYTHONUNBUFFERED": "1",
            },
            user=entry.pw_name,
        )

    def stop(self, *, timeout: float = 30.0) -> None:
        """TERM, then KILL after the time limit."""
        self.components.stop(self.name, grace=timeout)

    def kill(self) -> None:
        """KILL at once, as a lost machine."""
        self.components.kill(self.name)

    def masters(self) -> list[Process]:
        """Its ssh connections."""
        found = []
        for child in children(self.components.pid(self.name)):
            process = identify(child)
            if command_line(child)[:1] == ("ssh",) and process is not None:
                found.append(process)
        return found

    def _kubeconfig(self) -> Path:
        kubernetes = self.playground.kubernetes
        token = self.playground.kubectl(
            "create", "token", SERVICE_ACCOUNT, f"--namespace={NAMESPACE}", "--duration=24h"
        ).strip()
        text = kubernetes_files.kubeconfig(
            server=kubernetes.server,
            authority=kubernetes.authority,
            token=token,
            user=SERVICE_ACCOUNT,
        )
        path = self.folder / "kubeconfig"
        write_secret(path, text)
        return path
