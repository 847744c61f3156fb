"""The core of the SLURM backend on several releases at once: 22.05, 24.11 and the newest.

Each body is written once and applied to all releases at the same time, with one operator; a failure
names its release. In `make test` a release that cannot be had is skipped; `make matrix` wants all.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from playground.operator_process import NAMESPACE
from tests.real.conftest import arguments
from tests.real.matrix import RELEASES, Matrix, Site, start
from tests.real.test_drain import assert_finished, open_streams, slow_engine
from tests.real.world import Json, Not

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="the playgrounds need root"),
]
REQUIRED = os.environ.get("MATRIX") == "required"


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest) -> Iterator[Matrix]:
    with ExitStack() as stack:
        matrix = start(stack, arguments=arguments)
        terminal = request.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.write_line(f"\n{matrix.describe()}")
        yield matrix


@pytest.fixture
def matrix(started: Matrix) -> Iterator[Matrix]:
    """All worlds without deployments, and without them again after the test."""
    if started.broken:
        pytest.fail(f"{started.broken[0]} left what does not end", pytrace=False)
    yield started
    started.operator.start()
    try:
        started.each(Site.mend)
    except pytest.fail.Exception:
        started.broken.append(os.environ.get("PYTEST_CURRENT_TEST", "a test"))
        raise


@pytest.mark.parametrize("release", RELEASES)
def test_the_release_is_there(started: Matrix, release: str) -> None:
    why = started.missing.get(release)
    if why and not REQUIRED:
        pytest.skip(f"SLURM {release} cannot be had: {why}")
    assert not why, f"SLURM {release} cannot be had: {why}"
    (site,) = (each for each in started.sites if each.release == release)
    assert release in (site.version.rpartition(".")[0], "newest")


def test_life_cycle(matrix: Matrix) -> None:
    def body(site: Site) -> None:
        # F15: an odd name, and a comment that would be a record where its ends could be guessed.
        odd = ("-J", "x\x1f\x1e\ny", f"--comment=x\x1f\x1e\n{'9' * 400}\x1fRUNNING\x1f\x1e\n")
        held = site.slurm("sbatch", *odd, "--hold", "--parsable", "--wrap=true", user="svc")
        site.deploy("life")
        (worker,) = site.ready("life", 1)
        assert "SnapshotComplete" in str(site.reachable())
        site.slurm("scancel", held.strip(), user="svc")
        assert "SGLang" in site.chat(worker["url"])
        for replicas in (3, 1):
            site.scale("life", replicas)
            workers = site.ready("life", replicas)
        old = {each["name"] for each in workers}
        site.deploy("life", engine={"args": ["--mem-fraction-static=0.8"]})
        site.until(
            lambda: not old & {each["name"] for each in site.status("life").get("workers", [])},
            "the old worker is replaced",
        )
        (worker,) = site.ready("life", 1)
        job = str(worker["jobId"])
        script = site.slurm("scontrol", "write", "batch_script", job, "-", user="svc")
        assert "--mem-fraction-static=0.8" in script
        _path, said = (site.jobs_folder / f"{job}.release").read_text().splitlines()
        assert said.endswith(f" {site.version}"), "a job finds the commands of its own release"
        site.delete("life", wait=False)
        site.wait_gone("life")
        site.until(lambda: site.job(job).get("state") == "COMPLETED", f"{job} has ended well")

    matrix.each(body)


def test_drain(matrix: Matrix) -> None:
    """Out of rotation first, what is under way is finished, and the engine ends by itself."""

    def body(site: Site) -> None:
        site.deploy("drain", engine=slow_engine(8))
        (worker,) = site.ready("drain", 1)
        streams = open_streams(worker["url"], 3)
        site.scale("drain", 0)
        site.until(lambda: not site.members("drain"), "out of the membership first")
        assert any(stream.is_alive() for stream in streams)
        assert_finished(streams)
        site.ready("drain", 0)
        job = str(worker["jobId"])
        site.until(lambda: site.job(job).get("state") == "COMPLETED", f"{job} has ended well")
        (log,) = site.jobs_folder.glob(f"{site.job(job)['name']}*.log")
        assert "the engine ended with 0" in log.read_text()

    matrix.each(body)


def test_restarted_operator_adopts_what_runs(matrix: Matrix) -> None:
    """Killed, the statuses wiped, a controller that is younger than the jobs: nothing anew."""
    jobs: dict[str, set[str]] = {}

    def serve(site: Site) -> None:
        site.deploy("adopt", replicas=2)
        site.ready("adopt", 2)
        jobs[site.release] = site.ids("adopt")

    def wipe(site: Site) -> None:
        for sj in site.attempts("adopt"):
            path = site.path("sj", sj["metadata"]["name"], subresource="status")
            site.api.patch(path, [{"op": "remove", "path": "/status"}], kind="json")

    def adopted(site: Site) -> None:
        site.until(
            lambda: all(sj.get("status", {}).get("jobId") for sj in site.attempts("adopt")),
            "each attempt knows its job again",
        )
        site.ready("adopt", 2)
        assert site.ids("adopt") == jobs[site.release]
        site.assert_one_engine_per_attempt("adopt")

    matrix.each(serve)
    matrix.kill_operator()
    matrix.each(wipe)
    matrix.operator.start()
    matrix.each(adopted)


def test_lost_reply_of_sbatch(matrix: Matrix) -> None:
    """Sent to a slurmctld that hangs: sbatch cannot say what became of it, and the job runs."""

    def body(site: Site) -> None:
        slurm, gate = site.playground.slurm, site.jobs_folder / "gate"
        gate.touch()
        called = site.jobs_folder / "called"
        called.unlink(missing_ok=True)
        site.jobs_folder.chmod(0o777)
        site.deploy("ghost")
        site.until(called.exists, "sbatch is about to run")
        slurm.pause_controller()
        try:
            gate.unlink()
            site.until(
                lambda: (
                    [sj.get("status", {}).get("phase") for sj in site.attempts("ghost")]
                    == ["SubmitUnknown"]
                ),
                "the unclear answer is called unclear",
            )
        finally:
            slurm.continue_controller()
        site.ready("ghost", 1)
        site.assert_one_engine_per_attempt("ghost")
        names = [job["name"] for job in site.queue() if job["name"].startswith("ghost-")]
        started = [name for name in names if site.starts(name)]
        assert len(started) == 1, f"one engine, whatever was submitted: {names}"

    matrix.each(body)


REFUSALS: dict[str, tuple[Json, str]] = {
    "partition": ({"slurm": {"partitions": ["nosuch"]}}, "slurm.partitions"),
    "gpus": ({"worker": {"gpusPerNode": 9}}, "NodeConfigurationNotAvailable"),
    "license": ({"slurm": {"sbatchOptions": ["--licenses=none"]}}, "Invalid license"),
    "constraint": ({"slurm": {"sbatchOptions": ["--constraint=nothing"]}}, "constraint"),
}


def test_refusals_say_what_is_wrong(matrix: Matrix) -> None:
    def body(site: Site) -> None:
        for name, (pool, _) in REFUSALS.items():
            site.deploy(f"bad-{name}", **pool)
        for name, (_, word) in REFUSALS.items():
            site.wait_pending(f"bad-{name}", "Never", "SubmitRefused", word)
        assert not [job for job in site.queue("PENDING,RUNNING") if job["name"].startswith("bad-")]

    matrix.each(body)


def test_what_keeps_a_job_waiting(matrix: Matrix) -> None:
    """Drained nodes, a hold, a limit of the partition; a drained node's own job goes on."""

    def body(site: Site) -> None:
        slurm = site.playground.slurm
        nodes = [f"gpu{number:02}" for number in range(1, slurm.config.slurm_nodes + 1)]
        site.deploy("stays")
        (worker,) = site.ready("stays", 1)
        for node in nodes:
            slurm.drain(node)
        site.deploy("never", slurm={"partitions": ["short"], "timeLimit": "1h"})
        site.wait_pending("never", "PendingNever", "PartitionTimeLimit")
        site.deploy("waits")
        site.wait_pending("waits", "PendingResources")
        (job,) = site.ids("waits")
        site.slurm("scontrol", "hold", job)
        site.wait_pending("waits", "PendingHeld", "JobHeldAdmin")
        site.slurm("scontrol", "release", job)
        for node in nodes:
            slurm.resume(node)
        site.ready("waits", 1)
        assert site.ids("waits") == {job}, "the same job starts"
        (still,) = site.ready("stays", 1)
        assert still["jobId"] == worker["jobId"], "what runs on a drained node goes on"

    matrix.each(body)


