"""The command client against scripted SLURM commands that misbehave in the known ways."""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from isthmus.backends.slurm.addresses import Lookup, system_lookup
from isthmus.backends.slurm.commands import CommandClient
from isthmus.backends.slurm.executor import CommandResult, LocalExecutor, clean_environment
from isthmus.backends.slurm.records import (
    NotSent,
    Refused,
    SubmitRequest,
    Submitted,
    Unclear,
    UnreadableJob,
)
from isthmus.backends.slurm.work_folder import ShellWorkFolder
from isthmus.errors import RefusalCode, SlurmCommandError, SlurmUnavailableError
from isthmus.slurmcluster.policy.leftovers import may_go
from tests.slurmanswers import RECORD_END, printing

NODE = "gpu01\x1f10.0.0.11\x1fmixed\x1fgpu*\x1fnone" + RECORD_END
JOB_VALUES = "7 RUNNING 0 gpu01 gpu01 100 101 3701 1:00:00 0 gpu normal llama-test None comment"
JOB = JOB_VALUES.replace(" ", "\x1f") + RECORD_END
REQUEST = SubmitRequest(
    job_name="llama-test0001-0123456789-0-x7k2qp",
    comment="isthmus:v1:test0001:default/llama:hpc:0:x7k2qp",
    script="#!/bin/bash\ntrue\n",
    options=("--partition=gpu",),
)
CONNECT_FAILURE = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
SOCKET_TIMEOUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv"


