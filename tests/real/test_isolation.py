"""Jobs of others are never touched: not of `a-b` by `a`, not of another installation."""

from collections.abc import Iterator

import pytest

from playground import manifests
from playground.operator_process import Operator
from tests.real.conftest import arguments
from tests.real.world import World, deployment, slurm_pool, until


@pytest.mark.timeout(180)
def test_names_that_begin_alike(world: World) -> None:
    world.apply(
        deployment("a", slurm_pool(), replicas=2), deployment("a-b", slurm_pool(), replicas=2)
    )
    for name in ("a", "a-b"):
        world.wait_agree(name, slurm=2)
    kept = {job["id"] for job in world.jobs("a-b")}
    world.delete("a")
    until(lambda: not world.leftovers("a"), "a is gone")
    assert {job["id"] for job in world.jobs("a-b")} == kept
    world.wait_agree("a-b", slurm=2)


@pytest.fixture
def second(world: World) -> Iterator[Operator]:
    """Another installation: its own namespace to serve, the same SLURM account.

    Its SlurmCluster lies outside of the operator's namespace, so its login is by ssh.
    """
    world.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "second"}})
    slurm = world.playground.slurm
    secret = dict(manifests.ssh_secret(slurm))
    access = {"allowedNamespaces": {"names": ["second"]}}
    first, last = manifests.WORKER_PORTS
    network = {"mode": "Direct", "ports": {"from": first, "to": last}}
    cluster = world.cluster(login=manifests.ssh_login(slurm), network=network, access=access)
    for obj in (secret, cluster):
        world.apply(obj | {"metadata": {**obj["metadata"], "namespace": "second"}})
    settings = arguments(watch_namespaces="second", lease_name="second", namespace="isthmus-system")
    operator = Operator(
        world.playground, arguments=settings, installation_id="second00", name="second"
    )
    world.operators.append(operator)
    try:
        yield operator
    finally:
        operator.start()
        for kind in ("mdep", "slc"):
            names = [obj["metadata"]["name"] for obj in world.objects(kind, namespace="second")]
            world.remove(kind, *names, namespace="second", timeout=90)
        operator.stop()
        world.operators.remove(operator)
        world.remove("namespace", "second", timeout=90)


@pytest.mark.timeout(240)
def test_two_installations_on_one_account(world: World, operator: Operator) -> None:
    """Stand-in jobs of another installation, with every name that could be mistaken for ours."""
    slurm = world.playground.slurm
    world.apply(deployment("twin", slurm_pool(), replicas=2))
    world.wait_agree("twin", slurm=2)
    ours = world.jobs("twin")
    foreign = []
    for job in ours:
        name, *rest = job["name"].rsplit("-", 4)
        theirs = "-".join([name, "otherone", *rest[1:]])
        foreign.append(
            slurm.command(
                "sbatch", "--parsable", f"--job-name={theirs}", f"--comment={job['comment']}",
                "--output=/dev/null", "--wrap=sleep 600", user="svc",
            ).strip()
        )  # fmt: skip
    operator.restart()
    world.scale("twin", 1)
    world.wait_agree("twin", slurm=1)
    world.delete("twin")
    until(lambda: not world.leftovers("twin"), "twin is gone")
    left = {job["id"] for job in world.all_jobs("RUNNING,PENDING")}
    assert set(foreign) <= left
    slurm.command("scancel", *foreign, user="svc")


@pytest.mark.timeout(240)
def test_two_operators_side_by_side(world: World, operator: Operator, second: Operator) -> None:
    operator.stop()
    first = Operator(
        world.playground,
        arguments=arguments(watch_namespaces="default,isthmus-system"),
        installation_id="testtest",
        name="first",
    )
    world.operators.append(first)
    first.start()
    second.start()
    try:
        theirs = deployment(
            "same", slurm_pool(slurm={"clusterRef": {"name": "hpc", "namespace": "second"}})
        )
        theirs["metadata"]["namespace"] = "second"
        theirs["spec"]["replicas"] = 2
        world.apply(deployment("same", slurm_pool(), replicas=2), theirs)
        world.wait_agree("same", slurm=2)
        until(
            lambda: world.get("mdep", "same", "second").get("status", {}).get("ready") == "2/2",
            "the other installation serves too",
        )
        others = {sj["spec"]["jobName"] for sj in world.objects("sj", "same", namespace="second")}
        assert all("-second00-" in name for name in others)
        world.delete("same")
        until(lambda: not world.leftovers("same"), "ours is gone")
        assert others <= {job["name"] for job in world.all_jobs("RUNNING")}
        assert world.get("mdep", "same", "second")["status"]["ready"] == "2/2"
    finally:
        first.stop()
        world.operators.remove(first)
