"""The configuration files and arguments of the Kubernetes cluster, as text and lists. Pure."""

import json
from dataclasses import dataclass
from pathlib import Path

from playground.config import Config, Names, node_names

PAUSE_IMAGE = "localhost/pause:1"
GPU_PRODUCT = "NVIDIA-H100-80GB-HBM3"
# Folders in which containerd, CNI and the kubelet insist on writing: each node has its own.
NODE_PRIVATE = ("/run", "/var/log", "/var/lib")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Of the control plane of one instance."""

    names: Names

    @property
    def etcd(self) -> int:
        """For clients."""
        return self.names.kubernetes_base + 1

    @property
    def etcd_peer(self) -> int:
        """For other members, of which there are none."""
        return self.names.kubernetes_base + 2

    @property
    def apiserver(self) -> int:
        """With TLS."""
        return self.names.kubernetes_base + 43

    @property
    def controller_manager(self) -> int:
        """Health and metrics."""
        return self.names.kubernetes_base + 44

    @property
    def scheduler(self) -> int:
        """Health and metrics."""
        return self.names.kubernetes_base + 45


def node_address(names: Names, number: int) -> str:
    """Of the Kubernetes node with this number (from 1)."""
    return f"{names.kubernetes_subnet}.{10 + number}"


def apiserver_address(names: Names) -> str:
    """The bridge's address: reachable from the host, nodes and pods, not from other machines."""
    return f"{names.kubernetes_subnet}.1"


def etcd(root: Path, names: Names) -> list[str]:
    """Arguments of etcd."""
    ports = Ports(names=names)
    client, peer = (f"http://127.0.0.1:{port}" for port in (ports.etcd, ports.etcd_peer))
    return [
        f"--data-dir={root}/etcd",
        "--unsafe-no-fsync",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--log-level=error",
    ]


def apiserver(root: Path, names: Names) -> list[str]:
    """Arguments of kube-apiserver."""
    ports, pki = Ports(names=names), root / "pki"
    return [
        f"--etcd-servers=http://127.0.0.1:{ports.etcd}",
        f"--bind-address={apiserver_address(names)}",
        f"--advertise-address={apiserver_address(names)}",
        f"--secure-port={ports.apiserver}",
        f"--cert-dir={pki}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/service-account.pub",
        f"--service-account-signing-key-file={pki}/service-account.key",
        f"--service-cluster-ip-range={names.service_network}",
        "--authorization-mode=Node,RBAC",
        f"--token-auth-file={root}/tokens.csv",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
        "--shutdown-delay-duration=0s",
    ]


def controller_manager(root: Path, names: Names) -> list[str]:
    """Arguments of kube-controller-manager.

    A short grace period makes the loss of a node testable; the default of 20 calls per second
    would make 100 Deployments take 17 s.
    """
    return [
        f"--kubeconfig={root}/kubeconfig",
        f"--service-account-private-key-file={root}/pki/service-account.key",
        f"--root-ca-file={root}/pki/apiserver.crt",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={Ports(names=names).controller_manager}",
        f"--cert-dir={root}/pki/controller-manager",
        "--node-monitor-grace-period=20s",
        "--node-monitor-period=2s",
        "--kube-api-qps=300",
        "--kube-api-burst=600",
    ]


def scheduler(root: Path, names: Names) -> list[str]:
    """Arguments of kube-scheduler."""
    return [
        f"--kubeconfig={root}/kubeconfig",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={Ports(names=names).scheduler}",
        f"--cert-dir={root}/pki/scheduler",
        "--kube-api-qps=300",
        "--kube-api-burst=600",
    ]


def kubeconfig(*, server: str, authority: str, token: str, user: str = "admin") -> str:
    """A kubeconfig in JSON, which is YAML; `authority` is the CA in base64."""
    name = "isthmus-playground"
    cluster = {"server": server, "certificate-authority-data": authority}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
            "current-context": name,
        },
        indent=1,
    )


def containerd(node_folder: Path, *, programs: Path) -> str:
    """Configuration of containerd, version 3.

    restrict_oom_score_adj: in a restricted root the score may not be lowered and every sandbox
    would fail.
    """
    return f"""version = 3
root = '{node_folder}/containerd'
state = '{node_folder}/containerd-state'
disabled_plugins = ['io.containerd.nri.v1.nri']
[grpc]
  address = '{node_folder}/containerd.sock'
[ttrpc]
  address = '{node_folder}/containerd.sock.ttrpc'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{PAUSE_IMAGE}'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['{programs}']
  conf_dir = '{node_folder}/cni'
"""


def cni(node_folder: Path, names: Names, number: int) -> str:
    """The pods' network on one node: a bridge with routed addresses, nothing masqueraded."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": f"{node_folder}/ipam",
            "ranges": [[{"subnet": names.pod_subnet(number)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, portmap]})


def kubelet(node_folder: Path, names: Names, number: int, *, unified_cgroups: bool) -> str:
    """The kubelet's configuration in JSON, which is YAML.

    Args:
        node_folder: the node's folder.
        names: of the instance.
        number: of the node, from 1.
        unified_cgroups: control groups of version 2.
    """
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": node_address(names, number),
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{cgroup_of(names, number)}",
            "cgroupsPerQOS": True,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "containerRuntimeEndpoint": f"unix://{node_folder}/containerd.sock",
            "resolvConf": "",
            "localStorageCapacityIsolation": False,
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "1Mi"},
            "nodeStatusUpdateFrequency": "4s",
            "podLogsDir": f"{node_folder}/logs",
            "volumePluginDir": f"{node_folder}/volume-plugins",
            "maxPods": 200,
        }
        | ({"singleProcessOOMKill": True} if unified_cgroups else {})
    )


def cgroup_of(names: Names, number: int) -> str:
    """The control group below which a node's pods are."""
    return f"{names.prefix}gpu-{number}"


def kubelet_arguments(root: Path, names: Names, number: int) -> list[str]:
    """Arguments of the kubelet; `--node-ip` must never be loopback."""
    node_folder = root / "nodes" / f"gpu-{number}"
    return [
        f"--config={node_folder}/kubelet.json",
        f"--kubeconfig={root}/kubeconfig",
        f"--root-dir={node_folder}/kubelet",
        f"--cert-dir={node_folder}/pki",
        f"--hostname-override=gpu-{number}",
        f"--node-ip={node_address(names, number)}",
        f"--node-labels=nvidia.com/gpu.product={GPU_PRODUCT}",
    ]


def proxy_arguments(root: Path, names: Names, number: int) -> list[str]:
    """Arguments of kube-proxy; connection tracking limits cannot be set inside a namespace."""
    return [
        f"--kubeconfig={root}/kubeconfig",
        "--proxy-mode=iptables",
        f"--hostname-override=gpu-{number}",
        f"--cluster-cidr={names.pod_network}",
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
        "--healthz-bind-address=127.0.0.1:10256",
        "--metrics-bind-address=127.0.0.1:10249",
        "--iptables-min-sync-period=100ms",
    ]


def hosts(config: Config, names: Names) -> str:
    """/etc/hosts of the Kubernetes nodes."""
    lines = ["127.0.0.1 localhost", f"{apiserver_address(names)} control-plane"]
    for number, node in enumerate(node_names(config), start=1):
        lines.append(f"{node_address(names, number)} {node}")
    return "\n".join(lines) + "\n"
