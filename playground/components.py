"""The daemons of a playground: started in a session of their own, recorded, ended by their pid.

Each daemon stays in the foreground and leaves `<state>/run/NAME.json` (how it was started) and
`NAME.pid` (pid and start time), so another process can restart it, which the fault tests do. A node
is a daemon too: the first process of a pid, mount and host name namespace. Killing it is a power
loss: the kernel ends everything on the node at once, and its mounts go with it.
"""

import dataclasses
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from playground.commands import clean_environment, run, wait_until
from playground.errors import PlaygroundError
from playground.processes import (
    Process,
    alive,
    children,
    collect,
    command_line,
    end,
    identify,
    send,
)

# Reaps orphans and keeps the namespaces alive. The copies of /run/netns are let go, because they
# would keep other nodes' networks alive after these have been deleted.
NODE_INIT = """
set -eu
name=$1 files=$2 ready=$3; shift 3
hostname "$name"
umount --recursive --lazy /run/netns 2>/dev/null || true
for folder in "$@"; do
  case $folder in /tmp|/dev/shm) mode=1777 ;; *) mode=755 ;; esac
  mount -t tmpfs -o "mode=$mode" tmpfs "$folder"
done
mkdir -p /run/sshd
mount --bind "$files/hosts" /etc/hosts
mount --bind "$files/resolv.conf" /etc/resolv.conf
: >"$ready"
while :; do sleep 3600 & wait $! || true; done
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """How a daemon is started; kept as JSON."""

    name: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    node: str = ""


class Components:
    """The daemons under one state folder."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.run_folder = state / "run"
        self.log_folder = state / "log"

    def log(self, name: str) -> Path:
        """Where a daemon's output goes."""
        return self.log_folder / f"{name}.log"

    def names(self) -> tuple[str, ...]:
        """Every daemon that was ever started here, in the order of names."""
        return tuple(sorted(path.stem for path in self.run_folder.glob("*.json")))

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        node: str = "",
        user: str = "",
    ) -> bool:
        """Start a daemon unless it runs; inside a node, or as another user, when asked.

        Returns:
            False when it runs already.
        """
        if self.process(name) is not None:
            return False
        command = [str(word) for word in argv]
        if user:
            who = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
            command = [*who, *command]
        component = Component(
            name=name,
            argv=tuple(command),
            environment=clean_environment(self.state, extra=environment),
            node=node,
        )
        self.run_folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dataclasses.asdict(component))
        (self.run_folder / f"{name}.json").write_text(text, encoding="utf-8")
        self._spawn(component)
        return True

    def restart(self, name: str, *, grace: float = 10.0) -> None:
        """End a daemon if it runs and start it again as it was started."""
        self.stop(name, grace=grace)
        self.start_again(name)

    def start_again(self, name: str) -> bool:
        """Start a daemon as it was started before; False when it runs."""
        if self.process(name) is not None:
            return False
        path = self.run_folder / f"{name}.json"
        if not path.exists():
            known = ", ".join(self.names()) or "nothing"
            raise PlaygroundError(f"{name} was never started in {self.state}; known: {known}")
        plain = json.loads(path.read_text(encoding="utf-8"))
        self._spawn(Component(**plain | {"argv": tuple(plain["argv"])}))
        return True

    def process(self, name: str) -> Process | None:
        """The daemon's process, or None when it does not run."""
        try:
            text = (self.run_folder / f"{name}.pid").read_text(encoding="utf-8")
            pid, started = (int(word) for word in text.split())
        except (OSError, ValueError):
            return None
        process = Process(pid=pid, started=started)
        if not alive(process):
            collect(pid)
            return None
        return process

    def pid(self, name: str) -> int:
        """The daemon's pid on the host; raises PlaygroundError when it does not run."""
        process = self.process(name)
        if process is None:
            raise PlaygroundError(f"{name} does not run; its output: {self.log(name)}")
        return process.pid

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal; raises PlaygroundError when it does not run."""
        self.pid(name)
        process = self.process(name)
        if process is not None:
            send(process, number)

    def stop(self, name: str, *, grace: float = 10.0) -> None:
        """TERM, then KILL after `grace` seconds (0: KILL at once); returns when it has ended."""
        process = self.process(name)
        if process is None:
            return
        left = end([process], grace=grace)
        collect(process.pid)
        if left:
            raise PlaygroundError(f"{name} (pid {process.pid}) does not end, not even by KILL")

    def kill(self, name: str) -> None:
        """KILL at once."""
        self.stop(name, grace=0.0)

    def tail(self, name: str, *, lines: int = 12) -> str:
        """The last lines of a daemon's output, for messages."""
        try:
            text = self.log(name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return "(no output)"
        return "\n".join(text.splitlines()[-lines:])

    def require(self, name: str) -> None:
        """Raise PlaygroundError with the end of its output when a daemon has ended."""
        if self.process(name) is None:
            raise PlaygroundError(f"{name} ended; {self.log(name)} says:\n{self.tail(name)}")

    def start_node(
        self, name: str, *, network: str, files: Path, private: Sequence[str] = ()
    ) -> None:
        """Start the first process of a node unless it runs.

        Args:
            name: host name of the node; its component is called `node-NAME`.
            network: network namespace by name; empty stays in the host's.
            files: folder with the node's `hosts` and `resolv.conf`.
            private: folders that get an empty file system of the node's own.
        """
        component = f"node-{name}"
        ready = self.run_folder / f"{component}.ready"
        if self.process(component) is None:
            ready.unlink(missing_ok=True)
        enter = ["nsenter", f"--net=/run/netns/{network}"] if network else []
        shared = ["--mount", "--uts", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
        init = ["bash", "-c", NODE_INIT, component, name, str(files), str(ready), *private]
        if self.start(component, [*enter, "unshare", *shared, *init]):
            wait_until(
                lambda: ready.exists() or self.process(component) is None,
                what=f"node {name} starts",
                timeout=15,
                interval=0.005,
            )
            self.require(component)

    def node_pid(self, node: str) -> int:
        """The pid, as the host sees it, of the first process inside a node."""
        inner = children(self.pid(f"node-{node}"))
        if not inner:
            raise PlaygroundError(f"node {node} has no power: start it first")
        return inner[0]

    def enter(self, node: str) -> list[str]:
        """The words before a command that make it run inside a node."""
        spaces = ["--net", "--mount", "--uts", "--pid"]
        return ["nsenter", f"--target={self.node_pid(node)}", *spaces, "--"]

    def run_in_node(self, node: str, argv: Sequence[str | Path], *, timeout: float = 30) -> str:
        """Run a command inside a node and return its output; raises PlaygroundError."""
        environment = clean_environment(self.state)
        return run([*self.enter(node), *argv], timeout=timeout, environment=environment).stdout

    def power_off(self, node: str) -> None:
        """Everything on the node dies at once, without a word to anybody."""
        inner = identify(self.node_pid(node))
        self.kill(f"node-{node}")
        if inner is not None:
            end([inner], grace=0.0)

    def _spawn(self, component: Component) -> None:
        self.log_folder.mkdir(parents=True, exist_ok=True)
        enter = self.enter(component.node) if component.node else []
        log = str(self.log(component.name))
        # posix_spawn, not Popen: the daemon outlives this process and nobody waits for it.
        pid = os.posix_spawn(
            "/usr/bin/env",
            ["env", "--chdir=/", *enter, *component.argv],
            component.environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        process = self._inside(component, pid) if component.node else identify(pid)
        if process is None:
            collect(pid)
            raise PlaygroundError(
                f"{component.name} did not start; {log} says:\n{self.tail(component.name)}"
            )
        record = f"{process.pid} {process.started}\n"
        (self.run_folder / f"{component.name}.pid").write_text(record, encoding="utf-8")

    @staticmethod
    def _inside(component: Component, outer: int) -> Process | None:
        """The daemon itself: nsenter has to fork, since a pid namespace begins with a child."""
        limit = time.monotonic() + 5
        while time.monotonic() < limit and identify(outer) is not None:
            for child in children(outer):
                # nsenter's child is nsenter until it has become the daemon
                if command_line(child)[:1] not in ((), ("nsenter",)):
                    return identify(child)
            time.sleep(0.005)
        return None
