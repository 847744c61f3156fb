"""The SLURM backend's edge against a real SLURM: commands, start gate, signals, outages.

Each test uses job names and attempts of its own, so that they can share one cluster.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from isthmus.api.conditions import PendingClass
from isthmus.backends.slurm.addresses import Lookup, system_lookup
from isthmus.backends.slurm.commands import CommandClient
from isthmus.backends.slurm.executor import LocalExecutor
from isthmus.backends.slurm.reasons import classify
from isthmus.backends.slurm.records import (
    JobRecord,
    JobTemplate,
    Refused,
    SiteFacts,
    Snapshot,
    SubmitOutcome,
    SubmitRequest,
    Submitted,
    Unclear,
)
from isthmus.backends.slurm.script import (
    identity_comment,
    parse_comment,
    render_script,
    sbatch_options,
)
from isthmus.backends.slurm.states import (
    JobState,
    exit_status,
    gate_refused,
    node_down,
    node_draining,
    node_usable,
    observe,
    work_directory_failed,
)
from isthmus.backends.slurm.work_folder import ShellWorkFolder
from isthmus.errors import SlurmUnavailableError
from isthmus.slurmcluster.poller import Poller, PollListener, PollTimes
from playground.cluster import Playground

PATIENCE = 60.0

ENGINE = textwrap.dedent(
    """
    import http.server, os, pathlib, signal, sys, time

    here = pathlib.Path(os.environ["SIGNAL_LOGS"])

    def write(name, text):
        (here / f"{name}.new").write_text(text)
        (here / f"{name}.new").rename(here / name)

    def note(who):
        def handler(number, frame):
            write(f"{who}-{signal.Signals(number).name}", str(time.time()))
            if who == "main":
                time.sleep(0.5)  # a signal that went to all is noted by the child before this
                write("main-end", str(time.time()))
                raise SystemExit(int(os.environ.get("ENGINE_EXIT", "0")))
        return handler

    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, note("child"))
        (here / "child-up").touch()
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(0.05)
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, note("main"))
    write("arguments", "\\n".join(sys.argv[1:]))
    address = ("0.0.0.0", int(sys.argv[1]))
    server = http.server.HTTPServer(address, http.server.SimpleHTTPRequestHandler)
    write("main-up", os.getcwd())
    server.serve_forever()
    """
)


@dataclass(frozen=True)
class SlurmEnvironment:
    """A SLURM cluster to test against: its configuration and an ordinary user of it."""

    configuration: Path
    bin_folder: Path
    user: str
    scratch: Path

    @property
    def controller_pid(self) -> int:
        shown = self.admin("scontrol", "show", "config")
        match = re.search(r"^SlurmctldPidFile\s*=\s*(\S+)", shown, re.MULTILINE)
        assert match is not None
        return int(Path(match[1]).read_text())

    def admin(self, command: str, *argv: str) -> str:
        done = subprocess.run(
            [str(self.bin_folder / command), *argv],
            env={"SLURM_CONF": str(self.configuration)},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return done.stdout


@pytest.fixture(scope="session")
def slurm_environment(request: pytest.FixtureRequest) -> Iterator[SlurmEnvironment]:
    """The playground's SLURM, or with ISTHMUS_TEST_SLURM_CONF one that runs already.

    SLURM_PREFIX names the folder of its programs, where they are not the machine's own.
    """
    running = os.environ.get("ISTHMUS_TEST_SLURM_CONF")
    if running is not None:
        prefix = Path(os.environ.get("SLURM_PREFIX", "/usr"))
        configuration, user, bin_folder = Path(running), "svc", prefix / "bin"
    else:
        playground: Playground = request.getfixturevalue("playground")
        configuration, user = playground.slurm.configuration, playground.config.user
        bin_folder = playground.slurm.bin_folder
    scratch = Path(tempfile.mkdtemp(prefix="isthmus-slurm-", dir="/var/tmp"))
    scratch.chmod(0o755)
    shutil.chown(scratch, user, user)
    yield SlurmEnvironment(configuration, bin_folder, user, scratch)
    shutil.rmtree(scratch)


class Worker:
    """One attempt of a stand-in engine: what is submitted, and what is seen of it."""

    def __init__(self, environment: SlurmEnvironment, client: CommandClient) -> None:
        self.environment = environment
        self.client = client
        self.files = ShellWorkFolder(slurm_executor(environment))
        self.attempt = secrets.token_hex(3)
        self.name = f"llama-test0001-{secrets.token_hex(5)}-0-{self.attempt}"
        self.logs = environment.scratch / f"signals-{self.attempt}"
        self.logs.mkdir()
        shutil.chown(self.logs, environment.user)
        program = self.logs / "engine.py"
        program.write_text(ENGINE)
        self.template = JobTemplate(
            argv=("/usr/bin/env", "python3", str(program), "@PORT@", "--attempt=@ATTEMPT@"),
            env=(("SIGNAL_LOGS", str(self.logs)),),
            gpus=1,
            gpu_type="h100",
            cpus=1,
        )
        self.site = SiteFacts(
            work_directory=str(environment.scratch / "work"),
            ports_from=41000,
            ports_to=41099,
            default_partition="gpu",
            default_account=None,
            default_qos=None,
            default_time_limit_minutes=30,
            setup="export FROM_SETUP='a b'",
        )

    @property
    def comment(self) -> str:
        return identity_comment(
            installation="test0001",
            namespace="default",
            deployment="llama",
            pool="hpc",
            slot=0,
            attempt=self.attempt,
        )

    def request(self, *, term_lead: int = 330, extra: tuple[str, ...] = ()) -> SubmitRequest:
        script = render_script(
            template=self.template,
            site=self.site,
            attempt=self.attempt,
            job_name=self.name,
            comment=self.comment,
            term_lead_seconds=term_lead,
        )
        options = sbatch_options(template=self.template, site=self.site, job_name=self.name)
        return SubmitRequest(self.name, self.comment, script, options + extra)

    async def submit(self) -> int:
        outcome = await self.client.submit(self.request())
        assert isinstance(outcome, Submitted), outcome
        return outcome.job_id

    async def record(self, job_id: int | None = None) -> JobRecord | None:
        snapshot = await self.client.snapshot()
        mine = [record for record in snapshot.jobs if record.name == self.name]
        if job_id is not None:
            mine = [record for record in mine if record.job_id == job_id]
        assert len(mine) <= 1
        return mine[0] if mine else None

    async def until(
        self, wanted: Callable[[JobRecord], bool], *, job_id: int | None = None
    ) -> JobRecord:
        seen: JobRecord | None = None

        async def found() -> bool:
            nonlocal seen
            seen = await self.record(job_id)
            return seen is not None and wanted(seen)

        await eventually(found, lambda: f"{seen}\n{self.output()}")
        assert seen is not None
        return seen

    async def until_serving(self) -> JobRecord:
        record = await self.until(lambda record: parse_comment(record.comment) is not None)
        await self.until_file("main-up")
        await self.until_file("child-up")
        return record

    async def until_file(self, name: str) -> str:
        async def there() -> bool:
            return (self.logs / name).exists()

        await eventually(there, lambda: f"no {name}\n{self.output()}")
        return (self.logs / name).read_text()

    def child_outlived_main(self) -> bool:
        """Whether a TERM came to the engine's child only as what its main process left running."""
        told = self.logs / "child-SIGTERM"
        ended = float((self.logs / "main-end").read_text())
        return not told.exists() or float(told.read_text()) >= ended

    def output(self) -> str:
        logs = sorted(Path(self.site.work_directory).glob(f"{self.name}.*.log"))
        return "\n".join(log.read_text() for log in logs)


