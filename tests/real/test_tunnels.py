"""Workers that pods cannot reach, through tunnels: traffic, faults of the way, upgrades.

New connections from pods to compute nodes are refused in all of these tests, so every request that
is answered came through a tunnel.
"""

import signal
import time
from collections.abc import Iterator

import pytest

from playground import manifests
from playground.commands import succeeds
from playground.errors import PlaygroundError
from playground.operator_process import NAMESPACE
from playground.processes import Process, alive, children, identify, send
from playground.tunnels_process import TunnelHost
from tests.real.api import Json
from tests.real.test_drain import assert_finished, open_streams
from tests.real.tunnels import reverse_cluster, ssh_cluster, tunnel_host
from tests.real.world import Not, World, deployment, slurm_pool, until
from tests.traffic.client import Traffic

JOBS = 2


def pool(**extra: object) -> Json:
    return slurm_pool(cluster="far", **extra)


def slow_pool(*, rate: int = 8) -> Json:
    """Engines that take some seconds for an answer: 40 tokens, so many a second."""
    env = {"SIMULATOR_LOAD_SECONDS": "0.3", "SIMULATOR_TOKENS_PER_SECOND": str(rate)}
    return pool(engine={"env": [{"name": n, "value": v} for n, v in env.items()]})


@pytest.fixture(scope="module")
def tunnels(installed_world: World) -> Iterator[TunnelHost]:
    """A supervisor, a cluster behind ssh, and no other way to the compute nodes."""
    world, host = installed_world, tunnel_host(installed_world)
    world.playground.kubernetes.refuse_pods_to_slurm()
    try:
        host.start()
        world.apply(dict(manifests.ssh_secret(world.playground.slurm)), ssh_cluster(world))
        yield host
        host.kill()
        world.remove("slc", "far", namespace=NAMESPACE, wait=False)
    finally:
        world.playground.kubernetes.allow_pods_to_slurm()


@pytest.fixture
def far(world: World, tunnels: TunnelHost) -> World:
    """The world with the supervisor running, whatever the test before did."""
    tunnels.start()
    return world


def tunnel_of(world: World, name: str) -> str:
    found: str = world.status(name).get("tunnels", {}).get("summary", "")
    return found


def reasons(world: World, name: str) -> set[str]:
    return {str(job.get("status", {}).get("reason")) for job in world.objects("sj", name)}


def identities(world: World, name: str) -> set[str]:
    """Which attempts there are, and which jobs: nothing was submitted if they stay the same."""
    attempts = {job["metadata"]["uid"] for job in world.objects("sj", name)}
    return attempts | {job["id"] for job in world.jobs(name)}


def wait_up(world: World, name: str, *, jobs: int = JOBS, timeout: float = 60) -> None:
    until(
        lambda: tunnel_of(world, name) == f"{jobs}/{jobs}" or Not(str(world.status(name))),
        f"all {jobs} tunnels of {name} are up",
        timeout=timeout,
    )


def events(world: World, kind: str, reason: str) -> list[Json]:
    return [
        event
        for event in world.objects("events")
        if event["reason"] == reason and event["involvedObject"]["kind"] == kind
    ]


def sessions(world: World) -> list[Process]:
    """The processes of sshd that hold connections now."""
    found: list[Process] = []
    parents = [world.playground.components.pid("sshd")]
    while parents:
        pids = [pid for parent in parents for pid in children(parent)]
        found += [process for pid in pids if (process := identify(pid)) is not None]
        parents = pids
    return found


@pytest.mark.timeout(240)
@pytest.mark.parametrize("mode", ["Tunnel", "NodeSSH", "Reverse"])
def test_traffic_flows_only_through_the_tunnel(far: World, tunnels: TunnelHost, mode: str) -> None:
    name, cluster = mode.lower(), f"only-{mode.lower()}"
    if mode == "Reverse":
        far.extra(*reverse_cluster(far, tunnels, cluster))
    else:
        far.extra(ssh_cluster(far, cluster, mode=mode))
    far.apply(deployment(name, slurm_pool(cluster=cluster), replicas=JOBS))
    far.wait_agree(name, slurm=JOBS)
    wait_up(far, name)
    assert far.condition(name, "TunnelsUp")["status"] == "True"
    (first, *_) = far.objects("sj", name)
    status = first["status"]
    assert status["forward"]["mode"] == mode
    assert not from_a_node(far, f"http://{status['host']}:{status['port']}/ready")
    assert from_a_node(far, f"{status['url']}/ready")
    if mode != "Tunnel":
        # Not even a neighbour on the compute nodes' own network reaches the engine.
        argv = ["curl", "-sf", "-m", "5", f"http://{status['host']}:{status['port']}/ready"]
        with pytest.raises(PlaygroundError):
            far.playground.slurm.run_on("gpu04", *argv)
    with Traffic(far.service_url(name), connections="new") as traffic:
        traffic.wait_answered(100)
    traffic.assert_no_failure(at_least=100)
    far.delete(name)
    far.remove("slc", cluster, namespace=NAMESPACE, timeout=60)


