"""What the schema cannot know: each ends in a condition that says what to do, and mends itself."""

from typing import Any

import pytest

from tests.real.world import Not, World, deployment, kubernetes_pool, slurm_pool, until


def pool_pending(world: World, name: str, pool: str) -> dict[str, Any]:
    pools = world.status(name).get("pools", [])
    return next((p.get("pending") or {} for p in pools if p["name"] == pool), {})


def wait_pending(world: World, name: str, pool: str, **wanted: str) -> dict[str, Any]:
    def look() -> Any:
        found = pool_pending(world, name, pool)
        good = all(found.get(key) == value for key, value in wanted.items())
        return found if found and good else Not(str(found))

    found: dict[str, Any] = until(look, f"pool {pool} of {name} is pending with {wanted}")
    return found


@pytest.mark.timeout(180)
def test_missing_slurmcluster(world: World) -> None:
    world.apply(deployment("nocluster", slurm_pool(cluster="later"), replicas=1))
    said = world.wait_condition("nocluster", "Ready", reason="ClusterNotFound")
    assert "create it" in said["message"]
    assert "clusterRef" in said["message"]
    assert world.condition("nocluster", "SlurmReachable")["status"] == "False"
    assert world.objects("sj", "nocluster") == []
    world.extra(world.cluster("later"))
    world.wait_agree("nocluster", slurm=1)
    world.delete("nocluster")


@pytest.mark.timeout(180)
def test_namespace_not_admitted(world: World) -> None:
    world.extra(world.cluster("closed", access={"allowedNamespaces": {"names": []}}))
    world.apply(deployment("denied", slurm_pool(cluster="closed"), replicas=1))
    said = world.wait_condition("denied", "Ready", reason="ClusterNotAllowed")
    assert "spec.access.allowedNamespaces" in said["message"]
    world.extra(world.cluster("closed"))
    world.wait_agree("denied", slurm=1)
    world.delete("denied")


@pytest.mark.timeout(180)
def test_unreachable_slurmcluster(world: World) -> None:
    broken = world.cluster("broken")
    broken["spec"]["commands"]["binDir"] = "/opt/no-slurm-here/bin"
    world.extra(broken)
    world.apply(deployment("blind", slurm_pool(cluster="broken"), replicas=1))
    said = world.wait_condition("blind", "SlurmReachable", reason="CommandNotFound")
    assert "commands.binDir" in said["message"]
    assert world.objects("sj", "blind") == []
    assert "False" in world.kubectl("get", "slc", "broken", "-n", "isthmus-system")
    world.extra(world.cluster("broken"))
    world.wait_agree("blind", slurm=1)
    world.delete("blind")


@pytest.mark.timeout(240)
def test_a_record_in_an_unknown_form_leaves_its_worker_alone(world: World) -> None:
    """A release that prints a field anew, in the place of which a filter behind squeue stands."""
    folder = world.playground.state / "strange"
    folder.mkdir()
    change = folder / "change.sed"
    change.write_text("")
    programs = world.playground.slurm.bin_folder
    for command in ("sbatch", "scancel", "scontrol", "sinfo"):
        (folder / command).symlink_to(programs / command)
    (folder / "squeue").write_text(
        f'#!/bin/bash\n{programs}/squeue "$@" | sed -f {change}\nexit "${{PIPESTATUS[0]}}"\n'
    )
    (folder / "squeue").chmod(0o755)
    cluster = world.cluster("strange")
    cluster["spec"]["commands"]["binDir"] = str(folder)
    world.apply(cluster, deployment("strange", slurm_pool(cluster="strange"), replicas=2))
    world.wait_agree("strange", slurm=2)
    members = world.members("strange")
    job = world.jobs("strange")[0]

    def said(reason: str) -> str:
        def look() -> Any:
            status = world.get("slc", "strange", namespace="isthmus-system").get("status", {})
            found = next(c for c in status["conditions"] if c["type"] == "SlurmReachable")
            return found["message"] if found["reason"] == reason else Not(str(found))

        message: str = until(look, f"SlurmReachable with reason {reason}")
        return message

    # The tenth field, which begins with the mark at the end of the ninth.
    exit_codes = "s/^\\(\\([^\x1f]*\x1f\\)\\{9\\}[0-9a-f]\\{16\\}\\)[^\x1f]*/\\10:0:0/"
    change.write_text(f"/^{job['id']}\x1f/{exit_codes}\n")
    message = said("RecordsUnreadable")
    assert f"{job['id']} {job['name']} (exit_code is '0:0:0')" in message
    # Others are served as ever meanwhile, and the worker itself stays.
    world.scale("strange", 3)
    world.wait_agree("strange", slurm=3)
    assert members < world.members("strange")
    until(lambda: job["id"] in {each["id"] for each in world.jobs("strange")}, "its job goes on")
    change.write_text(f"{exit_codes}\n")
    message = said("UnknownFormat")
    version = world.get("slc", "strange", namespace="isthmus-system")["status"]["version"]
    assert f"SLURM {version}: " in message
    assert "exit_code is '0:0:0'" in message
    assert len(world.members("strange")) == 3
    change.write_text("")
    said("SnapshotComplete")
    world.delete("strange")
    until(lambda: not world.leftovers("strange"), "nothing is left after the delete")
    world.kubectl("delete", "slc", "strange", "-n", "isthmus-system", timeout=60)