async def eventually(condition: Callable[[], Awaitable[bool]], shown: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if await condition():
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"did not come true in {PATIENCE} s: {shown()}")


def slurm_client(environment: SlurmEnvironment, *, lookup: Lookup = system_lookup) -> CommandClient:
    folder = str(environment.bin_folder)
    return CommandClient(slurm_executor(environment), bin_directory=folder, lookup=lookup)


def slurm_executor(environment: SlurmEnvironment) -> LocalExecutor:
    return LocalExecutor(
        bin_directory=str(environment.bin_folder),
        user=environment.user,
        source={"SLURM_CONF": str(environment.configuration)},
    )


@pytest.fixture
def client(slurm_environment: SlurmEnvironment) -> CommandClient:
    return slurm_client(slurm_environment)


@pytest.fixture
async def worker(
    slurm_environment: SlurmEnvironment, client: CommandClient
) -> AsyncIterator[Worker]:
    worker = Worker(slurm_environment, client)
    await worker.files.prepare(work_directory=worker.site.work_directory)
    yield worker
    for record in (await client.snapshot()).jobs:
        if record.name == worker.name and observe(record).live:
            await client.cancel(job_id=record.job_id, job_name=record.name)

    async def over() -> bool:
        jobs = (await client.snapshot()).jobs
        return not any(record.name == worker.name and observe(record).live for record in jobs)

    await eventually(over, lambda: worker.name)


