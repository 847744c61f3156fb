"""Bridges, network namespaces, routes and the firewall rules that keep a playground inside.

Nothing of a playground's nodes, pods or jobs may leave the machine or reach another playground:
what is forwarded from or to its bridges, other than between them, is refused. Every object carries
the instance's prefix or tag, so that `down` finds it without any record.
"""

import json
import shlex
from pathlib import Path

from playground.commands import run, succeeds
from playground.config import Names

NETNS = Path("/run/netns")
DEVICES = Path("/sys/class/net")
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def _rules(names: Names) -> list[list[str]]:
    """The rules of the FORWARD chain, first one first."""
    ours = f"{names.prefix}+"  # iptables' wildcard: every device with this prefix
    comment = ["-m", "comment", "--comment", names.tag]
    return [
        ["-i", ours, "-o", ours, *comment, "-j", "ACCEPT"],
        ["-i", ours, *comment, "-j", "REJECT"],
        ["-o", ours, *comment, "-j", "REJECT"],
    ]


def isolate(names: Names) -> None:
    """Put the firewall rules in place unless they are."""
    present = run(["iptables", "-w", "-S", "FORWARD"]).stdout
    if f"--comment {names.tag} " in present or f'--comment "{names.tag}" ' in present:
        return
    for position, rule in enumerate(_rules(names), start=1):
        run(["iptables", "-w", "-I", "FORWARD", str(position), *rule])


def remove_rules(names: Names) -> None:
    """Delete every rule with this instance's tag, from whatever chain of the filter table."""
    if not succeeds(["iptables", "-w", "-S", "FORWARD"]):
        return
    for line in run(["iptables", "-w", "-S"]).stdout.splitlines():
        words = shlex.split(line)
        tagged = "--comment" in words and words[words.index("--comment") + 1] == names.tag
        devices = [w for w in words if w.startswith(names.prefix)]
        if words[:1] == ["-A"] and (tagged or devices):
            run(["iptables", "-w", "-D", *words[1:]], check=False)


def conflict(names: Names) -> str:
    """A network of the machine that an instance would use too, in words; empty if there is none."""
    wanted = {n.rsplit(".", 2 if n.endswith("/16") else 1)[0] for n in names.networks}
    for route in json.loads(run(["ip", "-json", "route"]).stdout or "[]"):
        target, device = str(route.get("dst", "")), str(route.get("dev", ""))
        if device.startswith(names.prefix):
            continue
        if any(target == w or target.startswith(w + ".") for w in wanted):
            return f"{target} on {device}"
    return ""


def make_bridge(bridge: str, *, subnet: str) -> None:
    """A bridge with the address SUBNET.1, unless it is there."""
    if not (DEVICES / bridge).exists():
        run(["ip", "link", "add", bridge, "type", "bridge"])
    run(["ip", "addr", "replace", f"{subnet}.1/24", "dev", bridge])
    run(["ip", "link", "set", bridge, "up"])


def make_namespace(names: Names, *, node: str, bridge: str, address: str) -> None:
    """A network namespace for a node, connected to a bridge, unless it is there."""
    namespace, device = names.namespace(node), names.device(node)
    if (DEVICES / device).exists() and (NETNS / namespace).exists():
        return
    run(["ip", "netns", "delete", namespace], check=False)
    run(["ip", "link", "delete", device], check=False)
    gateway = address.rsplit(".", 1)[0] + ".1"
    script = (
        f"netns add {namespace}\n"
        f"link add {device} type veth peer name eth0 netns {namespace}\n"
        f"link set {device} master {bridge} up\n"
    )
    run(["ip", "-batch", "-"], stdin=script)
    inside = (
        f"link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n"
        f"route add default via {gateway}\n"
    )
    run(["ip", "-netns", namespace, "-batch", "-"], stdin=inside)
    # nsenter and not `ip netns exec`, which would mount a /sys without control groups
    write = ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]
    run(["nsenter", f"--net={NETNS / namespace}", *write])


def set_route(network: str, *, via: str) -> None:
    """Route a network through a node."""
    run(["ip", "route", "replace", network, "via", via])


def cut(names: Names, node: str) -> None:
    """Take a node's network link down; its processes go on."""
    run(["ip", "link", "set", names.device(node), "down"])


def heal(names: Names, node: str) -> None:
    """Take a node's network link up again."""
    run(["ip", "link", "set", names.device(node), "up"])


def connected(names: Names, node: str) -> bool:
    """Whether a node's network link is there and up."""
    try:
        flags = int((DEVICES / names.device(node) / "flags").read_text(encoding="utf-8"), 16)
    except OSError:
        return False
    return bool(flags & 1)


def refuse_pods_to_slurm(names: Names) -> None:
    """New TCP connections from pods to SLURM nodes are refused at once; the other way works."""
    run(["iptables", "-w", "-I", "FORWARD", *_pods_to_slurm(names)])


def allow_pods_to_slurm(names: Names) -> None:
    """Undo `refuse_pods_to_slurm`."""
    while succeeds(["iptables", "-w", "-D", "FORWARD", *_pods_to_slurm(names)]):
        pass


def _pods_to_slurm(names: Names) -> list[str]:
    between = ["-i", names.kubernetes_bridge, "-o", names.slurm_bridge, "-p", "tcp"]
    state = ["-m", "conntrack", "--ctstate", "NEW", "-m", "comment", "--comment", names.tag]
    return [*between, *state, "-j", "REJECT", "--reject-with", "tcp-reset"]


def drop_port(names: Names, *, address: str, port: int) -> None:
    """Packets to a port of the host are dropped without an answer, from wherever they come."""
    run(["iptables", "-w", "-I", "INPUT", *_to_port(names, address=address, port=port)])


def restore_port(names: Names, *, address: str, port: int) -> None:
    """Undo `drop_port`."""
    rule = _to_port(names, address=address, port=port)
    while succeeds(["iptables", "-w", "-D", "INPUT", *rule]):
        pass


def _to_port(names: Names, *, address: str, port: int) -> list[str]:
    where = ["-d", f"{address}/32", "-p", "tcp", "--dport", str(port)]
    return [*where, "-m", "comment", "--comment", names.tag, "-j", "DROP"]


def remains(names: Names) -> list[str]:
    """What is left of an instance's network: for `down`, and for the proof that it is clean."""
    left = [str(path) for path in _by_prefix(DEVICES, names)]
    left += [str(path) for path in _by_prefix(NETNS, names)]
    if succeeds(["iptables", "-w", "-S", "FORWARD"]):
        rules = run(["iptables", "-w", "-S"]).stdout.splitlines()
        left += [rule for rule in rules if names.tag in shlex.split(rule)]
    return left


def remove(names: Names) -> None:
    """Delete routes, namespaces, devices and rules of an instance; those that are there."""
    for network in (names.service_network, names.pod_network):
        run(["ip", "route", "flush", "root", network], check=False)
    for device in _by_prefix(DEVICES, names):
        run(["ip", "link", "delete", device.name], check=False)
    for namespace in _by_prefix(NETNS, names):
        run(["ip", "netns", "delete", namespace.name], check=False)
    remove_rules(names)


def _by_prefix(folder: Path, names: Names) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name.startswith(names.prefix))
    except FileNotFoundError:
        return []
