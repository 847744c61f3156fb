"""SLURM's commands through a real sshd: framing, limits, lost connections, and every refusal."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shlex
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from isthmus.backends.slurm.addresses import login_lookup
from isthmus.backends.slurm.commands import CommandClient
from isthmus.backends.slurm.records import NotSent, SubmitRequest, Submitted, Unclear
from isthmus.backends.slurm.ssh import REMOTE_SHELL, OpenSshExecutor, remote_script
from isthmus.errors import SlurmUnavailableError, SshError
from isthmus.ssh.connection import Connection
from isthmus.ssh.credentials import Credentials
from isthmus.ssh.options import Target
from isthmus.ssh.reconnect import Reconnects
from tests.ports import free_port
from tests.slurmanswers import RECORD_END, printing
from tests.sshd import Sshd, new_key

PATIENCE = 90.0
"""Seconds for what takes a moment: the machine may be busy."""

NODE = "gpu01\x1f10.0.0.11\x1fmixed\x1fgpu*\x1fnone" + RECORD_END
JOB_VALUES = "7 RUNNING 0 gpu01 gpu01 100 101 3701 1:00:00 0 gpu normal llama-test None comment"
JOB = JOB_VALUES.replace(" ", "\x1f") + RECORD_END
AWKWARD = "#!/bin/bash\necho 'it''s' \"$HOME\" `id` \\\n  end of line without a line feed"


class GivenCredentials:
    """Credentials that a test may change."""

    def __init__(self, sshd: Sshd) -> None:
        self.now = Credentials(
            key=sshd.client_key.read_bytes(), known_hosts=sshd.known_hosts.encode()
        )
        self.missing = ""

    async def read(self) -> Credentials:
        if self.missing:
            raise SshError(self.missing, reason="SecretMissing")
        return self.now


class Clock:
    """The monotonic clock, which a test may put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Site:
    """A login node with SLURM commands that answer as they are told, and our way to it."""

    def __init__(self, folder: Path, *, max_sessions: int = 10) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.says("squeue", JOB)
        self.says("sinfo", NODE)
        profile = folder / "profile"
        profile.write_text("printf() { echo Welcome; }\n")
        environment = {
            "SLURM_CONF": "/site/slurm.conf",
            "SQUEUE_FORMAT": "%i",
            "BASH_ENV": str(profile),
        }
        self.sshd = Sshd(folder / "sshd", max_sessions=max_sessions, environment=environment)
        self.sshd.start()
        self.credentials = GivenCredentials(self.sshd)
        self.clock = Clock()
        self.opened: list[OpenSshExecutor] = []

    def does(self, command: str, body: str) -> None:
        path = self.bin / command
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    def says(self, command: str, output: str) -> None:
        self.does(command, printing(output))

    def connection(self, *targets: Target) -> Connection:
        return Connection(
            targets or (self.sshd.target,),
            credentials=self.credentials,
            reconnects=Reconnects(),
            clock=self.clock,
            start_timeout=PATIENCE,
        )

    def executor(
        self,
        connection: Connection | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> OpenSshExecutor:
        made = OpenSshExecutor(
            connection or self.connection(),
            user=self.sshd.user,
            bin_directory=str(self.bin),
            clock=clock,
        )
        self.opened.append(made)
        return made

    def client(self, executor: OpenSshExecutor | None = None) -> CommandClient:
        return CommandClient(
            executor or self.executor(),
            bin_directory=str(self.bin),
            timeout=PATIENCE,
            submit_timeout=PATIENCE,
        )

    async def close(self) -> None:
        for executor in self.opened:
            await executor.close()
        self.sshd.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def strict_site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path, max_sessions=2)
    yield made
    await made.close()


def request(script: str = "#!/bin/bash\ntrue\n") -> SubmitRequest:
    return SubmitRequest(
        job_name="llama-test0001-0123456789-0-x7k2qp",
        comment="isthmus:v1:test0001:default/llama:hpc:0:x7k2qp",
        script=script,
        options=("--partition=gpu",),
    )