def from_a_node(world: World, url: str) -> bool:
    """Whether a Kubernetes node, and so a pod on it, gets an answer."""
    inside = ["nsenter", f"--net=/run/netns/{world.playground.names.namespace('gpu-1')}"]
    return succeeds([*inside, "curl", "-sf", "-m", "5", url])


@pytest.mark.timeout(180)
def test_a_killed_master_is_back_at_the_first_attempt(far: World, tunnels: TunnelHost) -> None:
    """That this attempt is made at once is shown on the virtual clock."""
    far.apply(deployment("kill", pool(), replicas=JOBS))
    far.wait_agree("kill", slurm=JOBS)
    before = identities(far, "kill")
    (master,) = tunnels.masters()
    said = len(tunnels.output())
    send(master, signal.SIGKILL)
    until(lambda: len(tunnels.masters()) == 1 and master not in tunnels.masters(), "another one")
    until(
        lambda: all(answers(far, job) for job in far.objects("sj", "kill")),
        "every forward answers again",
    )
    of_link = [line for line in tunnels.output()[said:].splitlines() if "Link far" in line]
    assert ["lost its connection" in of_link[0], "connected to" in of_link[1]] == [True, True]
    assert len(of_link) == 2, of_link
    wait_up(far, "kill")
    far.wait_agree("kill", slurm=JOBS)
    assert identities(far, "kill") == before


def answers(world: World, job: Json) -> bool:
    status = job.get("status", {})
    forward = status.get("forward", {})
    address = f"{world.playground.names.kubernetes_subnet}.1"
    return succeeds(["curl", "-sf", "-m", "1", f"http://{address}:{forward['port']}/ready"])


@pytest.mark.timeout(240)
def test_an_unreachable_login_host_costs_no_worker(far: World, tunnels: TunnelHost) -> None:
    """Short form of two minutes."""
    login_host_away(far, seconds=8)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_two_minutes_without_the_login_host(far: World, tunnels: TunnelHost) -> None:
    login_host_away(far, seconds=120)


def login_host_away(far: World, *, seconds: float) -> None:
    slurm = far.playground.slurm
    far.apply(deployment("away", pool(), replicas=JOBS))
    far.wait_agree("away", slurm=JOBS)
    before = identities(far, "away")
    slurm.stop_login()
    try:
        far.wait_condition("away", "TunnelsUp", status="False", reason="TunnelDown")
        until(lambda: reasons(far, "away") == {"TunnelDown"}, "both workers say so")
        held_for(far, seconds=seconds, before=before)
        assert events(far, "SlurmJob", "TunnelDown")
        assert events(far, "ModelDeployment", "TunnelDown")
    finally:
        slurm.start_login()
    wait_up(far, "away")
    far.wait_agree("away", slurm=JOBS)
    assert identities(far, "away") == before
    assert events(far, "SlurmJob", "TunnelRestored")
    with Traffic(far.service_url("away"), connections="new") as traffic:
        traffic.wait_answered(20)
    traffic.assert_no_failure()