class FakeSlurm:
    """A folder of executables that answer as they are told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.says("squeue", JOB)
        self.says("sinfo", NODE)

    def does(self, command: str, body: str) -> None:
        path = self.folder / command
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    def says(self, command: str, output: str, *, error: str = "", code: int = 0) -> None:
        err = shlex.quote(error)
        self.does(command, f"{printing(output)}\nprintf '%s\\n' {err} >&2; exit {code}")

    def client(
        self, *, timeout: float = 10, submit_timeout: float = 10, lookup: Lookup = system_lookup
    ) -> CommandClient:
        folder = str(self.folder)
        return CommandClient(
            LocalExecutor(bin_directory=folder),
            bin_directory=folder,
            timeout=timeout,
            submit_timeout=submit_timeout,
            clock=lambda: 500.0,
            lookup=lookup,
        )


@pytest.fixture
def slurm(tmp_path: Path) -> FakeSlurm:
    return FakeSlurm(tmp_path)


async def failure_of_snapshot(client: CommandClient) -> SlurmUnavailableError:
    with pytest.raises(SlurmUnavailableError) as caught:
        await client.snapshot()
    return caught.value


async def test_snapshot(slurm: FakeSlurm) -> None:
    snapshot = await slurm.client().snapshot()
    assert [job.name for job in snapshot.jobs] == ["llama-test"]
    assert snapshot.nodes["gpu01"].address == "10.0.0.11"
    assert (snapshot.started_at, snapshot.taken_at) == (500.0, 500.0)
    assert abs(snapshot.cluster_time - time.time()) < 60


async def test_snapshot_without_jobs(slurm: FakeSlurm) -> None:
    slurm.says("squeue", "")
    assert (await slurm.client().snapshot()).jobs == ()


async def test_warnings_do_not_spoil_a_complete_answer(slurm: FakeSlurm) -> None:
    slurm.says("squeue", JOB, error="slurm_load_partitions: Socket timed out")
    assert len((await slurm.client().snapshot()).jobs) == 1


@pytest.mark.parametrize(
    ("command", "output", "error", "code", "reason"),
    [
        ("squeue", "", CONNECT_FAILURE, 1, "ControllerUnreachable"),
        ("squeue", JOB, CONNECT_FAILURE, 1, "ControllerUnreachable"),
        ("sinfo", "", "slurm_load_partitions: Socket timed out", 1, "ControllerTimeout"),
        ("squeue", "", "Munge encode failed: Failed to access", 1, "AuthenticationFailed"),
        ("squeue", "", "Protocol authentication error", 1, "AuthenticationFailed"),
        ("squeue", "", "Rate limit exceeded, please retry later", 1, "RateLimited"),
        ("squeue", "", "something else", 1, "CommandFailed"),
        ("squeue", JOB[:-3], "", 0, "IncompleteOutput"),
        ("squeue", "CLUSTER: a\n", "", 0, "IncompleteOutput"),
        ("squeue", 3 * JOB.replace("1:00:00", "soon"), "", 0, "UnknownFormat"),
        ("squeue", 3 * ("7\x1fRUNNING" + RECORD_END), "", 0, "UnknownFormat"),
        ("sinfo", "gpu01\x1f10.0.0.11" + RECORD_END, "", 0, "UnknownFormat"),
        ("sinfo", "", "slurm_load_node: Unspecified error", 1, "CommandFailed"),
    ],
)
async def test_doubtful_answers_are_no_snapshot(
    slurm: FakeSlurm, command: str, output: str, error: str, code: int, reason: str
) -> None:
    slurm.says(command, output, error=error, code=code)
    failure = await failure_of_snapshot(slurm.client())
    assert failure.reason == reason
    assert str(failure)


async def test_an_unknown_format_is_told_with_release_and_field(slurm: FakeSlurm) -> None:
    slurm.says("squeue", 3 * JOB.replace("\x1f0\x1fgpu\x1f", "\x1f0:0:0\x1fgpu\x1f"))
    slurm.does("sinfo", f"[[ $* != *--version* ]] || echo slurm 27.11.1\n{printing(NODE)}")
    said = str(await failure_of_snapshot(slurm.client()))
    assert "SLURM 27.11.1" in said
    assert "exit_code is '0:0:0'" in said
    slurm.says("squeue", 4 * JOB.replace("\x1f0\x1fgpu\x1f", "\x1f0:0:0\x1fgpu\x1f"))
    again = str(await failure_of_snapshot(slurm.client()))
    assert again == said, "the same cause in the same words, or it is told with each job that comes"
    assert "Update Isthmus to a release that can" in said
    assert "broke off" not in said


async def test_a_record_that_cannot_be_read_is_set_aside(slurm: FakeSlurm) -> None:
    strange = JOB.replace("llama-test", "llama-strange").replace("1:00:00", "soon")
    slurm.says("squeue", JOB + strange)
    snapshot = await slurm.client().snapshot()
    assert [job.name for job in snapshot.jobs] == ["llama-test"]
    assert snapshot.unreadable == (UnreadableJob(7, "llama-strange", "TimeLimit is 'soon'"),)
    assert snapshot.shows_all
    slurm.says("squeue", "Welcome!\n" + JOB)
    assert not (await slurm.client().snapshot()).shows_all


@pytest.mark.parametrize(
    ("output", "error", "code"),
    [("", "", 0), ("", "slurm_load_node: Access/permission denied", 1)],
)
async def test_hidden_nodes_are_no_outage(
    slurm: FakeSlurm, output: str, error: str, code: int
) -> None:
    ours = JOB.replace("llama-test", REQUEST.job_name).replace("gpu01", "gpu07")
    slurm.says("squeue", JOB + ours)
    slurm.says("sinfo", output, error=error, code=code)
    asked: list[str] = []

    async def lookup(names: Sequence[str]) -> dict[str, str]:
        asked.extend(names)
        return {"gpu07": "10.0.0.17"}

    snapshot = await slurm.client(lookup=lookup).snapshot()
    assert [job.name for job in snapshot.jobs] == ["llama-test", REQUEST.job_name]
    assert snapshot.nodes == {}
    assert snapshot.address("gpu07") == "10.0.0.17"
    assert snapshot.address("gpu01") is None  # nobody needs it
    assert asked == ["gpu07"]
    assert abs(snapshot.cluster_time - time.time()) < 60


async def test_command_that_hangs_is_ended(slurm: FakeSlurm) -> None:
    begun, finished = slurm.folder / "begun", slurm.folder / "finished"
    slurm.does("squeue", f"echo $$ > {begun}; sleep 60; touch {finished}")
    assert (await failure_of_snapshot(slurm.client(timeout=2.0))).reason == "CommandTimeout"
    assert not finished.exists(), "it was waited for"
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)


async def test_missing_commands_are_named(slurm: FakeSlurm) -> None:
    (slurm.folder / "squeue").unlink()
    failure = await failure_of_snapshot(slurm.client())
    assert failure.reason == "CommandNotFound"
    assert "binDir" in str(failure)


async def test_ping(slurm: FakeSlurm) -> None:
    slurm.says("scontrol", "Slurmctld(primary) at login1 is UP\n")
    assert await slurm.client().ping()
    slurm.says("scontrol", "Slurmctld(primary) at login1 is DOWN\n", code=1)
    assert not await slurm.client().ping()
    slurm.does("scontrol", "sleep 60")
    assert not await slurm.client(timeout=0.2).ping()


async def test_version(slurm: FakeSlurm) -> None:
    slurm.says("sinfo", "slurm-wlm 22.05.8\n")
    assert await slurm.client().version() == "22.05.8"


async def test_submission_passes_script_name_and_comment(slurm: FakeSlurm) -> None:
    seen = slurm.folder / "seen"
    slurm.does("sbatch", f"printf '%s\\n' \"$@\" > {seen}; cat >> {seen}; echo 42")

    assert await slurm.client().submit(REQUEST) == Submitted(42)

    assert seen.read_text().splitlines() == [
        "--partition=gpu",
        "--parsable",
        "--no-requeue",
        f"--job-name={REQUEST.job_name}",
        f"--comment={REQUEST.comment}",
        "#!/bin/bash",
        "true",
    ]


async def test_submission_to_a_named_cluster(slurm: FakeSlurm) -> None:
    slurm.says("sbatch", "lua: hello\n42;cluster-a\n")
    assert await slurm.client().submit(REQUEST) == Submitted(42)


@pytest.mark.parametrize(
    ("output", "error", "code"),
    [
        ("", SOCKET_TIMEOUT, 1),
        ("", CONNECT_FAILURE, 1),
        ("", "sbatch: error: Munge encode failed", 1),
        ("", "Connection to slurm1 closed.", 255),
        ("", "", 1),
        ("", "", 0),
        ("Submitted batch job", "", 0),
        ("42\n43\n", "", 0),
        ("42\n", "sbatch: error: Invalid partition name specified", 1),
        ("", f"sbatch: error: Invalid qos specification\n{SOCKET_TIMEOUT}", 1),
    ],
)
async def test_unclear_submissions(slurm: FakeSlurm, output: str, error: str, code: int) -> None:
    slurm.says("sbatch", output, error=error, code=code)
    outcome = await slurm.client().submit(REQUEST)
    assert isinstance(outcome, Unclear)
    assert outcome.message


async def test_ghost_submission_is_unclear(slurm: FakeSlurm) -> None:
    accepted = slurm.folder / "accepted"
    slurm.does("sbatch", f"cat > {accepted}; sleep 60")
    outcome = await slurm.client(submit_timeout=0.5).submit(REQUEST)
    assert isinstance(outcome, Unclear)
    assert accepted.read_text() == REQUEST.script


async def test_refused_submission(slurm: FakeSlurm) -> None:
    text = "sbatch: error: Batch job submission failed: Invalid partition name specified"
    slurm.says("sbatch", "", error=text, code=1)
    outcome = await slurm.client().submit(REQUEST)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "InvalidPartition"
    assert "sinfo" in outcome.message


async def test_f4_a_refusal_in_words_that_nobody_lists(slurm: FakeSlurm) -> None:
    """A plug-in's sentence and a wrapper's are both told; neither is an unclear answer."""
    failed = "sbatch: error: Batch job submission failed: A new text"
    slurm.says(
        "sbatch",
        "--> checking allocation ... FAILED\n",
        error=f"sbatch: error: Choose a GPU model!\n{failed}",
        code=1,
    )
    outcome = await slurm.client().submit(REQUEST)
    assert isinstance(outcome, Refused)
    for words in ("checking allocation ... FAILED", "Choose a GPU model!", "A new text"):
        assert words in outcome.message


async def test_b9_where_nothing_runs_nothing_is_sent(slurm: FakeSlurm) -> None:
    class Nowhere(LocalExecutor):
        async def run(self, argv: Sequence[str], **kwargs: Any) -> CommandResult:
            return await super().run(("/nonexistent/bash", *argv[1:]), **kwargs)

    outcome = await CommandClient(Nowhere()).submit(REQUEST)
    assert isinstance(outcome, NotSent)
    assert "No such file" in outcome.message


@pytest.mark.parametrize(
    "request_",
    [
        SubmitRequest("a name", "c", "#!/bin/bash\n", ()),
        SubmitRequest("a,b", "c", "#!/bin/bash\n", ()),
        SubmitRequest("-a", "c", "#!/bin/bash\n", ()),
        SubmitRequest("a", "c\nd", "#!/bin/bash\n", ()),
        SubmitRequest("a", "c", "true\n", ()),
        SubmitRequest("a", "c", "#!/bin/bash\r\n", ()),
        SubmitRequest("a", "c", "#!/bin/bash\n", ("script.sh",)),
        SubmitRequest("a", "c", "#!/bin/bash\n", ("--a=b\n--wrap=c",)),
    ],
)
async def test_malformed_requests_never_reach_sbatch(
    slurm: FakeSlurm, request_: SubmitRequest
) -> None:
    slurm.does("sbatch", f"touch {slurm.folder}/called; echo 42")
    outcome = await slurm.client().submit(request_)
    assert isinstance(outcome, Refused)
    assert not (slurm.folder / "called").exists()


async def test_cancel_by_id_and_name(slurm: FakeSlurm) -> None:
    seen = slurm.folder / "seen"
    slurm.does("scancel", f'echo "$@" >> {seen}')
    client = slurm.client()
    await client.cancel(job_id=7, job_name="llama-test")
    await client.terminate(job_id=7, job_name="llama-test")
    assert seen.read_text().splitlines() == [
        "--name=llama-test 7",
        "--state=RUNNING --batch --signal=TERM --name=llama-test 7",
    ]


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        ("scancel: error: Kill job error on job id 7: Access/permission denied", 210, "P"),
        ("scancel: error: Kill job error on job id 7: Unable to contact slurm controller", 8, "U"),
        ("scancel: error: Kill job error on job id 7: Socket timed out", 140, "U"),
        ("scancel: error: Kill job error on job id 7: Invalid job id specified", 1, ""),
        ("scancel: error: Job/step already completing or completed", 1, ""),
        ("", 0, ""),
        ("what?", 1, "U"),
    ],
)
async def test_answers_of_scancel(slurm: FakeSlurm, error: str, code: int, expected: str) -> None:
    slurm.says("scancel", "", error=error, code=code)
    cancelling = slurm.client().cancel(job_id=7, job_name="llama-test")
    if expected == "":
        await cancelling
    elif expected == "P":
        with pytest.raises(SlurmCommandError) as caught:
            await cancelling
        assert caught.value.code is RefusalCode.PERMISSION_DENIED
    else:
        with pytest.raises(SlurmUnavailableError):
            await cancelling


async def test_names_that_are_lists_are_not_cancelled(slurm: FakeSlurm) -> None:
    slurm.does("scancel", f"touch {slurm.folder}/called")
    for name in ("", "a,b", "a b", "-a", "a\nb"):
        with pytest.raises(SlurmCommandError) as caught:
            await slurm.client().cancel(job_id=7, job_name=name)
        assert caught.value.code is RefusalCode.NOT_A_JOB_NAME
    assert not (slurm.folder / "called").exists()


async def test_only_slurmctld_can_say_that_a_job_does_not_exist(slurm: FakeSlurm) -> None:
    slurm.says("scontrol", "", error="slurm_load_jobs error: Invalid job id specified", code=1)
    assert await slurm.client().show_job(7) is None
    for error, code in ((CONNECT_FAILURE, 1), ("", 1), ("", 0)):
        slurm.says("scontrol", "", error=error, code=code)
        with pytest.raises(SlurmUnavailableError):
            await slurm.client().show_job(7)


async def test_gate_is_closed_once_and_for_all(tmp_path: Path) -> None:
    files = ShellWorkFolder(LocalExecutor())
    place = tmp_path / "work"
    await files.prepare(work_directory=str(place))
    await files.prepare(work_directory=str(place))
    assert await files.close_gate(work_directory=str(place), job_name="mine")
    assert await files.close_gate(work_directory=str(place), job_name="mine")
    (place / "theirs.claim").symlink_to("17.0.gpu01.99.1")
    assert not await files.close_gate(work_directory=str(place), job_name="theirs")
    with pytest.raises(SlurmUnavailableError) as caught:
        await files.close_gate(work_directory=str(tmp_path / "missing"), job_name="mine")
    assert caught.value.reason == "WorkDirectoryUnavailable"


def _made(path: Path, *, hours: float) -> None:
    if path.suffix == ".claim":
        path.symlink_to("17.0.gpu01.99.1")
    elif path.suffix:
        path.write_text("x")
    else:
        path.mkdir()
        (path / "17.0").mkdir()
    then = time.time() - hours * 3600
    os.utime(path, (then, then), follow_symlinks=False)


async def test_b7_what_ended_attempts_left_goes_by_its_age(tmp_path: Path) -> None:
    """Logs, claims and folders stay a week, key files an hour; what is others' stays for ever."""
    work = tmp_path / "work"
    work.mkdir()
    job = "llama-prod0001-0123456789-0-x7k2qp"
    ours = [f"{job}.claim", f"{job}.17.log", job, f"{job}.key", f"{job}.tunnel"]
    for name in ours:
        _made(work / name, hours=200)
    live = "llama-prod0001-0123456789-1-aaaaaa.18.log"
    young = "llama-prod0001-0123456789-2-bbbbbb.19.log"
    young_key = "llama-prod0001-0123456789-2-bbbbbb.key"
    others = ["llama-prod0002-0123456789-0-x7k2qp.17.log", "my-prod0001-notes.txt", "data"]
    for name, hours in ((live, 200), (young, 100), (young_key, 2), *((o, 999) for o in others)):
        _made(work / name, hours=hours)
    files = ShellWorkFolder(LocalExecutor())
    found = await files.old_files(
        work_directory=str(work),
        installation_id="prod0001",
        seconds=7 * 86400.0,
        key_seconds=3600.0,
    )
    known = {live.partition(".")[0]}
    gone = may_go(found, installation_id="prod0001", known=known)
    assert sorted(gone) == sorted([*ours, young_key])
    await files.remove_files(work_directory=str(work), files=(*gone, "../slip", ".", ""))
    assert {path.name for path in work.iterdir()} == {live, young, *others}
    await files.remove_files(work_directory=str(work), files=gone)  # again, or by two
    with pytest.raises(SlurmUnavailableError):
        await files.remove_files(work_directory=str(tmp_path / "missing"), files=gone)


