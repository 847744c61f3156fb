"""The bastion as a real sshd: a key may listen on its one port, and do nothing else."""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.api.desired import ClusterReference
from isthmus.apiserver.resources import SLURM_CLUSTERS
from isthmus.apiserver.secrets import SecretRef
from isthmus.apiserver.store import Store
from isthmus.errors import SshError
from isthmus.ssh.files import PrivateFolder
from isthmus.ssh.keys import KeyPair, new_key_pair
from isthmus.ssh.master import Master
from isthmus.ssh.options import Direction, Forward, Target
from isthmus.tunnels.bastion import Bastions
from isthmus.tunnels.desired import Wanted
from tests.canaries import SHAPES, assert_unseen
from tests.ports import free_port
from tests.sshd import SEPARATION_FOLDER, listens

USER = pwd.getpwuid(os.getuid()).pw_name
HPC = ClusterReference(namespace="isthmus-system", name="hpc")


class FixedSecrets:
    """Every Secret holds this."""

    def __init__(self, content: str) -> None:
        self.content = content.encode()

    async def value(self, ref: SecretRef) -> bytes:
        return self.content


class Site:
    """A bastion and what calls it."""

    def __init__(self, bastions: Bastions, host: KeyPair, port: int) -> None:
        self.bastions, self.host, self.port = bastions, host, port
        self.masters: list[tuple[Master, PrivateFolder]] = []
        self.secrets: Any = None

    async def call(self, key: KeyPair) -> Master:
        """A connection as a job makes it."""
        folder = PrivateFolder()
        known = f"[127.0.0.1]:{self.port} {self.host.public}\n"
        folder.write(key=key.private.encode(), known_hosts=known.encode())
        master = Master(
            Target(host="127.0.0.1", port=self.port, user=USER),
            identity=folder.identity,
            control_path=folder.socket("m"),
        )
        self.masters.append((master, folder))
        await master.start()
        return master


def wanted(key: KeyPair, port: int, name: str = "j") -> Wanted:
    return Wanted(
        namespace="team-a",
        slurm_job=name,
        uid=f"uid-{name}",
        deployment="llama",
        service="llama",
        cluster=HPC,
        mode="Reverse",
        port=port,
        host="10.10.0.1",
        engine_port=41000,
        in_traffic=True,
        public_key=key.public,
    )


def cluster(port: int, host: KeyPair) -> dict[str, Any]:
    bastion = {
        "host": "127.0.0.1",
        "port": port,
        "user": USER,
        "hostKey": host.public,
        "hostKeySecretRef": {"name": "bastion"},
    }
    return {
        "metadata": {"name": HPC.name, "namespace": HPC.namespace, "uid": "u"},
        "spec": {
            "login": {"local": {}},
            "files": {"workDirectory": "/scratch"},
            "network": {"mode": "Reverse", "bastion": bastion},
        },
    }