@pytest.mark.timeout(180)
def test_unknown_partition(world: World) -> None:
    world.apply(deployment("lost", slurm_pool(slurm={"partitions": ["nosuch"]}), replicas=1))
    pending = wait_pending(world, "lost", "hpc", **{"class": "Never"})
    assert pending["reason"] == "SubmitRefused"
    assert "partition" in pending["message"]
    assert "slurm.partitions" in pending["message"]
    assert world.condition("lost", "Progressing")["status"] == "False"
    # Mended by the administrator, without a change of ours: the next attempt goes through.
    slurm = world.playground.slurm
    slurm.command("scontrol", "create", "PartitionName=nosuch", "Nodes=gpu[01-04]", "MaxTime=1-0")
    try:
        world.wait_agree("lost", slurm=1)
        world.delete("lost")
        until(lambda: not world.leftovers("lost"), "lost is gone")
    finally:
        slurm.command("scontrol", "delete", "PartitionName=nosuch")


@pytest.mark.timeout(180)
def test_unknown_partition_corrected_by_the_user(world: World) -> None:
    world.apply(deployment("typo", slurm_pool(slurm={"partitions": ["gpuu"]}), replicas=1))
    wait_pending(world, "typo", "hpc", **{"class": "Never"})
    world.apply(deployment("typo", slurm_pool(slurm={"partitions": ["gpu"]}), replicas=1))
    world.wait_agree("typo", slurm=1)


@pytest.mark.timeout(180)
def test_image_that_does_not_exist(world: World) -> None:
    good = kubernetes_pool()
    bad = kubernetes_pool(engine={"image": "localhost/no-such-engine:1"})
    world.apply(deployment("image", good, replicas=1))
    world.wait_agree("image", kubernetes=1)
    members = world.members("image")
    world.apply(deployment("image", bad, replicas=1))
    pending = wait_pending(world, "image", "k8s", **{"class": "Image"})
    assert "localhost/no-such-engine:1" in pending["message"]
    assert "engine.image" in pending["message"]
    said = world.wait_condition("image", "Ready", reason="ImagePullError")
    assert said["status"] == "False"
    # The old worker stays while the new one cannot be had.
    assert world.members("image") == members
    assert world.condition("image", "Available")["status"] == "True"
    world.apply(deployment("image", good, replicas=1))
    world.wait_agree("image", kubernetes=1)


@pytest.mark.timeout(180)
def test_an_image_without_the_engine(world: World) -> None:
    """Process 1 says so, and what it says comes to the status."""
    lost = {"env": [{"name": "PATH", "value": "/usr/bin:/bin"}]}
    world.apply(deployment("bare", kubernetes_pool(engine=lost), replicas=1))
    said = world.wait_condition("bare", "Ready", reason="ContainerStartError")
    assert "the image does not have the program vllm" in said["message"]
    assert "correct engine.image" in said["message"]


@pytest.mark.timeout(180)
def test_more_gpus_than_there_are(world: World) -> None:
    """A pod that cannot be scheduled shows why; an update that finds no room keeps the old one.

    With so many processes an engine needs more shared memory than a container has by itself.
    """
    full = kubernetes_pool(worker={"gpusPerNode": 8})
    world.apply(deployment("full", full, replicas=2))
    world.wait_agree("full", kubernetes=2)
    changed = kubernetes_pool(worker={"gpusPerNode": 8}, engine={"args": ["--max-model-len=1024"]})
    members = world.members("full")
    world.apply(deployment("full", changed, replicas=2))
    pending = wait_pending(world, "full", "k8s", **{"class": "Unschedulable"})
    assert "nvidia.com/gpu" in pending["message"]
    assert world.members("full") == members
    assert world.status("full")["ready"] == "2/2"
    assert world.condition("full", "Ready")["reason"] == "Unschedulable"
    world.scale("full", 1)
    world.wait_agree("full", kubernetes=1)


@pytest.mark.timeout(180)
def test_engine_that_refuses_its_arguments(world: World) -> None:
    wrong = ["--no-such-option-of-any-engine=1"]
    world.apply(
        deployment(
            "args",
            kubernetes_pool(priority=1, maxReplicas=1, engine={"args": wrong}),
            slurm_pool(engine={"args": wrong}),
            replicas=2,
        )
    )
    for pool in ("k8s", "hpc"):
        pending = wait_pending(world, "args", pool, **{"class": "Failing"})
        assert "exit code 2" in pending["message"]
        assert "engine.args" in pending["message"]
    world.apply(
        deployment("args", kubernetes_pool(priority=1, maxReplicas=1), slurm_pool(), replicas=2)
    )
    world.wait_agree("args", kubernetes=1, slurm=1)


@pytest.mark.timeout(120)
def test_service_of_somebody_else(world: World) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken"}}
    spec = {"selector": {"app": "taken"}, "ports": [{"port": 80}]}
    world.extra({**service, "spec": spec})
    world.apply(deployment("taken", kubernetes_pool(), replicas=1))
    said = world.wait_condition("taken", "Ready", reason="NameConflict")
    assert "Service default/taken" in said["message"]
    assert "isthmus.dev/traffic" not in world.get("service", "taken")["spec"]["selector"]
    world.remove("service", "taken")
    world.wait_agree("taken", kubernetes=1)