ENDS = {
    "requeue": {"JobRequeued"},
    "cancel": {"JobCancelled"},
    # slurmctld ends such a job within half a minute: mostly its successor serves before.
    "limit": {"JobTimeLimit", "TimeLimitNear"},
    "killed": {"JobFailed"},
}


def test_how_a_job_ended_is_told_and_it_is_replaced(matrix: Matrix) -> None:
    def body(site: Site) -> None:
        before = {}
        for name in ENDS:
            site.deploy(name)
        for name in ENDS:
            (before[name],) = site.ready(name, 1)
        job = {name: str(worker["jobId"]) for name, worker in before.items()}
        site.slurm("scontrol", "update", f"jobid={job['requeue']}", "requeue=1")
        site.slurm("scontrol", "requeue", job["requeue"])
        site.slurm("scancel", job["cancel"])
        site.slurm("scontrol", "update", f"jobid={job['limit']}", "endtime=now+1")
        kill_engine(site, before["killed"])
        for name, reasons in ENDS.items():
            ended_as(site, before[name], reasons)
        for name in ENDS:
            (after,) = site.ready(name, 1)
            assert after["jobId"] != before[name]["jobId"]
            site.assert_one_engine_per_attempt(name)

    matrix.each(body)


def kill_engine(site: Site, worker: Json) -> None:
    """KILL the engine's main process, on its node."""
    program = "import os, signal, sys; os.kill(int(sys.argv[1]), signal.SIGKILL)"
    port = worker["url"].rpartition(":")[2]
    found = site.playground.slurm.run_on(worker["node"], "pgrep", "-f", f"[-]-port[ =]{port}")
    site.playground.slurm.run_on(worker["node"], "python3", "-c", program, found.split()[0])