async def until(look: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not look():
        assert time.monotonic() < end, "waited 20 s"
        await asyncio.sleep(0.05)


@pytest.fixture
def separation_folder() -> Iterator[None]:
    """What sshd insists on when it runs as root."""
    made = os.getuid() == 0 and not SEPARATION_FOLDER.exists()
    if made:
        SEPARATION_FOLDER.mkdir(mode=0o755)
    yield
    if made:
        SEPARATION_FOLDER.rmdir()


@pytest.fixture
async def site(separation_folder: None, tmp_path: Path) -> AsyncIterator[Site]:
    host, port = await new_key_pair(), free_port()
    store = Store(watched=[SLURM_CLUSTERS])
    store.put(SLURM_CLUSTERS, cluster(port, host))
    secrets: Any = FixedSecrets(host.private)
    made = Site(
        Bastions(store=store, secrets=secrets, address="127.0.0.1", parent=tmp_path), host, port
    )
    made.secrets = secrets
    yield made
    for master, folder in made.masters:
        await master.close()
        folder.close()
    await made.bastions.close()


def listen(port: int) -> Forward:
    return Forward(
        address="localhost",
        port=port,
        host="127.0.0.1",
        host_port=1,
        direction=Direction.REMOTE,
    )


async def test_a_key_listens_on_its_port_and_on_no_other(site: Site) -> None:
    first, second = await new_key_pair(), await new_key_pair()
    one, two = free_port(), free_port()
    both = {"a": wanted(first, one, "a"), "b": wanted(second, two, "b")}
    await site.bastions.admit(both)
    await until(lambda: listens(site.port))
    master = await site.call(first)
    with pytest.raises(SshError):
        await master.forward(listen(two))
    assert not listens(two)
    await master.forward(listen(one))
    assert listens(one)


async def test_it_runs_nothing_and_forwards_nowhere_else(site: Site) -> None:
    key, port, there = await new_key_pair(), free_port(), free_port()
    await site.bastions.admit({"a": wanted(key, port)})
    await until(lambda: listens(site.port))
    master = await site.call(key)
    # ssh takes the order, and the server refuses each connection.
    await master.forward(
        Forward(address="127.0.0.1", port=there, host="127.0.0.1", host_port=site.port)
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", there)
    assert await asyncio.wait_for(reader.read(100), 10) == b""
    writer.close()
    argv = ["ssh", "-F", "none", "-S", str(master.control_path), "-o", "ProxyCommand=false"]
    command = await asyncio.create_subprocess_exec(
        *argv, "127.0.0.1", "true", stderr=asyncio.subprocess.DEVNULL
    )
    assert await asyncio.wait_for(command.wait(), 20) != 0


async def test_a_key_goes_with_its_job(site: Site) -> None:
    key, other = await new_key_pair(), await new_key_pair()
    port = free_port()
    await site.bastions.admit({"a": wanted(key, port)})
    await until(lambda: listens(site.port))
    await site.call(key)
    await site.bastions.admit({"b": wanted(other, port, "b")})
    with pytest.raises(SshError):
        await site.call(key)
    await site.call(other)


async def test_without_jobs_nobody_listens(site: Site) -> None:
    key, port = await new_key_pair(), free_port()
    await site.bastions.admit({"a": wanted(key, port)})
    await until(lambda: listens(site.port))
    master = await site.call(key)
    await master.forward(listen(port))
    await site.bastions.admit({})
    await until(lambda: not listens(site.port))
    await until(lambda: not listens(port))  # a connection that was made goes too


async def test_c2_no_secret_shows_in_what_sshd_says_of_it(
    site: Site, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """It writes where the supervisor writes; the host key may be something else than a key."""
    caplog.set_level(logging.DEBUG)
    job = wanted(await new_key_pair(), free_port())
    said: list[str] = []

    def refused() -> bool:
        said.extend(capfd.readouterr())
        return "no hostkeys available" in "".join(said[heard:])

    for value in SHAPES.values():
        heard = len(said)
        site.secrets.content = value
        await site.bastions.admit({"a": job})
        await until(refused)
        await site.bastions.close()
    assert_unseen(*said, caplog.text)


async def test_l2_no_address_takes_all_places_of_those_who_log_in(site: Site) -> None:
    """Fewer than sshd has places for: of one address it refuses some all the same."""
    await site.bastions.admit({"a": wanted(await new_key_pair(), free_port())})
    await until(lambda: listens(site.port))
    idle = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(120)]
    try:
        heard = [await asyncio.wait_for(reader.readline(), 60) for reader, _ in idle]
        assert not all(line.startswith(b"SSH-2.0-") for line in heard)
    finally:
        for _, writer in idle:
            writer.close()


async def test_l2_idle_connections_of_nobody_keep_no_job_out(site: Site) -> None:
    """80 that send nothing, from the job's own address; more than one address may hold not."""
    key, port = await new_key_pair(), free_port()
    await site.bastions.admit({"a": wanted(key, port)})
    await until(lambda: listens(site.port))
    idle = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(80)]
    try:
        for reader, _ in idle:
            assert (await asyncio.wait_for(reader.readline(), 60)).startswith(b"SSH-2.0-")
        master = await site.call(key)
        await master.forward(listen(port))
        assert listens(port)
        # None of them stays: sshd's own patience is two minutes.
        async with asyncio.timeout(90):
            await asyncio.gather(*(reader.read() for reader, _ in idle))
    finally:
        for _, writer in idle:
            writer.close()
