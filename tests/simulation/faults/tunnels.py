"""What goes wrong with tunnels: ssh, login hosts, supervisors, ports.

Only in seeds that have tunnels.
"""

from random import Random

from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import SLURM_JOBS
from tests.simulation.faults.register import Register, later
from tests.simulation.supervisors import TunnelHost
from tests.simulation.ways import LOGIN_HOSTS
from tests.simulation.world import World

TUNNELS = Register(stream="tunnel plan", counts=(1, 3, 6, 10))


@TUNNELS.happens(2.0)
def ssh_master_dies(world: World, random: Random) -> None:
    masters = world.tunnels.ways.masters
    if masters:
        master = random.choice(masters)
        world.tell(f"fault: ssh of {master.owner} to {master.target} dies")
        master.end("killed")


@TUNNELS.happens(2.0)
def half_dead_link(world: World, random: Random) -> None:
    """Connections are taken and nothing answers; ssh itself notices nothing."""
    masters = world.tunnels.ways.masters
    if not masters:
        return
    master = random.choice(masters)
    master.silent = True
    seconds = random.choice([10, 60, 300])
    world.tell(f"fault: ssh of {master.owner} to {master.target} is half dead for {seconds} s")
    later(world, seconds, lambda: setattr(master, "silent", False))


@TUNNELS.happens(2.0)
def login_hosts_away(world: World, random: Random) -> None:
    """One of them, or all."""
    hosts = random.choice([LOGIN_HOSTS, LOGIN_HOSTS, LOGIN_HOSTS[:1]])
    seconds, refuses = random.choice([20, 120, 400]), random.random() < 0.5
    world.tell(f"fault: {', '.join(hosts)} away for {seconds} s")
    for host in hosts:
        world.tunnels.ways.lose(host, seconds=seconds, refuses=refuses)


@TUNNELS.happens(2.0)
def supervisor_killed(world: World, random: Random) -> None:
    """And started again in its pod: the same id, the same address."""
    host = _some_host(world, random)
    restart = random.choice([0.5, 3.0, 20.0, 120.0])
    if host is not None:
        later(world, random.random() * 5, lambda: host.kill(restart_after=restart))


@TUNNELS.happens(1.5)
def supervisor_lost(world: World, random: Random) -> None:
    """Its node is gone: another pod with another id and address comes some time later."""
    host = _some_host(world, random)
    if host is None:
        return
    seconds = random.choice([0.0, 10.0, 60.0, 300.0])
    world.tell(f"fault: {host.id} is lost, another comes in {seconds:.0f} s")
    host.kill(restart_after=None)
    if random.random() < 0.5:
        world.machines.unreachable_until[host.address] = world.now + 900
    later(world, seconds, world.tunnels.replace)


@TUNNELS.happens(1.0)
def supervisor_upgraded(world: World, random: Random) -> None:
    """The successor first, then TERM to the old one."""
    host = _some_host(world, random)
    if host is None:
        return
    world.tunnels.add()
    later(world, random.choice([1.0, 10.0]), host.leave)


@TUNNELS.happens(0.7)
def second_supervisor(world: World, random: Random) -> None:
    if len(world.tunnels.living()) < 3:
        world.tunnels.add()


@TUNNELS.happens(1.0)
def supervisor_paused(world: World, random: Random) -> None:
    """SIGSTOP and SIGCONT; its ssh goes on."""
    host = _some_host(world, random)
    process = None if host is None else host.process
    if host is None or process is None or process.stopped:
        return
    seconds = random.choice([5.0, 20.0, 100.0])
    world.tell(f"fault: {process.name} is paused for {seconds:.0f} s")
    process.pause()
    world.caches_late(seconds + 30)

    def go_on() -> None:
        if process.stopped and host.process is process:
            process.resume()

    later(world, seconds, go_on)


@TUNNELS.happens(1.0)
def supervisor_cut_off(world: World, random: Random) -> None:
    host = _some_host(world, random)
    if host is not None and host.process is not None:
        seconds = random.choice([5.0, 30.0, 120.0])
        world.tell(f"fault: {host.process.name} cannot reach the API server for {seconds:.0f} s")
        host.process.cut_off_until = world.now + seconds
        world.caches_late(seconds + 40)


@TUNNELS.happens(0.7)
def forward_port_taken(world: World, random: Random) -> None:
    """Something else listens there when the connection is made anew."""
    ports = [port for job in world.api.all(SLURM_JOBS) if (port := _port(job))]
    host = _some_host(world, random)
    if not ports or host is None:
        return
    place = host.address, random.choice(sorted(ports))
    world.machines.taken.add(place)
    world.tell(f"fault: {place} is taken")
    for master in [m for m in host.masters if place in m.doors]:
        master.end("killed")
    later(world, random.choice([10, 100]), lambda: world.machines.taken.discard(place))


@TUNNELS.happens(0.5)
def forward_ports_conflict(world: World, random: Random) -> None:
    """A status is restored that claims the port of another worker."""
    jobs = [job for job in world.api.all(SLURM_JOBS) if _port(job)]
    if len(jobs) < 2:
        return
    one, other = random.sample(sorted(jobs, key=k8s.name), 2)
    world.tunnel_oracle.conflict = True
    world.tell(f"fault: {k8s.name(one)} claims port {_port(other)} of {k8s.name(other)}")
    with world.may_fail():
        world.api.patch(
            SLURM_JOBS,
            k8s.namespace(one),
            k8s.name(one),
            patch={"status": {"forward": {"port": _port(other)}}},
            subresource="status",
            by="user",
        )


def _some_host(world: World, random: Random) -> TunnelHost | None:
    living = world.tunnels.living()
    return random.choice(living) if living else None


def _port(job: dict[str, object]) -> int:
    return k8s.number(k8s.dig(job, "status", "forward", "port")) or 0