def ended_as(site: Site, worker: Json, reasons: set[str]) -> None:
    """Wait until the attempt of a worker, or an event of it, gives such a reason for its end."""
    name = worker["name"]

    def look() -> Any:
        told = [site.get("sj", name).get("status", {}).get("reason")]
        events = site.listed("events") + site.listed("events", namespace=NAMESPACE)
        told += [each["reason"] for each in events if name in json.dumps(each)]
        return not reasons.isdisjoint(told) or Not(str(told))

    site.until(look, f"{name} ended as {' or '.join(sorted(reasons))}")


def test_node_fails(matrix: Matrix) -> None:
    def body(site: Site) -> None:
        slurm = site.playground.slurm
        site.deploy("broken")
        (before,) = site.ready("broken", 1)
        slurm.down(before["node"])
        ended_as(site, before, {"JobNodeFailed"})
        (after,) = site.ready("broken", 1)
        assert after["node"] != before["node"]
        site.assert_one_engine_per_attempt("broken")

    matrix.each(body)


def test_controller_is_killed_and_comes_back(matrix: Matrix) -> None:
    def body(site: Site) -> None:
        slurm = site.playground.slurm
        site.deploy("outage", replicas=2)
        workers = site.ready("outage", 2)
        jobs = site.ids("outage")
        site.wait_saved("outage")
        slurm.kill_controller()
        said = site.wait_reachable("False")
        assert said["reason"] in {"ControllerUnreachable", "ControllerTimeout", "CommandTimeout"}
        assert all("SGLang" in site.chat(worker["url"]) for worker in workers)
        assert site.status("outage")["ready"] == "2/2"
        slurm.start_controller()
        site.wait_reachable("True")
        site.scale("outage", 3)
        # What slurmctld had not saved yet when it was killed is lost, also a comment with the port.
        site.ready("outage", 3, comments=False)
        assert jobs < site.ids("outage"), "nothing was submitted again"

    matrix.each(body)