def held_for(world: World, *, seconds: float, before: set[str]) -> None:
    """Nothing is submitted, replaced or given up for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert identities(world, "away") == before
        time.sleep(1)


@pytest.mark.timeout(180)
def test_the_next_login_host_takes_over(far: World, tunnels: TunnelHost) -> None:
    slurm = far.playground.slurm
    cluster = ssh_cluster(far, "two-hosts")
    hosts = [slurm.login.address, slurm.address("gpu04")]
    cluster["spec"]["login"]["ssh"]["hosts"] = hosts
    far.extra(cluster)
    far.apply(deployment("next", slurm_pool(cluster="two-hosts"), replicas=JOBS))
    wait_through(far, "next", hosts[0])
    far.wait_agree("next", slurm=JOBS)
    before = identities(far, "next")
    slurm.stop_login()
    try:
        wait_through(far, "next", hosts[1])
        with Traffic(far.service_url("next"), connections="new") as traffic:
            traffic.wait_answered(20)
        traffic.assert_no_failure()
        assert identities(far, "next") == before
    finally:
        slurm.start_login()
    far.wait_agree("next", slurm=JOBS)
    assert identities(far, "next") == before
    far.delete("next")
    far.remove("slc", "two-hosts", namespace=NAMESPACE, timeout=60)


def wait_through(world: World, name: str, host: str) -> None:
    """Until every forward of a deployment is up and goes through this login host."""

    def through() -> object:
        found = [
            each["metadata"]["annotations"]
            for each in world.objects("endpointslices", name)
            if "isthmus.dev/tunnel-host" in each["metadata"]["labels"]
        ]
        said = [each.get("isthmus.dev/tunnel-message", "") for each in found]
        up = [each.get("isthmus.dev/tunnel") == "up" for each in found]
        good = len(said) == JOBS and all(up) and all(f"@{host}" in each for each in said)
        return good or Not(str(said))

    until(through, f"all forwards go through {host}", timeout=60)


@pytest.mark.timeout(180)
def test_a_connection_that_only_looks_alive_is_replaced(far: World, tunnels: TunnelHost) -> None:
    """The server's end of the connection stops: ssh goes on taking connections."""
    far.apply(deployment("half", pool(), replicas=JOBS))
    far.wait_agree("half", slurm=JOBS)
    before = identities(far, "half")
    stopped = sessions(far)
    assert stopped
    old = tunnels.masters()
    for process in stopped:
        send(process, signal.SIGSTOP)
    try:
        until(lambda: tunnels.masters() not in ([], old), "another connection", timeout=30)
        wait_up(far, "half")
        far.wait_agree("half", slurm=JOBS)
    finally:
        for process in stopped:
            if alive(process):
                send(process, signal.SIGCONT)
    assert identities(far, "half") == before


@pytest.mark.timeout(240)
def test_an_operator_that_dies_cuts_no_stream(far: World) -> None:
    far.apply(deployment("kill9", slow_pool(), replicas=JOBS))
    far.wait_agree("kill9", slurm=JOBS)
    streams = open_streams(far.service_url("kill9"), 60)
    far.operators[0].kill()
    far.end_lease(far.operators[0])
    assert any(stream.is_alive() for stream in streams)
    assert_finished(streams)
    far.operators[0].start()
    far.wait_agree("kill9", slurm=JOBS)


@pytest.mark.timeout(240)
def test_an_upgraded_supervisor_cuts_nothing(far: World, tunnels: TunnelHost) -> None:
    """As the Deployment does: the new one begins, holds the same, and then the old one goes."""
    far.apply(deployment("new", slow_pool(), replicas=JOBS))
    far.wait_agree("new", slurm=JOBS)
    before = identities(far, "new")
    other = tunnel_host(far, "tunnels-b", address=f"{far.playground.names.slurm_subnet}.1")
    url = far.service_url("new")
    streams = open_streams(url, 8)
    with Traffic(url, connections="new", concurrency=4) as traffic:
        try:
            other.start()
            tunnels.stop(timeout=90)
            traffic.wait_answered(8)
            assert_finished(streams)
            prefix = f"http://{other.address}:"
            until(
                lambda: all(m.startswith(other.address) for m in far.members("new")),
                "only the new one is in the membership",
            )
            until(
                lambda: all(w["url"].startswith(prefix) for w in far.status("new")["workers"]),
                "workers are reached through the new one",
            )
            far.wait_agree("new", slurm=JOBS)
            tunnels.start()
            other.stop(timeout=90)
            traffic.wait_answered(8)
        finally:
            other.kill()
    traffic.assert_no_failure(at_least=16)
    assert identities(far, "new") == before


@pytest.mark.timeout(240)
def test_the_successor_of_a_dead_supervisor_cleans_up(far: World, tunnels: TunnelHost) -> None:
    far.apply(deployment("dead", pool(), replicas=JOBS))
    far.wait_agree("dead", slurm=JOBS)
    before = identities(far, "dead")
    tunnels.kill()
    other = tunnel_host(far, "tunnels-b", address=f"{far.playground.names.slurm_subnet}.1")
    try:
        other.start()

        def only_the_successor() -> object:
            found = far.members("dead")
            return {member.split(":")[0] for member in found} == {other.address} or Not(found)

        until(only_the_successor, "only the successor is in the membership")
        far.wait_agree("dead", slurm=JOBS)
        assert identities(far, "dead") == before
        tunnels.start()
        other.stop(timeout=90)
        far.wait_agree("dead", slurm=JOBS)
    finally:
        tunnels.start()
        other.kill()


@pytest.mark.timeout(180)
def test_scaling_down_finishes_streams(far: World) -> None:
    far.apply(deployment("less", slow_pool(rate=2), replicas=1))
    far.wait_agree("less", slurm=1)
    streams = open_streams(far.service_url("less"), 4)
    far.scale("less", 0)
    until(lambda: not far.members("less"), "out of the membership first")
    assert any(stream.is_alive() for stream in streams)
    assert_finished(streams)
    far.wait_agree("less")