@asynccontextmanager
async def stopped_controller(environment: SlurmEnvironment) -> AsyncIterator[None]:
    pid = environment.controller_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_worker_publishes_the_port_on_which_it_serves(worker: Worker) -> None:
    job_id = await worker.submit()
    record = await worker.until_serving()

    published = parse_comment(record.comment)
    assert published is not None
    assert published.attempt == worker.attempt
    assert worker.site.ports_from <= published.port <= worker.site.ports_to
    assert record.comment.startswith(worker.comment)
    snapshot = await worker.client.snapshot()
    address = snapshot.nodes[record.node].address
    async with httpx.AsyncClient(timeout=5) as http:
        answer = await http.get(f"http://{address}:{published.port}/")
    assert answer.status_code == 200
    assert await worker.until_file("arguments") == f"{published.port}\n--attempt={worker.attempt}"
    run_directory = f"{worker.site.work_directory}/{worker.name}/{job_id}.0"
    assert await worker.until_file("main-up") == run_directory
    shown = await worker.client.show_job(job_id)
    assert shown == record


async def test_m1_f15_no_job_forges_a_record_or_hides_one(worker: Worker) -> None:
    """What SLURM keeps of a name and a comment: control characters, line feeds, all of it."""
    job_id = await worker.submit()
    victim = await worker.until(lambda record: record.state == "RUNNING")
    forged = "\x1f".join(["9" * 400, "RUNNING", *["0"] * 10, worker.name, "None", "forged"])
    name, comment = "x\x1f\x1e\ny", f"x\x1f\x1e\n{forged}\x1f\x1e\n"
    argv = ("-J", name, f"--comment={comment}", "--parsable", "--hold", "--chdir=/tmp")
    user, held = worker.environment.user, "--wrap=sleep 60"
    shown = worker.environment.admin("sbatch", f"--uid={user}", *argv, held)
    try:
        snapshot = await worker.client.snapshot()
        assert (snapshot.unreadable, snapshot.nameless) == ((), ())
        (odd,) = (each for each in snapshot.jobs if each.job_id == int(shown))
        assert (odd.name, odd.comment) == (name, comment)
        ours = [each.job_id for each in snapshot.jobs if each.name == worker.name]
        assert ours == [job_id] == [victim.job_id]
    finally:
        worker.environment.admin("scancel", shown.strip())


@asynccontextmanager
async def hidden_nodes(environment: SlurmEnvironment) -> AsyncIterator[None]:
    """Nobody but administrators sees nodes and reservations."""
    before = environment.configuration.read_text()
    environment.configuration.write_text(f"{before}PrivateData=nodes,reservations\n")
    try:
        environment.admin("scontrol", "reconfigure")
        yield
    finally:
        environment.configuration.write_text(before)
        environment.admin("scontrol", "reconfigure")


async def test_a_site_that_hides_its_nodes_is_served_all_the_same(worker: Worker) -> None:
    shown = (await worker.client.snapshot()).nodes

    async def lookup(names: Sequence[str]) -> dict[str, str]:
        return {name: shown[name].address for name in names}

    plain, environment = worker.client, worker.environment
    worker.client = slurm_client(environment, lookup=lookup)

    async def seen(*, nodes: bool) -> bool:
        try:
            return bool((await plain.snapshot()).nodes) is nodes
        except SlurmUnavailableError:  # a slurmctld that reads its configuration anew
            return False

    async with hidden_nodes(environment):
        await eventually(lambda: seen(nodes=False), lambda: "nodes are shown")
        await worker.submit()
        record = await worker.until_serving()
        snapshot = await worker.client.snapshot()
        published = parse_comment(record.comment)
        assert published is not None
        assert (dict(snapshot.nodes), snapshot.shows_all) == ({}, True)
        address = snapshot.address(record.node)
        async with httpx.AsyncClient(timeout=5) as http:
            answer = await http.get(f"http://{address}:{published.port}/")
        assert answer.status_code == 200
        await worker.client.cancel(job_id=record.job_id, job_name=worker.name)
        await worker.until(lambda record: not observe(record).live)
    await eventually(lambda: seen(nodes=True), lambda: "nodes are still hidden")