def files_of(folder: Path) -> list[Path]:
    return list(folder.glob("llama-1*"))


async def test_secret_is_placed_for_its_owner_alone(tmp_path: Path) -> None:
    ran: list[str] = []

    class Recording(LocalExecutor):
        async def run(
            self, argv: Sequence[str], *, stdin: str = "", timeout: float
        ) -> CommandResult:
            ran.append(" ".join(argv))
            return await super().run(argv, stdin=stdin, timeout=timeout)

    files = ShellWorkFolder(Recording())
    secret = {"work_directory": str(tmp_path), "job_name": "llama-1"}
    await files.place_secret(**secret, content="first")
    await files.place_secret(**secret, content="a secret")
    (placed,) = files_of(tmp_path)
    assert placed.name == "llama-1.key"
    assert placed.read_text() == "a secret"
    assert placed.stat().st_mode & 0o777 == 0o600
    assert "a secret" not in " ".join(ran)
    for name, mode in (("llama-2.key", 0o644), ("llama-3.key", 0o600), ("llama-4.log", 0o600)):
        (tmp_path / name).touch(mode)
        (tmp_path / name).chmod(mode)
    (tmp_path / "llama-5.key").symlink_to(placed)
    work_directory = secret["work_directory"]
    assert await files.placed_secrets(work_directory=work_directory) == {"llama-1"}
    with pytest.raises(SlurmUnavailableError):
        await files.placed_secrets(work_directory=f"{work_directory}/missing")
    await files.place_tunnel_key(**secret, content="another")
    assert {one.name for one in files_of(tmp_path)} == {"llama-1.key", "llama-1.tunnel"}
    await files.remove_secrets(**secret)
    await files.remove_secrets(**secret)
    assert not files_of(tmp_path)
    assert await files.placed_secrets(work_directory=work_directory) == frozenset()