async def until(condition: Callable[[], bool], *, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s"
        await asyncio.sleep(0.02)


async def refusal(executor: OpenSshExecutor) -> SlurmUnavailableError:
    with pytest.raises(SlurmUnavailableError) as caught:
        await executor.run(("true",), timeout=PATIENCE)
    return caught.value


# ---- what runs, and in which surroundings


async def test_a_snapshot(site: Site) -> None:
    snapshot = await site.client().snapshot()
    assert [job.name for job in snapshot.jobs] == ["llama-test"]
    assert snapshot.nodes["gpu01"].address == "10.0.0.11"


async def test_node_names_are_looked_up_where_the_cluster_knows_them(site: Site) -> None:
    names = ["cluster-only", "localhost", "nowhere.invalid", "$(id)", "--help"]
    line = "{0}\x1f{0}\x1fmixed\x1fgpu*\x1fnone" + RECORD_END
    site.says("sinfo", "".join(line.format(name) for name in names))
    site.does(
        "getent", '[ "$2" = cluster-only ] && echo "10.7.7.7 STREAM x" || exec /usr/bin/getent "$@"'
    )
    executor = site.executor()
    client = CommandClient(
        executor, bin_directory=str(site.bin), timeout=PATIENCE, lookup=login_lookup(executor)
    )
    nodes = (await client.snapshot()).nodes
    assert nodes["cluster-only"].address == "10.7.7.7"
    assert nodes["localhost"].address == "127.0.0.1"
    for name in names[2:]:
        assert nodes[name].address == name


@pytest.mark.parametrize("script", [AWKWARD, "#!/bin/bash\n" + "# filled\n" * 30_000])
async def test_a_script_arrives_byte_for_byte(site: Site, tmp_path: Path, script: str) -> None:
    arrived = tmp_path / "arrived"
    site.does("sbatch", f"cat > {arrived}; echo 4711")
    assert await site.client().submit(request(script)) == Submitted(4711)
    assert arrived.read_text() == script


def test_a_stream_that_breaks_off_runs_nothing(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    keep = ("bash", "-c", f"cat > {ran}")
    text = remote_script(keep, stdin=AWKWARD, seconds=5, environment=("PATH=/usr/bin:/bin",))
    shell = shlex.split(REMOTE_SHELL)[1:]
    for length in range(0, len(text) - 2, 7):
        subprocess.run(shell, input=text[:length].encode(), capture_output=True, timeout=30)
        assert not ran.exists(), f"{text[:length]!r} ran"
    subprocess.run(shell, input=text.encode(), check=True, timeout=30)
    assert ran.read_text() == AWKWARD


def test_f9_a_stream_whose_beginning_is_lost_runs_nothing(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    hostile = f"x\ntouch {ran}\n" * 3  # lines of a batch script that would run by themselves
    text = remote_script(
        ("bash", "-c", f"cat > {ran}"),
        stdin=hostile,
        seconds=5,
        environment=("PATH=/usr/bin:/bin",),
    )
    shell = shlex.split(REMOTE_SHELL)[1:]
    for lost in range(1, len(text), 5):
        done = subprocess.run(shell, input=text[lost:].encode(), capture_output=True, timeout=30)
        assert not ran.exists(), f"{text[lost:]!r} ran"
        assert done.returncode == 254
        assert b"a startup file of this account reads standard input" in done.stderr


@pytest.mark.parametrize("reads", ["read -r -t 5 line", "read -r -N 7 some", "cat > /dev/null"])
async def test_f9_a_startup_file_that_reads_is_named(
    site: Site, tmp_path: Path, reads: str
) -> None:
    ran = tmp_path / "ran"
    site.does("sbatch", f"touch {ran}; echo 4711")
    (site.sshd.folder / ".bashrc").write_text(f"{reads}\n")
    with pytest.raises(SlurmUnavailableError) as caught:
        await site.client().snapshot()
    assert "a startup file of this account reads standard input" in str(caught.value)
    outcome = await site.client().submit(request(f"#!/bin/bash\ntouch {ran}\n"))
    assert isinstance(outcome, Unclear)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("startup", "shown"),
    [
        ("echo 'This account may only run rsync'; exit 1", "'This account may only run rsync'"),
        ("printf '\\n\\033[1mexpired\\a %0400d' 1; exit 0", "[1mexpired 000"),
    ],
)
async def test_f9_what_is_printed_instead_of_an_answer_is_shown(
    site: Site, startup: str, shown: str
) -> None:
    """As with a forced command, nologin, or a password that has expired."""
    (site.sshd.folder / ".bashrc").write_text(f"{startup}\n")
    with pytest.raises(SlurmUnavailableError) as caught:
        await site.client().snapshot()
    said = str(caught.value)
    assert shown in said
    assert said.isprintable()
    assert len(said) < 700
    assert "bound to a command" in said
    assert "0 of 2" not in said


async def test_the_environment_is_clean_and_knows_the_site(site: Site) -> None:
    said = await site.executor().run(("env",), timeout=PATIENCE)
    found = dict(line.split("=", 1) for line in said.stdout.splitlines())
    assert found.keys() - {"_"} == {
        "PATH",
        "HOME",
        "LC_ALL",
        "SLURM_TIME_FORMAT",
        "USER",
        "LOGNAME",
        "SLURM_CONF",
    }
    assert found["SLURM_CONF"] == "/site/slurm.conf"
    assert found["PATH"].startswith(f"{site.bin}:")
    assert found["HOME"] == str(site.sshd.folder)


async def test_return_codes_are_the_commands_own(site: Site) -> None:
    executor = site.executor()
    assert (await executor.run(("bash", "-c", "exit 7"), timeout=PATIENCE)).returncode == 7
    assert (await executor.run(("bash", "-c", "exit 255"), timeout=PATIENCE)).returncode == 254


async def test_a_command_is_ended_at_both_sides(site: Site, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; sleep 300"
    executor = site.executor()
    await executor.run(("true",), timeout=PATIENCE)
    result = await executor.run(("bash", "-c", script), timeout=10)
    assert result.returncode == 124
    await until(lambda: not alive(int(pid_file.read_text())))


def alive(pid: int) -> bool:
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


async def test_a_hung_slurmctld_is_no_lost_connection(site: Site) -> None:
    site.does("squeue", "sleep 300")
    executor = site.executor()
    await executor.run(("true",), timeout=PATIENCE)
    client = CommandClient(executor, bin_directory=str(site.bin), timeout=3)
    with pytest.raises(SlurmUnavailableError) as caught:
        await client.snapshot()
    assert caught.value.reason == "CommandTimeout"


async def test_nothing_secret_stands_in_arguments_or_logs(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    site.does(
        "squeue", "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f; echo; done 2>/dev/null"
    )
    said = await site.executor().run((str(site.bin / "squeue"),), timeout=PATIENCE)
    assert "known_hosts" in said.stdout, "the master is among the processes"
    body = site.credentials.now.key.decode().splitlines()[1]
    assert body not in said.stdout
    assert body not in caplog.text
    assert body not in repr(site.credentials.now)


# ---- the connection


async def test_one_connection_for_all_commands(site: Site) -> None:
    executor = site.executor()
    await asyncio.gather(*(executor.run(("true",), timeout=PATIENCE) for _ in range(12)))
    assert accepted(site) == 1


def accepted(site: Site) -> int:
    """How many logins sshd has let in."""
    return (site.sshd.folder / "log").read_text().count("Accepted publickey")


async def test_a_killed_master_is_replaced_at_once(site: Site) -> None:
    connection = site.connection()
    executor = site.executor(connection)
    await executor.run(("true",), timeout=PATIENCE)
    kill(connection)
    assert (await executor.run(("true",), timeout=PATIENCE)).returncode == 0
    assert accepted(site) == 2


def kill(connection: Connection) -> None:
    assert connection.pid is not None
    os.kill(connection.pid, signal.SIGKILL)


async def test_a_removed_socket_is_a_lost_connection(site: Site) -> None:
    connection = site.connection()
    executor = site.executor(connection)
    async with connection.use() as master:
        master.control_path.unlink()
    assert (await executor.run(("true",), timeout=PATIENCE)).returncode == 0


async def test_a_submission_in_flight_is_unclear(site: Site, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    site.does("sbatch", f"cat >/dev/null; echo once >> {ran}; sleep 3; echo 4711")
    connection = site.connection()
    client = site.client(site.executor(connection))
    submitting = asyncio.create_task(client.submit(request()))
    await until(ran.exists)
    kill(connection)
    outcome = await submitting
    assert isinstance(outcome, Unclear)
    assert site.sshd.user in outcome.message
    assert ran.read_text() == "once\n"


async def test_b9_a_submission_that_cannot_connect_was_not_sent(site: Site, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    site.does("sbatch", f"cat >/dev/null; echo once >> {ran}; echo 4711")
    connection = site.connection()
    client = site.client(site.executor(connection))
    site.sshd.stop()
    outcome = await client.submit(request())
    assert isinstance(outcome, NotSent), outcome
    assert "SlurmNotAsked" not in outcome.message
    assert site.sshd.user in outcome.message
    site.credentials.missing = "Secret default/hpc-ssh is missing"
    outcome = await client.submit(request())
    assert isinstance(outcome, NotSent), outcome
    assert "hpc-ssh" in outcome.message
    assert not ran.exists()


async def test_sshd_down_and_back(site: Site) -> None:
    executor = site.executor()
    await executor.run(("true",), timeout=PATIENCE)
    site.sshd.stop()
    assert (await refusal(executor)).reason == "SshUnreachable"
    site.sshd.start()
    assert (await refusal(executor)).reason == "SshUnreachable", "not before 30 s have passed"
    site.clock.ahead += 31
    assert (await executor.run(("true",), timeout=PATIENCE)).returncode == 0


async def test_no_host_is_asked_more_often_than_every_30_seconds(site: Site) -> None:
    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal knocks
        knocks += 1
        writer.close()

    knocks = 0
    site.sshd.stop()
    executor = site.executor()
    async with await asyncio.start_server(count, "127.0.0.1", site.sshd.port):
        messages = {str(await refusal(executor)) for _ in range(5)}
        assert knocks == 1
        assert len(messages) == 1, "a message that changes would be written again and again"
        site.clock.ahead += 31
        await refusal(executor)
        assert knocks == 2


async def test_another_host_where_the_first_is_down(site: Site) -> None:
    down = Target(host="127.0.0.1", port=free_port(), user=site.sshd.user)
    executor = site.executor(site.connection(down, site.sshd.target))
    assert (await executor.run(("true",), timeout=PATIENCE)).returncode == 0


async def test_ending_the_executor_ends_its_master(site: Site) -> None:
    connection = site.connection()
    executor = site.executor(connection)
    await executor.run(("true",), timeout=PATIENCE)
    pid = connection.pid
    assert pid is not None
    await executor.close()
    assert not alive(pid)
    with pytest.raises(SlurmUnavailableError):
        await executor.run(("true",), timeout=PATIENCE)


# ---- keys


async def test_a_wrong_host_key_is_not_asked_again_until_the_secret_changes(site: Site) -> None:
    good = site.credentials.now
    other = public_key(site.sshd.folder / "other")
    wrong = f"[127.0.0.1]:{site.sshd.port} {other}\n".encode()
    site.credentials.now = Credentials(key=good.key, known_hosts=wrong)
    executor = site.executor()
    assert (await refusal(executor)).reason == "HostKeyMismatch"
    site.sshd.stop()
    site.clock.ahead += 31
    assert (await refusal(executor)).reason == "HostKeyMismatch", "it was not even asked"
    site.sshd.start()
    site.credentials.now = good
    assert (await executor.run(("true",), timeout=PATIENCE)).returncode == 0


def public_key(path: Path) -> str:
    return " ".join(new_key(path).with_suffix(".pub").read_text().split()[:2])


async def test_a_wrong_key(site: Site) -> None:
    good = site.credentials.now
    wrong = new_key(site.sshd.folder / "stranger").read_bytes()
    site.credentials.now = Credentials(key=wrong, known_hosts=good.known_hosts)
    executor = site.executor()
    assert (await refusal(executor)).reason == "SshLoginRequired"
    site.credentials.now = good
    assert (await executor.run(("true",), timeout=PATIENCE)).returncode == 0


async def test_a_new_key_is_taken_without_a_gap(site: Site) -> None:
    connection = site.connection()
    executor = site.executor(connection)
    await executor.run(("true",), timeout=PATIENCE)
    before = connection.pid
    assert before is not None
    running = asyncio.create_task(executor.run(("sleep", "3"), timeout=PATIENCE))
    await until(lambda: "sleep 3" in commands(site))
    second = new_key(site.sshd.folder / "second")
    with (site.sshd.folder / "authorized_keys").open("a") as file:
        file.write(second.with_suffix(".pub").read_text())
    known_hosts = site.credentials.now.known_hosts
    site.credentials.now = Credentials(key=second.read_bytes(), known_hosts=known_hosts)
    assert (await executor.run(("true",), timeout=PATIENCE)).returncode == 0
    assert connection.pid != before
    assert (await running).returncode == 0, "what ran over the old connection is not cut"
    await until(lambda: not alive(before))


def commands(site: Site) -> str:
    """The command lines of everything that runs in sessions."""
    lines = []
    for pid in site.sshd.sessions():
        try:
            lines.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return "\n".join(lines)


async def test_a_bad_new_key_does_not_cost_what_works(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    executor = site.executor()
    await executor.run(("true",), timeout=PATIENCE)
    good, known_hosts = site.credentials.now, site.credentials.now.known_hosts
    site.credentials.now = Credentials(key=b"not a key", known_hosts=known_hosts)
    for _ in range(3):
        assert (await executor.run(("true",), timeout=PATIENCE)).returncode == 0
    assert caplog.text.count("still connected with the previous key") == 1
    assert "keySecretRef" in executor.warning
    site.credentials.now = good
    assert (await executor.run(("true",), timeout=PATIENCE)).returncode == 0
    assert executor.warning == ""


async def test_a_missing_secret(site: Site) -> None:
    site.credentials.missing = "Secret a/b does not exist: create it"
    error = await refusal(site.executor())
    assert error.reason == "SecretMissing"
    assert "create it" in str(error)
    assert accepted(site) == 0


# ---- MaxSessions


async def test_more_commands_than_sessions(strict_site: Site, tmp_path: Path) -> None:
    site = strict_site
    executor = site.executor()
    ran = tmp_path / "ran"
    script = f"echo x >> {ran}; sleep 0.3"
    results = await asyncio.gather(
        *(executor.run(("bash", "-c", script), timeout=PATIENCE) for _ in range(8))
    )
    assert [result.returncode for result in results] == [0] * 8
    assert ran.read_text() == "x\n" * 8, "each ran once"
    assert accepted(site) == 1, "and none over a connection of its own"


async def test_no_session_at_all(tmp_path: Path) -> None:
    site = Site(tmp_path, max_sessions=0)
    try:
        connection = site.connection()
        async with connection.use():
            pass  # the login itself is let in
        with pytest.raises(SlurmUnavailableError) as caught:
            await site.executor(connection).run(("true",), timeout=8)
        assert caught.value.reason == "SshSessionsRefused"
        assert "MaxSessions" in str(caught.value)
    finally:
        await site.close()


async def test_a_last_try_without_time_does_not_hide_the_refusals_before_it(
    tmp_path: Path,
) -> None:
    """It was told as a host that cannot be reached, wherever in that try the time ended."""
    site = Site(tmp_path, max_sessions=0)
    try:
        connection = site.connection()
        async with connection.use():
            pass
        for ends_at in range(5, 10):
            looks = itertools.count()

            def clock(looks: Iterator[int] = looks, ends_at: int = ends_at) -> float:
                return PATIENCE if next(looks) >= ends_at else 0.0

            with pytest.raises(SlurmUnavailableError) as caught:
                await site.executor(connection, clock=clock).run(("true",), timeout=PATIENCE)
            assert caught.value.reason == "SshSessionsRefused", ends_at
    finally:
        await site.close()


@pytest.fixture(autouse=True)
def no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's own ssh takes part."""
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nonexistent")