async def test_terminate_reaches_only_the_main_process_of_the_engine(worker: Worker) -> None:
    worker.template = replace(worker.template, env=(*worker.template.env, ("ENGINE_EXIT", "7")))
    job_id = await worker.submit()
    await worker.until_serving()

    await worker.client.terminate(job_id=job_id, job_name=worker.name)

    record = await worker.until(lambda record: not observe(record).live)
    assert (worker.logs / "main-SIGTERM").exists()
    assert worker.child_outlived_main()
    assert observe(record) is JobState.Failed
    assert exit_status(record) == 7


async def test_cancel_ends_the_job(worker: Worker) -> None:
    job_id = await worker.submit()
    await worker.until_serving()

    await worker.client.cancel(job_id=job_id, job_name=worker.name)

    record = await worker.until(lambda record: not observe(record).live)
    assert observe(record) is JobState.Cancelled
    assert (worker.logs / "child-SIGTERM").exists()


async def test_wrong_name_leaves_the_job_alone(worker: Worker) -> None:
    job_id = await worker.submit()
    await worker.until_serving()

    await worker.client.cancel(job_id=job_id, job_name=worker.name[:-1])
    await worker.client.cancel(job_id=job_id, job_name="another-name")
    await worker.client.terminate(job_id=job_id, job_name="another-name")
    # slurmctld works in order: when a later signal has arrived, an earlier one would have too.
    later = Worker(worker.environment, worker.client)
    later_id = await later.submit()
    await later.until_serving()
    await later.client.terminate(job_id=later_id, job_name=later.name)
    await later.until(lambda record: not observe(record).live)

    record = await worker.record()
    assert record is not None
    assert observe(record) is JobState.Running
    assert not list(worker.logs.glob("*-SIGTERM"))


async def test_jobs_that_are_gone_can_be_cancelled_without_an_error(client: CommandClient) -> None:
    await client.cancel(job_id=67_000_000, job_name="gone")
    await client.terminate(job_id=67_000_000, job_name="gone")
    assert await client.show_job(67_000_000) is None


async def test_terminate_leaves_a_pending_job_alone_at_once(worker: Worker) -> None:
    outcome = await worker.client.submit(worker.request(extra=("--hold",)))
    assert isinstance(outcome, Submitted)

    async with asyncio.timeout(5):
        await worker.client.terminate(job_id=outcome.job_id, job_name=worker.name)

    record = await worker.record()
    assert record is not None
    assert observe(record) is JobState.Pending
    assert classify(record.reason) is PendingClass.HELD


async def test_second_submission_of_an_attempt_ends_at_the_gate(worker: Worker) -> None:
    first = await worker.submit()
    await worker.until_serving()
    second = await worker.submit()

    record = await worker.until(lambda record: not observe(record).live, job_id=second)

    assert gate_refused(record)
    assert "claimed" in worker.output()
    running = await worker.record(first)
    assert running is not None
    assert observe(running) is JobState.Running
    assert not await worker.files.close_gate(
        work_directory=worker.site.work_directory, job_name=worker.name
    )


async def test_closed_gate_lets_nobody_through(worker: Worker) -> None:
    place = worker.site.work_directory
    assert await worker.files.close_gate(work_directory=place, job_name=worker.name)
    assert await worker.files.close_gate(work_directory=place, job_name=worker.name)

    await worker.submit()

    record = await worker.until(lambda record: not observe(record).live)
    assert gate_refused(record)
    assert not (worker.logs / "main-up").exists()


