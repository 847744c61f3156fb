"""A SlurmCluster that is reached over ssh: it serves, and says what is wrong with the login.

The operator runs on the same machine, so the proof that it took the login node is in that node: no
login, no answer.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from playground import manifests
from playground.commands import run
from playground.operator_process import NAMESPACE, Operator
from playground.processes import children, command_line
from tests.real.api import Json
from tests.real.world import Not, World, deployment, slurm_pool, until

CLUSTER = "hpc-ssh"


def condition(world: World) -> Json:
    """SlurmReachable of the cluster over ssh."""
    found = world.get("slc", CLUSTER, NAMESPACE).get("status", {}).get("conditions", [])
    return next((c for c in found if c["type"] == "SlurmReachable"), {})


def wait_reachable(world: World, *, timeout: float = 60) -> None:
    wait_condition(world, timeout=timeout, status="True")


def wait_condition(world: World, *, timeout: float = 60, **wanted: str) -> Json:
    def look() -> Any:
        found = condition(world)
        good = found and all(found.get(key) == value for key, value in wanted.items())
        return found if good else Not(str(found))

    return until(look, f"{CLUSTER} says {wanted}", timeout=timeout)


def put(world: World, *, secret: Json | None, name: str = manifests.SSH_SECRET) -> None:
    """Apply the Secret, if there is to be one, and the SlurmCluster that refers to it."""
    if secret is not None:
        world.extra(secret)
    first, last = manifests.WORKER_PORTS
    network = {"mode": "Direct", "ports": {"from": first, "to": last}}  # commands alone
    login = manifests.ssh_login(world.playground.slurm, secret=name)
    files = {"workDirectory": str(world.playground.state / "jobs" / name)}  # made by the operator
    world.apply(world.cluster(CLUSTER, login=login, network=network, files=files))


def good_secret(world: World, name: str = manifests.SSH_SECRET) -> Json:
    return dict(manifests.ssh_secret(world.playground.slurm, name=name))


@pytest.fixture
def bare(world: World) -> Iterator[World]:
    """A world in which the cluster over ssh and its Secret go away after the test."""
    yield world
    login = world.playground.slurm.login
    login.heal()
    if condition(world).get("status") != "True":
        login.restart()
        put(world, secret=good_secret(world))  # its jobs end through it
    for obj in world.objects("mdep"):
        world.delete(obj["metadata"]["name"], wait=False)
    world.remove("slc", CLUSTER, namespace=NAMESPACE, timeout=110)


@pytest.fixture
def reachable(bare: World) -> World:
    """The same, with a cluster over ssh that answers."""
    put(bare, secret=good_secret(bare))
    wait_reachable(bare)
    return bare


def serve(world: World, name: str, replicas: int) -> None:
    world.apply(deployment(name, slurm_pool(cluster=CLUSTER), replicas=replicas))
    world.wait_agree(name, slurm=replicas)


def job_ids(world: World, name: str) -> set[str]:
    return {job["id"] for job in world.jobs(name)}


def logins(world: World) -> int:
    """How many the login node has let in since it was first started."""
    log = world.playground.components.log("sshd")
    return log.read_text(errors="replace").count("Accepted publickey")


def masters(operator_pid: int) -> list[int]:
    """The ssh masters that an operator holds."""
    return [
        child
        for child in children(operator_pid)
        if command_line(child)[:1] == ("ssh",) and "-N" in command_line(child)
    ]


def test_serves_drains_and_cancels_over_one_login(reachable: World, operator: Operator) -> None:
    world = reachable
    before = logins(world)
    serve(world, "over", 3)
    assert world.chat(world.status("over")["workers"][0]["url"])
    world.scale("over", 1)
    world.wait_agree("over", slurm=1)
    (left,) = world.jobs("over")
    name = left["name"]
    world.delete("over")
    until(lambda: not world.leftovers("over"), "nothing of it is left")
    until(lambda: name not in str(world.all_jobs()), "its job has ended")
    assert logins(world) == before, "every command took the connection that was there"
    (master,) = masters(operator.pid)
    arguments = " ".join(command_line(master))
    assert world.playground.slurm.login.key.read_text().splitlines()[1] not in arguments


def test_a_killed_master_is_made_again(reachable: World, operator: Operator) -> None:
    world = reachable
    serve(world, "killed", 2)
    jobs = job_ids(world, "killed")
    before = logins(world)
    (master,) = masters(operator.pid)
    os.kill(master, signal.SIGKILL)
    until(lambda: logins(world) == before + 1, "there is a new login")
    world.scale("killed", 3)
    world.wait_agree("killed", slurm=3)
    assert jobs < job_ids(world, "killed"), "nothing was submitted again"


def test_sshd_down_and_back(reachable: World) -> None:
    world = reachable
    serve(world, "down", 2)
    jobs = job_ids(world, "down")
    url = world.status("down")["workers"][0]["url"]
    world.playground.slurm.stop_login()
    said = wait_condition(world, status="False", reason="SshUnreachable")
    assert "login.ssh.hosts" in said["message"]
    world.wait_condition("down", "SlurmReachable", status="False")
    assert "SshUnreachable" in str(world.status("down"))
    world.scale("down", 3)
    until(
        lambda: world.status("down").get("observedGeneration") == 2,
        "the operator has seen the new wish",
    )
    assert world.chat(url), "what runs goes on serving"
    assert job_ids(world, "down") == jobs, "and nothing is submitted that could be lost"
    world.playground.slurm.start_login()
    wait_reachable(world)
    world.wait_agree("down", slurm=3)
    assert jobs < job_ids(world, "down"), "nothing was submitted again"


def test_packets_lost_without_a_word(reachable: World) -> None:
    """A connection that hangs is noticed by the commands' own limits and by ssh's questions."""
    world = reachable
    serve(world, "silent", 1)
    jobs = job_ids(world, "silent")
    world.playground.slurm.login.cut()
    wait_condition(world, status="False", timeout=90)
    world.playground.slurm.login.heal()
    wait_reachable(world, timeout=90)
    world.wait_agree("silent", slurm=1)
    assert job_ids(world, "silent") == jobs


@pytest.mark.parametrize(
    ("fault", "reason", "advice"),
    [
        ("missing", "SecretMissing", "kubectl create secret generic"),
        ("no host keys", "SecretMissing", "--from-file=known_hosts=FILE"),
        ("strange host key", "HostKeyMismatch", "knownHostsRef"),
        ("strange key", "SshLoginRequired", "keySecretRef"),
    ],
)
def test_wrong_secrets(bare: World, tmp_path: Path, fault: str, reason: str, advice: str) -> None:
    world = bare
    slurm = world.playground.slurm
    name = f"ssh-{fault.replace(' ', '-')}"
    strange = new_key(tmp_path / "strange")
    public = " ".join(strange.with_suffix(".pub").read_text().split()[:2])
    hosts = f"[{slurm.login.address}]:{slurm.login.port} {public}\n".encode()
    wrong: dict[str, Json | None] = {
        "missing": None,
        "no host keys": good_secret(world, name),
        "strange host key": dict(manifests.ssh_secret(slurm, name=name, known_hosts=hosts)),
        "strange key": dict(manifests.ssh_secret(slurm, name=name, key=strange.read_bytes())),
    }
    secret = wrong[fault]
    if fault == "no host keys" and secret is not None:
        del secret["data"]["known_hosts"]
    put(world, secret=secret, name=name)
    said = wait_condition(world, status="False", reason=reason)
    assert advice in said["message"]
    world.apply(deployment("wrong", slurm_pool(cluster=CLUSTER)))
    world.wait_condition("wrong", "SlurmReachable", status="False")
    assert not world.jobs("wrong")
    world.extra(good_secret(world, name))
    wait_reachable(world)
    world.wait_agree("wrong", slurm=1)


def test_a_changed_secret_that_does_not_work(reachable: World, tmp_path: Path) -> None:
    world = reachable
    serve(world, "rotated", 1)
    strange = new_key(tmp_path / "strange").read_bytes()
    world.extra(dict(manifests.ssh_secret(world.playground.slurm, key=strange)))
    until(lambda: "keySecretRef" in condition(world)["message"], "the status says so")
    assert condition(world)["status"] == "True"
    world.scale("rotated", 2)
    world.wait_agree("rotated", slurm=2)
    world.extra(good_secret(world))
    until(lambda: "keySecretRef" not in condition(world)["message"], "the warning is gone")


def new_key(path: Path) -> Path:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "strange", "-f", path])
    return path


def test_a_login_node_that_allows_two_sessions(reachable: World) -> None:
    world = reachable
    login = world.playground.slurm.login
    login.restart(max_sessions=2)
    try:
        wait_condition(world, status="True", timeout=60)
        serve(world, "narrow", 4)
        world.delete("narrow")
        until(lambda: not world.leftovers("narrow"), "nothing of it is left")
        assert condition(world)["status"] == "True"
    finally:
        login.restart()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_masters_end_with_the_operator(reachable: World, operator: Operator, how: str) -> None:
    serve(reachable, "ending", 1)
    jobs = job_ids(reachable, "ending")
    (master,) = masters(operator.pid)
    words = command_line(master)
    folder = Path(words[words.index("-S") + 1]).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    getattr(operator, how)()
    until(lambda: not alive(master), "the master has ended", timeout=10)
    reachable.end_lease(operator)
    operator.start()
    wait_reachable(reachable)
    reachable.wait_agree("ending", slurm=1)
    assert job_ids(reachable, "ending") == jobs
    # Its successor removes it when it leads, which the statuses of before do not wait for.
    until(lambda: not folder.exists(), "the key that was left behind is gone")


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    return False
