"""The real SLURM cluster: munged, slurmctld, slurmd on each node, slurmrestd, a login node.

Every SLURM node is a network, pid, mount and host name namespace on a bridge, so two engines may
use the same port on two nodes, and a node can lose its power or its network.
"""

import signal
import socket
from pathlib import Path

from playground import network, slurm_files
from playground.commands import SYSTEM_PATH, clean_environment, run, succeeds, wait_until
from playground.components import Components
from playground.config import Config, Names, slurm_node_names
from playground.errors import PlaygroundError
from playground.files import check_port, listens, write
from playground.progress import Progress
from playground.slurm_folders import make_folders
from playground.slurm_login import Login

CONTROLLER = "slurmctld"
NODE_PRIVATE = ("/tmp", "/dev/shm")
"""As on machines of their own: two playgrounds have the same job ids and locks of ports."""


class Slurm:
    """The SLURM cluster of one playground, with what a fault test needs."""

    def __init__(
        self, *, config: Config, names: Names, components: Components, progress: Progress
    ) -> None:
        self.config = config
        self.names = names
        self.components = components
        self.progress = progress
        self.root = config.state / "slurm"
        self._layout: slurm_files.Layout | None = None
        self.login = Login(
            config=config, names=names, components=components, layout=lambda: self.layout
        )

    # -- where things are

    @property
    def layout(self) -> slurm_files.Layout:
        """Paths, and the release that is installed."""
        if self._layout is None:
            self._layout = slurm_files.Layout(
                root=self.root,
                hostname=socket.gethostname().partition(".")[0],
                version=self._version(),
            )
        return self._layout

    @property
    def path(self) -> str:
        """PATH with the commands of this SLURM first."""
        prefix = self.config.slurm_prefix
        return f"{prefix}/bin:{prefix}/sbin:{SYSTEM_PATH}" if prefix else SYSTEM_PATH

    @property
    def bin_folder(self) -> Path:
        """Where squeue, sbatch and the others are."""
        return self.config.slurm_prefix / "bin" if self.config.slurm_prefix else Path("/usr/bin")

    @property
    def configuration(self) -> Path:
        """slurm.conf."""
        return self.root / "etc" / "slurm.conf"

    @property
    def rest_url(self) -> str:
        """Of slurmrestd with tokens (`token()`)."""
        return f"http://127.0.0.1:{slurm_files.rest_port(self.names)}"

    @property
    def rest_socket(self) -> Path:
        """Of the slurmrestd that acts as the job user, without tokens."""
        return self.root / "run" / "rest" / "slurmrestd.sock"

    @property
    def login_address(self) -> str:
        """Of the login node, reachable from the host, from pods and from SLURM nodes."""
        return self.login.address

    @property
    def login_port(self) -> int:
        """Of sshd on the login node and on each compute node."""
        return self.login.port

    @property
    def login_key(self) -> Path:
        """Private key that every sshd lets in as the job user."""
        return self.login.key

    @property
    def known_hosts(self) -> Path:
        """Host keys of the login node and the compute nodes, for ssh."""
        return self.login.known_hosts

    def address(self, node: str) -> str:
        """The address of a node such as gpu01."""
        return slurm_files.node_address(self.names, self._number(node))

    def environment(self) -> dict[str, str]:
        """For SLURM's commands run on the host."""
        extra = {"SLURM_CONF": str(self.configuration)}
        return clean_environment(self.config.state, path=self.path, extra=extra)

    def command(self, *argv: str, user: str = "", timeout: float = 30.0) -> str:
        """Run a SLURM command on the host and return its output; as the job user if asked."""
        become: list[str] = []
        if user:
            become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return run([*become, *argv], environment=self.environment(), timeout=timeout).stdout

    def token(self, *, lifespan: int = 600) -> str:
        """A token of the job user for `rest_url`, valid for `lifespan` seconds."""
        said = self.command(
            "scontrol", "token", f"username={self.config.user}", f"lifespan={lifespan}"
        )
        return said.strip().removeprefix("SLURM_JWT=")

    # -- start

    def start(self) -> None:
        """Start what does not run; raises PlaygroundError when something does not come up."""
        names, components, layout = self.names, self.components, self.layout
        with self.progress.step(f"SLURM {'.'.join(f'{n:02}' for n in layout.version)}: files"):
            self._check_ports()
            make_folders(self.config, self.root)
            self._write_files()
        self._start_munge()
        network.make_bridge(names.slurm_bridge, subnet=names.slurm_subnet)
        self.login.make_keys()
        environment = self._daemon_environment()
        fresh = components.start(CONTROLLER, [CONTROLLER, "-D"], environment=environment)
        for node in slurm_node_names(self.config):
            self.power_on(node)
        with self.progress.step(f"SLURM: slurmctld and {self.config.slurm_nodes} nodes answer"):
            if fresh:
                self._wait(self.nodes_registered, what="all SLURM nodes register", name=CONTROLLER)
            else:  # a node that somebody took down stays down
                self._wait_for_controller()
        self._start_rest()
        self.login.start()

    def nodes_registered(self) -> bool:
        """Whether slurmctld answers and every node has registered (a drained one counts)."""
        argv = ["sinfo", "-h", "-N", "-p", "gpu", "-o", "%T"]
        try:
            done = run(argv, environment=self.environment(), timeout=15, check=False)
        except PlaygroundError:
            return False
        states = done.stdout.split()
        bad = ("unknown", "down", "fail", "unk")
        good = [s for s in states if not s.endswith("*") and not s.startswith(bad)]
        return done.returncode == 0 and len(good) >= self.config.slurm_nodes

    def _daemon_environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.configuration), "PATH": self.path}

    def _version(self) -> tuple[int, int]:
        said = run(["slurmctld", "-V"], environment=clean_environment(path=self.path)).stdout
        major, minor = said.split()[-1].split(".")[:2]
        return int(major), int(minor)

    def _number(self, node: str) -> int:
        nodes = slurm_node_names(self.config)
        if node not in nodes:
            raise PlaygroundError(f"no SLURM node {node}; there are {', '.join(nodes)}")
        return nodes.index(node) + 1

    def _check_ports(self) -> None:
        if self.components.process(CONTROLLER) is None:
            check_port(slurm_files.controller_port(self.names), what="slurmctld")

    def _write_files(self) -> None:
        config, names, layout = self.config, self.names, self.layout
        files = {
            "slurm.conf": slurm_files.slurm_conf(config, names, layout),
            "gres.conf": slurm_files.gres_conf(config, layout),
            "cgroup.conf": slurm_files.cgroup_conf(layout),
            "hosts": slurm_files.hosts(config, names, hostname=layout.hostname),
            # A node without DNS must be refused at once, or slurmd takes 10 s to start.
            "resolv.conf": "nameserver 127.0.0.1\n",
        }
        changed = [name for name, text in files.items() if write(self.root / "etc" / name, text)]
        if {"slurm.conf", "gres.conf"} & set(changed) and self.components.process(CONTROLLER):
            self.command("scontrol", "reconfigure")

    def _start_munge(self) -> None:
        munge, layout = self.root / "munge", self.layout
        argv = [
            "munged",
            "--foreground",
            f"--socket={layout.munge_socket}",
            f"--key-file={munge}/munge.key",
            f"--log-file={munge}/munged.log",
            f"--pid-file={munge}/munged.pid",
            f"--seed-file={munge}/munged.seed",
        ]
        if self.components.process("munged") is None:
            for path in layout.munge_socket.parent.glob("munge.socket*"):
                path.unlink()
        self.components.start("munged", argv, user="munge")
        probe = ["munge", "-n", "-S", str(layout.munge_socket), "-o", "/dev/null"]
        self._wait(lambda: succeeds(probe), what="munged answers", name="munged")

    def _start_rest(self) -> None:
        """Two slurmrestd: one with tokens on TCP, one on a socket that acts as the job user."""
        old = self.layout.version < (23, 11)
        # Without slurmdbd the plug-ins that need it make slurmrestd exit: name the others.
        plugins = "openapi/v0.0.36,openapi/v0.0.37,openapi/v0.0.38" if old else "openapi/slurmctld"
        environment = self._daemon_environment()
        port = slurm_files.rest_port(self.names)
        nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        self.components.start(
            "slurmrestd",
            [*nobody, "slurmrestd", "-a", "rest_auth/jwt", "-s", plugins, f"127.0.0.1:{port}"],
            environment=environment | {"SLURM_JWT": "daemon"},  # else every request is a 401
        )
        if self.components.process("slurmrestd-socket") is None:
            self.rest_socket.unlink(missing_ok=True)
        self.components.start(
            "slurmrestd-socket",
            ["slurmrestd", "-a", "rest_auth/local", "-s", plugins, f"unix:{self.rest_socket}"],
            environment=environment,
            user=self.config.user,
        )
        self._wait(lambda: listens("127.0.0.1", port), what="slurmrestd answers", name="slurmrestd")
        self._wait(self.rest_socket.exists, what="slurmrestd answers", name="slurmrestd-socket")

    def _wait(self, condition: object, *, what: str, name: str) -> None:
        def ready() -> bool:
            self.components.require(name)
            return bool(condition() if callable(condition) else condition)

        wait_until(ready, what=what, hint=f"its output: {self.components.log(name)}")

    # -- faults: the controller

    def controller_pid(self) -> int:
        """Of slurmctld."""
        return self.components.pid(CONTROLLER)

    def pause_controller(self) -> None:
        """STOP: commands hang and then say "Socket timed out"; what they asked may yet happen."""
        self.components.signal(CONTROLLER, signal.SIGSTOP)

    def continue_controller(self) -> None:
        """CONT after `pause_controller`."""
        self.components.signal(CONTROLLER, signal.SIGCONT)

    def kill_controller(self) -> None:
        """KILL: commands say "Unable to contact slurm controller"."""
        self.components.kill(CONTROLLER)

    def stop_controller(self) -> None:
        """TERM: slurmctld saves its state first."""
        self.components.stop(CONTROLLER, grace=20)

    def start_controller(self) -> None:
        """Start slurmctld again and wait until it answers."""
        self.components.start_again(CONTROLLER)
        self._wait_for_controller()

    def _wait_for_controller(self) -> None:
        ping = ["scontrol", "ping"]
        self._wait(
            lambda: "is UP" in run(ping, environment=self.environment(), check=False).stdout,
            what="slurmctld answers",
            name=CONTROLLER,
        )

    # -- faults: nodes

    def drain(self, node: str, *, reason: str = "maintenance") -> None:
        """No new jobs on the node; those that run there go on."""
        self._update(node, "drain", reason=reason)

    def resume(self, node: str) -> None:
        """Undo `drain` or `down`; a node that is in service already is left alone."""
        self._number(node)

        def resumed() -> bool:
            # not sinfo, which shows DOWN+COMPLETING as completing
            said = self.command("scontrol", "-o", "show", "node", node)
            state = said.partition(" State=")[2].split()[0]
            if not any(word in state for word in ("DRAIN", "DOWN", "FAIL", "MAINT")):
                return True
            # refused while a node registers, so it is asked again
            argv = ["scontrol", "update", f"nodename={node}", "state=resume"]
            run(argv, environment=self.environment(), check=False)
            return False

        wait_until(resumed, what=f"{node} is in service again", timeout=30)

    def down(self, node: str, *, reason: str = "broken") -> None:
        """The node is DOWN at once and its jobs end as NODE_FAIL."""
        self._update(node, "down", reason=reason)

    def _update(self, node: str, state: str, *, reason: str) -> None:
        self._number(node)
        self.command("scontrol", "update", f"nodename={node}", f"state={state}", f"reason={reason}")

    def power_on(self, node: str) -> None:
        """Start a node, its slurmd and its sshd; nothing happens when all run."""
        names = self.names
        bridge = names.slurm_bridge
        network.make_namespace(names, node=node, bridge=bridge, address=self.address(node))
        space, files = names.namespace(node), self.root / "etc"
        self.components.start_node(node, network=space, files=files, private=NODE_PRIVATE)
        self.start_slurmd(node)
        self.login.start_on(node, address=self.address(node))

    def power_off(self, node: str) -> None:
        """Everything on the node dies at once; slurmctld notices after `slurmd_timeout`."""
        self._number(node)
        self.components.power_off(node)

    def kill_slurmd(self, node: str) -> None:
        """KILL slurmd alone; its jobs go on."""
        self._number(node)
        self.components.kill(f"slurmd-{node}")

    def start_slurmd(self, node: str) -> None:
        """Start slurmd on a node that has power."""
        self._number(node)
        prefix = self.config.slurm_prefix
        helper = ["-d", str(prefix / "sbin" / "slurmstepd")] if prefix else []
        self.components.start(
            f"slurmd-{node}",
            ["slurmd", "-D", *helper, "-N", node],
            environment=self._daemon_environment(),
            node=node,
        )

    def cut(self, node: str) -> None:
        """Take the node's network link down; its jobs go on."""
        self._number(node)
        network.cut(self.names, node)

    def heal(self, node: str) -> None:
        """Undo `cut`."""
        self._number(node)
        network.heal(self.names, node)

    def run_on(self, node: str, *argv: str, timeout: float = 30.0) -> str:
        """Run a command on a node, as root, and return its output."""
        self._number(node)
        return self.components.run_in_node(node, argv, timeout=timeout)

    # -- faults: the login node (more in `login`)

    def stop_login(self) -> None:
        """The login node loses its power: every connection and tunnel through it ends."""
        self.login.stop()

    def start_login(self) -> None:
        """Start the login node again and wait until it answers."""
        self.login.restart()