async def test_missing_work_directory_is_told_apart(worker: Worker) -> None:
    occupied = worker.environment.scratch / f"file-{worker.attempt}"
    occupied.write_text("a file where a folder should be")
    script = worker.request().script.replace(worker.site.work_directory, str(occupied))
    outcome = await worker.client.submit(replace(worker.request(), script=script))
    assert isinstance(outcome, Submitted)

    record = await worker.until(lambda record: not observe(record).live)

    assert work_directory_failed(record)
    with pytest.raises(SlurmUnavailableError) as caught:
        await worker.files.prepare(work_directory=str(occupied))
    assert caught.value.reason == "WorkDirectoryUnavailable"


async def test_submission_to_a_hung_controller_is_unclear_and_the_job_runs(
    worker: Worker,
) -> None:
    impatient = CommandClient(slurm_executor(worker.environment), timeout=3, submit_timeout=4)
    async with stopped_controller(worker.environment):
        submitting = asyncio.create_task(impatient.submit(worker.request()))
        with pytest.raises(SlurmUnavailableError) as caught:
            await impatient.snapshot()
        assert caught.value.reason in {"CommandTimeout", "ControllerTimeout"}
        assert not await impatient.ping()
        outcome: SubmitOutcome = await submitting
        assert isinstance(outcome, Unclear)

    record = await worker.until_serving()
    assert observe(record) is JobState.Running


async def test_refusals_are_told_apart_from_outages(worker: Worker) -> None:
    cases = {
        "--partition=nowhere": "InvalidPartition",
        "--exclude=nowhere": "InvalidNodeName",
        "--gres=gpu:h100:99": "NodeConfigurationNotAvailable",
        "--constraint=nothing": "InvalidConstraint",
        "--reservation=none": "InvalidReservation",
        "--no-such-option": "InvalidOption",
        "--time=soon": "InvalidOption",
        "--switches=abc": "InvalidOption",
        "--mem-bind=garbage": "InvalidOption",  # its exit code is the one of ssh
        "--licenses=none": "InvalidLicense",
        "--prefer=nothing": "RefusedBySlurm",
    }
    for option, reason in cases.items():
        outcome = await worker.client.submit(worker.request(extra=(option,)))
        assert isinstance(outcome, Refused), (option, outcome)
        assert outcome.reason == reason, outcome

    refused = await worker.client.snapshot()
    traces = [record for record in refused.jobs if record.name == worker.name]
    assert {observe(record) for record in traces} <= {JobState.Refused}


async def test_job_ends_its_engine_before_the_granted_end(worker: Worker) -> None:
    worker.template = replace(worker.template, time_limit_minutes=1)
    outcome = await worker.client.submit(worker.request(term_lead=3600))
    assert isinstance(outcome, Submitted)
    record = await worker.until_serving()
    assert record.end_time is not None

    sent_at = float(await worker.until_file("main-SIGTERM"))

    assert record.end_time - 31 <= sent_at < record.end_time
    ended = await worker.until(lambda record: not observe(record).live)
    assert observe(ended) is JobState.Finished
    assert worker.child_outlived_main()


async def test_taken_port_is_passed_over(worker: Worker) -> None:
    first = Worker(worker.environment, worker.client)
    node = "--nodelist=gpu01"
    for one in (first, worker):
        one.site = replace(one.site, ports_from=41200, ports_to=41201)
        outcome = await one.client.submit(one.request(extra=(node,)))
        assert isinstance(outcome, Submitted)
    records = [await one.until_serving() for one in (first, worker)]
    third = Worker(worker.environment, worker.client)
    third.site = replace(third.site, ports_from=41200, ports_to=41201)
    outcome = await third.client.submit(third.request(extra=(node,)))
    assert isinstance(outcome, Submitted)

    ports = {published.port for r in records if (published := parse_comment(r.comment))}
    assert ports == {41200, 41201}
    refused = await third.until(lambda record: not observe(record).live)
    assert exit_status(refused) == 78
    await first.client.cancel(job_id=records[0].job_id, job_name=first.name)


async def test_port_is_published_although_the_controller_was_away(worker: Worker) -> None:
    gate = worker.environment.scratch / f"go-{worker.attempt}"
    worker.site = replace(worker.site, setup=f"until [ -e {gate} ]; do sleep 0.1; done")
    await worker.submit()
    await worker.until(lambda record: observe(record) is JobState.Running)
    async with stopped_controller(worker.environment):
        gate.touch()
        await worker.until_file("main-up")
    record = await worker.until_serving()
    assert parse_comment(record.comment) is not None