async def test_f6_ports_are_read_in_the_run_folders(tmp_path: Path) -> None:
    written = {
        "llama-1/17.0": "41001\n",
        "llama-1/17.1": "41002\n",  # restarted: the last one counts
        "llama-2/18.0": "41003",  # cut off by a network file system
        "llama-3/19.0": "41004; rm -rf /\n",
        "llama-4/20.0": "\n",
        "llama-5/22.0": "41005\n",
    }
    for folder, text in written.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "port").write_text(text)
    jobs = [(f"llama-{n}", 16 + n) for n in range(1, 5)] + [("llama-5", 2), ("../x; id", 1)]
    files = ShellWorkFolder(LocalExecutor())
    told = await files.published_ports(work_directory=str(tmp_path), jobs=jobs)
    assert told == {"llama-1": 41002}
    with pytest.raises(SlurmUnavailableError):
        await files.published_ports(work_directory=str(tmp_path / "missing"), jobs=jobs)


async def test_no_secret_is_placed_where_it_would_stay(tmp_path: Path) -> None:
    files = ShellWorkFolder(LocalExecutor())
    (tmp_path / "llama-1.claim").symlink_to("17.0.gpu01.99.1")  # a job has taken its key
    await files.place_secret(work_directory=str(tmp_path), job_name="llama-1", content="x")
    assert not (tmp_path / "llama-1.key").exists()
    with pytest.raises(SlurmUnavailableError) as caught:
        await files.place_secret(
            work_directory=str(tmp_path / "missing"), job_name="llama-1", content="a secret"
        )
    assert caught.value.reason == "WorkDirectoryUnavailable"
    assert "a secret" not in str(caught.value)


