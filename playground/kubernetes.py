"""The real Kubernetes cluster: etcd, kube-apiserver, controllers, and nodes with containerd.

Each node is a network, pid, mount and host name namespace on a bridge, with a kubelet, containerd
and kube-proxy inside; pods are real containers on a routed network.
"""

import base64
import http.client
import json
import secrets
import shutil
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from playground import (
    build,
    cgroups,
    image,
    kubernetes_files,
    network,
    python_environment,
)
from playground.commands import SYSTEM_PATH, clean_environment, run, succeeds, wait_until
from playground.components import Components
from playground.config import Config, Names, node_names
from playground.errors import PlaygroundError
from playground.files import check_port, write, write_secret
from playground.progress import Progress


class Kubernetes:
    """The Kubernetes cluster of one playground, with what a fault test needs."""

    def __init__(
        self, *, config: Config, names: Names, components: Components, progress: Progress
    ) -> None:
        self.config = config
        self.names = names
        self.components = components
        self.progress = progress
        self.root = config.state / "kubernetes"
        self.programs = build.folder(config.cache)

    # -- where things are

    @property
    def kubeconfig(self) -> Path:
        """Of the administrator; only root can read it."""
        return self.root / "kubeconfig"

    @property
    def server(self) -> str:
        """URL of the API server."""
        ports = kubernetes_files.Ports(names=self.names)
        return f"https://{kubernetes_files.apiserver_address(self.names)}:{ports.apiserver}"

    @property
    def authority(self) -> str:
        """The API server's certificate, which is its own CA, in base64."""
        return base64.b64encode((self.root / "pki" / "apiserver.crt").read_bytes()).decode()

    def address(self, node: str) -> str:
        """The address of a node such as gpu-1."""
        return kubernetes_files.node_address(self.names, self._number(node))

    def kubectl(self, *argv: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        """Run kubectl as administrator and return its output; raises PlaygroundError."""
        environment = clean_environment(extra={"KUBECONFIG": str(self.kubeconfig)})
        command: list[str | Path] = [self.programs / "kubectl", *argv]
        return run(command, stdin=stdin, timeout=timeout, environment=environment).stdout

    # -- start

    @property
    def bare(self) -> bool:
        """Whether only etcd and the API server are wanted."""
        return "kubernetes" not in self.config.parts

    def start(self) -> None:
        """Start what does not run; raises PlaygroundError when something does not come up."""
        names = build.APISERVER if self.bare else build.CLUSTER + build.NODE
        build.ensure(
            names, cache=self.config.cache, progress=self.progress, state=self.config.state
        )
        archive = None
        if not self.bare:
            archive = image.ensure(self.config.cache, self.progress)
        self._make_files()
        network.make_bridge(self.names.kubernetes_bridge, subnet=self.names.kubernetes_subnet)
        with ThreadPoolExecutor() as pool:
            control = pool.submit(self._start_control_plane)
            nodes = [] if self.bare else node_names(self.config)
            runtimes = [pool.submit(self._start_runtime, n, archive) for n in nodes]
        control.result()
        for runtime in runtimes:
            runtime.result()
        if not self.bare:
            self._start_nodes()

    def ready(self) -> bool:
        """Whether the API server says that it is ready."""
        try:
            return self.request("GET", "/readyz") == b"ok"
        except (OSError, http.client.HTTPException, PlaygroundError):
            return False

    def request(self, method: str, path: str, *, body: str = "", kind: str = "") -> bytes:
        """One call of the API as administrator; raises PlaygroundError for an answer over 299."""
        context = ssl.create_default_context(cafile=str(self.root / "pki" / "apiserver.crt"))
        host, _, port = self.server.removeprefix("https://").partition(":")
        connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=5)
        headers = {"Authorization": f"Bearer {self._token()}"}
        if kind:
            headers["Content-Type"] = kind
        try:
            connection.request(method, path, body=body or None, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status > 299:
            said = content.decode(errors="replace")[:500]
            raise PlaygroundError(f"{method} {path}: {answer.status} {said}")
        return content

    def _token(self) -> str:
        return (self.root / "tokens.csv").read_text(encoding="utf-8").partition(",")[0]

    def _make_files(self) -> None:
        for folder in ("pki", "etcd", "nodes"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "etcd").chmod(0o700)
        key = self.root / "pki" / "service-account.key"
        if not key.exists():
            run(["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key])
            public = key.with_suffix(".pub")
            run(["openssl", "ec", "-in", key, "-pubout", "-out", public])
        tokens = self.root / "tokens.csv"
        if not tokens.exists():
            write_secret(tokens, f"{secrets.token_hex(16)},admin,admin-uid,system:masters\n")
        write(self.root / "hosts", kubernetes_files.hosts(self.config, self.names))
        write(self.root / "resolv.conf", "nameserver 127.0.0.1\n")
        python_environment.share_kubectl(self.config)

    def _start_control_plane(self) -> None:
        root, names, ports = self.root, self.names, kubernetes_files.Ports(names=self.names)
        wanted = {"etcd": (ports.etcd, ports.etcd_peer), "kube-apiserver": (ports.apiserver,)}
        for name, numbers in wanted.items():
            if self.components.process(name) is None:
                for number in numbers:
                    check_port(number, what=name)
        with self.progress.step("Kubernetes: etcd and the API server answer"):
            etcd = build.program("etcd", cache=self.config.cache)
            self.components.start("etcd", [etcd, *kubernetes_files.etcd(root, names)])
            self._start_apiserver()
        text = kubernetes_files.kubeconfig(
            server=self.server, authority=self.authority, token=self._token()
        )
        write_secret(self.kubeconfig, text)
        if self.bare:
            return
        program = "kube-controller-manager"
        arguments = kubernetes_files.controller_manager(root, names)
        self.components.start(program, [self.programs / program, *arguments])
        arguments = kubernetes_files.scheduler(root, names)
        self.components.start("kube-scheduler", [self.programs / "kube-scheduler", *arguments])

    def _start_apiserver(self) -> None:
        arguments = kubernetes_files.apiserver(self.root, self.names)
        program = build.program("kube-apiserver", cache=self.config.cache)
        self.components.start("kube-apiserver", [program, *arguments])
        self._wait(self.ready, what="the API server answers", name="kube-apiserver")

    def _start_runtime(self, node: str, archive: Path | None) -> None:
        """Power, containerd and images of one node; needs no API server."""
        names, number = self.names, self._number(node)
        folder = self.root / "nodes" / node
        if self.components.process(f"node-{node}") is None:
            # what containerd knows of running containers is void after a power loss
            shutil.rmtree(folder / "containerd-state", ignore_errors=True)
        for below in ("cni", "kubelet", "logs"):
            (folder / below).mkdir(parents=True, exist_ok=True)
        address, bridge = self.address(node), names.kubernetes_bridge
        network.make_namespace(names, node=node, bridge=bridge, address=address)
        network.set_route(names.pod_subnet(number), via=address)
        cgroups.make(kubernetes_files.cgroup_of(names, number))
        text = kubernetes_files.kubelet(folder, names, number, unified_cgroups=cgroups.unified())
        write(folder / "kubelet.json", text)
        write(folder / "cni" / "10-pods.conflist", kubernetes_files.cni(folder, names, number))
        write(
            folder / "containerd.toml",
            kubernetes_files.containerd(folder, programs=self.programs),
        )
        private = kubernetes_files.NODE_PRIVATE
        self.components.start_node(
            node, network=names.namespace(node), files=self.root, private=private
        )
        self.components.start(
            f"containerd-{node}",
            [self.programs / "containerd", "--config", folder / "containerd.toml"],
            environment={"PATH": f"{self.programs}:{SYSTEM_PATH}"},
            node=node,
        )
        client: list[str | Path] = [self.programs / "ctr", "--address", folder / "containerd.sock"]
        self._wait(
            lambda: succeeds([*client, "version"]),
            what=f"containerd of {node} answers",
            name=f"containerd-{node}",
        )
        if archive is not None:
            self.import_images(node, archive)

    def import_images(self, node: str, archive: Path, *, kind: str = "engines") -> None:
        """Import an OCI archive into a node, unless it is the last one of its kind there."""
        folder = self.root / "nodes" / node
        mark = folder / f"imported-{kind}"
        if mark.exists() and mark.read_text(encoding="utf-8") == archive.name:
            return
        client: list[str | Path] = [self.programs / "ctr", "--address", folder / "containerd.sock"]
        with self.progress.step(f"Kubernetes: images of {kind} imported into {node}"):
            run([*client, "--namespace", "k8s.io", "images", "import", archive], timeout=300)
        mark.write_text(archive.name, encoding="utf-8")

    def _start_nodes(self) -> None:
        nodes = node_names(self.config)
        for node in nodes:
            self._start_agents(node)
        self._route_services()
        with self.progress.step(f"Kubernetes: {len(nodes)} nodes ready"):
            for node in nodes:
                self.wait_for_node(node)
            self._wait(
                lambda: self._exists("/api/v1/namespaces/default/serviceaccounts/default"),
                what="the default service account is there",
                name="kube-controller-manager",
            )

    def _start_agents(self, node: str) -> None:
        number = self._number(node)
        kubelet = kubernetes_files.kubelet_arguments(self.root, self.names, number)
        proxy = kubernetes_files.proxy_arguments(self.root, self.names, number)
        environment = {"PATH": f"{self.programs}:{SYSTEM_PATH}"}
        for name, arguments in (("kubelet", kubelet), ("kube-proxy", proxy)):
            self.components.start(
                f"{name}-{node}",
                [self.programs / name, *arguments],
                environment=environment,
                node=node,
            )

    def _route_services(self) -> None:
        """The host has no kube-proxy: it reaches Service addresses through a node's."""
        for node in node_names(self.config):
            power = self.components.process(f"node-{node}") is not None
            if power and network.connected(self.names, node):
                network.set_route(self.names.service_network, via=self.address(node))
                return

    def wait_for_node(self, node: str, *, timeout: float = 60.0) -> None:
        """Wait until a node is Ready with its GPUs; raises PlaygroundError."""
        path = f"/api/v1/nodes/{node}"
        name = f"kubelet-{node}"
        self._wait(lambda: self._exists(path), what=f"{node} registers", name=name)

        def ready() -> bool:
            status = json.loads(self.request("GET", path))["status"]
            gpus = status.get("allocatable", {}).get("nvidia.com/gpu", "0")
            if status.get("capacity", {}).get("nvidia.com/gpu", "0") != str(self.config.gpus):
                self._set_gpus(node)
            good = [c for c in status["conditions"] if c["type"] == "Ready"]
            return bool(good) and good[0]["status"] == "True" and gpus == str(self.config.gpus)

        self._wait(ready, what=f"{node} becomes Ready", name=name, timeout=timeout)

    def _set_gpus(self, node: str) -> None:
        """Fake GPUs: extended resources of the node's status.

        The kubelet copies capacity to allocatable at its next update only, so both are set. A
        kubelet that starts anew takes them away, since no device plugin reports them.
        """
        patch = [
            {
                "op": "add",
                "path": f"/status/{kind}/nvidia.com~1gpu",
                "value": str(self.config.gpus),
            }
            for kind in ("capacity", "allocatable")
        ]
        self.request(
            "PATCH",
            f"/api/v1/nodes/{node}/status",
            body=json.dumps(patch),
            kind="application/json-patch+json",
        )

    def _exists(self, path: str) -> bool:
        try:
            self.request("GET", path)
        except (OSError, http.client.HTTPException, PlaygroundError):
            return False
        return True

    def _number(self, node: str) -> int:
        nodes = node_names(self.config)
        if node not in nodes:
            raise PlaygroundError(f"no Kubernetes node {node}; there are {', '.join(nodes)}")
        return nodes.index(node) + 1

    def _wait(
        self, condition: Callable[[], object], *, what: str, name: str, timeout: float = 60.0
    ) -> None:
        def ready() -> bool:
            self.components.require(name)
            try:
                return bool(condition())
            except (OSError, http.client.HTTPException):
                return False

        hint = f"its output: {self.components.log(name)}"
        wait_until(ready, what=what, timeout=timeout, hint=hint)

    # -- faults: the control plane

    def kill_apiserver(self) -> None:
        """KILL the API server; pods go on, nothing can be read or written."""
        self.components.kill("kube-apiserver")

    def start_apiserver(self) -> None:
        """Start the API server again and wait until it is ready."""
        self._start_apiserver()

    def restart_apiserver(self) -> None:
        """TERM, and start again: every watch of every client ends."""
        self.components.stop("kube-apiserver", grace=15)
        self._start_apiserver()

    # -- faults: nodes

    def drain(self, node: str, *, timeout: float = 60.0) -> str:
        """`kubectl drain` as an administrator does it; returns what it said."""
        self._number(node)
        return self.kubectl(
            "drain", node, "--ignore-daemonsets", "--delete-emptydir-data",
            f"--timeout={timeout:.0f}s", timeout=timeout + 10,
        )  # fmt: skip

    def cordon(self, node: str) -> None:
        """No new pods on the node."""
        self.kubectl("cordon", node)

    def uncordon(self, node: str) -> None:
        """Undo `drain` or `cordon`."""
        self.kubectl("uncordon", node)

    def power_off(self, node: str) -> None:
        """Everything on the node dies at once; it is NotReady after 20 s."""
        self._number(node)
        self.components.power_off(node)
        self._route_services()

    def power_on(self, node: str) -> None:
        """Start a node again; its pods are started by the kubelet as after a restart."""
        self._start_runtime(node, None)
        self._start_agents(node)
        self._route_services()
        self.wait_for_node(node, timeout=90)

    def kill_kubelet(self, node: str) -> None:
        """KILL the kubelet alone; containers go on and answer."""
        self.components.kill(f"kubelet-{node}")

    def start_kubelet(self, node: str) -> None:
        """Start a killed kubelet again and wait until the node is Ready with its GPUs."""
        self._start_agents(node)
        self.wait_for_node(node)

    def cut(self, node: str) -> None:
        """Take the node's network link down; its processes go on."""
        self._number(node)
        network.cut(self.names, node)
        self._route_services()

    def heal(self, node: str) -> None:
        """Undo `cut`."""
        self._number(node)
        network.heal(self.names, node)
        self._route_services()

    def refuse_pods_to_slurm(self) -> None:
        """Pods can no longer reach SLURM nodes directly: new TCP connections are refused."""
        network.refuse_pods_to_slurm(self.names)

    def allow_pods_to_slurm(self) -> None:
        """Undo `refuse_pods_to_slurm`."""
        network.allow_pods_to_slurm(self.names)