async def test_f6_a_job_that_may_not_change_its_comment_tells_its_port_in_its_run_folder(
    worker: Worker,
) -> None:
    refusing = worker.environment.scratch / f"refuses-{worker.attempt}"
    refusing.mkdir()
    (refusing / "scontrol").write_text(
        "#!/bin/sh\necho 'slurm_update error: Access/permission denied' >&2\nexit 1\n"
    )
    (refusing / "scontrol").chmod(0o755)
    worker.site = replace(worker.site, setup=f"PATH={refusing}:$PATH")
    job_id = await worker.submit()
    told: dict[str, int] = {}

    async def found() -> bool:
        told.update(
            await worker.files.published_ports(
                work_directory=worker.site.work_directory, jobs=[(worker.name, job_id)]
            )
        )
        return bool(told) and "Access/permission denied" in worker.output()

    await eventually(found, worker.output)
    record = await worker.record(job_id)
    assert record is not None
    assert record.comment == worker.comment
    assert (await worker.until_file("arguments")).split("\n")[0] == str(told[worker.name])


async def test_nodes_tell_drain_and_down(worker: Worker) -> None:
    environment = worker.environment
    environment.admin(
        "scontrol", "update", "nodename=gpu04", "state=drain", "reason=ECC | bank 3, gpü"
    )
    try:
        node = (await worker.client.snapshot()).nodes["gpu04"]
        assert node_draining(node)
        assert not node_down(node)
        assert not node_usable(node)
        assert node.reason.startswith("ECC | bank 3, gp")
        assert "gpu" in node.partitions
    finally:
        environment.admin("scontrol", "update", "nodename=gpu04", "state=resume")

    environment.admin("scontrol", "update", "nodename=gpu04", "state=down", "reason=test")
    try:
        node = (await worker.client.snapshot()).nodes["gpu04"]
        assert node_down(node)
    finally:
        environment.admin("scontrol", "update", "nodename=gpu04", "state=resume")


async def test_poller_returns_soon_after_a_hung_controller(
    slurm_environment: SlurmEnvironment, client: CommandClient
) -> None:
    snapshots: list[Snapshot] = []
    failures: list[SlurmUnavailableError] = []
    impatient = CommandClient(slurm_executor(slurm_environment), timeout=2)
    poller = Poller(
        impatient,
        listener=PollListener(on_snapshot=snapshots.append, on_failure=failures.append),
        times=PollTimes(interval=0.5, backoff_cap=600, probe_interval=0.3, poke_gap=0.1),
    )
    running = asyncio.create_task(poller.run())
    try:
        await eventually(lambda: _soon(len(snapshots) >= 2), lambda: "no snapshots")
        async with stopped_controller(slurm_environment):
            await eventually(lambda: _soon(len(failures) >= 1), lambda: "no failure")
            seen = len(snapshots)
        await eventually(lambda: _soon(len(snapshots) > seen), lambda: f"{failures}")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert {error.reason for error in failures} <= {"CommandTimeout", "ControllerTimeout"}


async def _soon(value: bool) -> bool:
    return value


async def test_commands_that_do_not_exist_are_named(slurm_environment: SlurmEnvironment) -> None:
    client = CommandClient(LocalExecutor(), bin_directory="/nonexistent")
    with pytest.raises(SlurmUnavailableError) as caught:
        await client.snapshot()
    assert caught.value.reason == "CommandNotFound"
    assert not await client.ping()


async def test_environment_of_the_operator_does_not_reach_the_job(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("KUBERNETES_TOKEN", "secret")
    seen = str(worker.logs / "env")
    program = (
        f"import os; open({seen!r} + '.new', 'w').write(repr(os.environ)); "
        f"os.rename({seen!r} + '.new', {seen!r})"
    )
    worker.template = replace(worker.template, argv=("/usr/bin/env", "python3", "-c", program))
    await worker.submit()

    environment = await worker.until_file("env")

    assert "secret" not in environment
    assert "a b" in environment
    assert (await worker.until(lambda record: not observe(record).live)).submit_time is not None