async def test_secret_that_broke_off_is_not_put_into_place(tmp_path: Path) -> None:
    class Cutting(LocalExecutor):
        async def run(
            self, argv: Sequence[str], *, stdin: str = "", timeout: float
        ) -> CommandResult:
            return await super().run(argv, stdin=stdin[:3], timeout=timeout)

    with pytest.raises(SlurmUnavailableError, match="cannot write"):
        await ShellWorkFolder(Cutting()).place_secret(
            work_directory=str(tmp_path), job_name="llama-1", content="a secret"
        )
    assert not files_of(tmp_path)


def test_clean_environment_holds_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    source = {"SLURM_CONF": "/etc/s.conf", "SQUEUE_FORMAT": "x", "TOKEN": "t", "SLURM_JWT": "t"}
    environment = clean_environment(bin_directory="/opt/slurm/bin", source=source)
    assert set(environment) - {"USER", "LOGNAME"} == {
        "PATH",
        "HOME",
        "LC_ALL",
        "SLURM_TIME_FORMAT",
        "SLURM_CONF",
    }
    assert environment["PATH"].startswith("/opt/slurm/bin:")
    assert "SLURM_CONF" not in clean_environment(source={})


async def test_executor_ends_the_whole_process_group(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"sleep 300 & echo $! > {pid_file}; wait"
    running = asyncio.create_task(LocalExecutor().run(("bash", "-c", script), timeout=1))
    result = await running
    assert result.timed_out
    await until(lambda: not alive(int(pid_file.read_text())))


async def test_executor_ends_its_command_when_cancelled(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; sleep 300"
    running = asyncio.create_task(LocalExecutor().run(("bash", "-c", script), timeout=60))
    await until(pid_file.exists)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await until(lambda: not alive(int(pid_file.read_text())))


async def test_executor_bounds_the_output() -> None:
    executor = LocalExecutor(max_output_bytes=1000)
    result = await executor.run(("bash", "-c", "yes | head -c 1000000"), timeout=10)
    assert len(result.stdout) == 1000
    assert result.returncode == 0


async def test_executor_reports_commands_that_cannot_start() -> None:
    with pytest.raises(OSError, match="nonexistent"):
        await LocalExecutor().run(("/nonexistent/command",), timeout=1)


async def test_commands_never_read_the_operators_input(slurm: FakeSlurm) -> None:
    slurm.does("squeue", "read -r line && exit 9\n" + printing(JOB))
    assert len((await slurm.client().snapshot()).jobs) == 1


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if condition():
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"did not come true (pid {os.getpid()})")
