"""A master of ours against a real sshd: its start, its end, its forwards, and every refusal."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from isthmus.errors import SshError
from isthmus.ssh.files import MAX_SOCKET_PATH, PrivateFolder
from isthmus.ssh.master import Master
from isthmus.ssh.options import Direction, Forward, jump_command
from tests.canaries import SHAPES, assert_unseen
from tests.ports import free_port
from tests.sshd import Sshd, listens, new_key

PATIENCE = 90.0


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    server = Sshd(tmp_path / "sshd")
    server.start()
    yield server
    server.close()


@pytest.fixture
def folder() -> Iterator[PrivateFolder]:
    made = PrivateFolder()
    yield made
    made.close()


@pytest.fixture
async def master(sshd: Sshd, folder: PrivateFolder) -> AsyncIterator[Master]:
    filled(folder, sshd)
    made = Master(sshd.target, identity=folder.identity, control_path=folder.socket("m"))
    yield made
    await made.close()


def filled(folder: PrivateFolder, sshd: Sshd) -> None:
    folder.write(key=sshd.client_key.read_bytes(), known_hosts=sshd.known_hosts.encode())


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE:.0f} s"
        await asyncio.sleep(0.02)


async def refusal(master: Master) -> SshError:
    with pytest.raises(SshError) as caught:
        await master.start(timeout=PATIENCE)
    assert not master.running
    return caught.value


async def test_starts_answers_and_ends(master: Master) -> None:
    assert not await master.check()
    await master.start(timeout=PATIENCE)
    assert await master.check()
    pid = master.pid
    assert pid is not None
    await master.close()
    assert not await master.check()
    assert not master.control_path.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_killed_master_is_noticed(master: Master) -> None:
    await master.start(timeout=PATIENCE)
    assert master.pid is not None
    os.kill(master.pid, signal.SIGKILL)
    assert (await master.wait()).reason == "SshUnreachable"
    assert not await master.check()
    await master.start(timeout=PATIENCE)  # the socket that was left behind is not in the way
    assert await master.check()


async def test_a_server_that_ends_takes_the_master_along(master: Master, sshd: Sshd) -> None:
    await master.start(timeout=PATIENCE)
    sshd.stop()
    error = await master.wait()
    assert error.reason == "SshUnreachable"
    assert not await master.check()
    assert (await refusal(master)).reason == "SshUnreachable"
    sshd.start()
    await master.start(timeout=PATIENCE)
    assert await master.check()


async def test_a_hung_master_does_not_answer(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isthmus.ssh.master.CONTROL_TIMEOUT", 0.5)
    await master.start(timeout=PATIENCE)
    assert master.pid is not None
    os.kill(master.pid, signal.SIGSTOP)
    assert not await master.check()
    await master.close()
    assert not master.running


async def test_refused_connection_says_what_to_check(master: Master, sshd: Sshd) -> None:
    sshd.stop()
    error = await refusal(master)
    assert error.reason == "SshUnreachable"
    assert "Connection refused" in str(error)
    assert "login.ssh.hosts" in str(error)


async def test_a_port_that_is_no_sshd(master: Master, sshd: Sshd, folder: PrivateFolder) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    sshd.stop()
    server = await asyncio.start_server(silent, "127.0.0.1", sshd.port)
    async with server:
        with pytest.raises(SshError) as caught:
            await master.start(timeout=1)
    assert caught.value.reason == "SshUnreachable"
    assert not master.running


async def test_wrong_host_key(master: Master, folder: PrivateFolder, sshd: Sshd) -> None:
    other = new_key(sshd.folder / "other").with_suffix(".pub").read_text().split()[:2]
    known_hosts = f"[127.0.0.1]:{sshd.port} {' '.join(other)}\n"
    folder.write(key=sshd.client_key.read_bytes(), known_hosts=known_hosts.encode())
    error = await refusal(master)
    assert error.reason == "HostKeyMismatch"
    assert "knownHostsRef" in str(error)


async def test_unknown_host_key(master: Master, folder: PrivateFolder, sshd: Sshd) -> None:
    folder.write(key=sshd.client_key.read_bytes(), known_hosts=b"# none\n")
    assert (await refusal(master)).reason == "HostKeyMismatch"
    assert "REVOKED" not in folder.identity.known_hosts.read_text()
    assert folder.identity.known_hosts.read_text() == "# none\n", "nothing is learned by itself"


def protect(key: Path) -> None:
    argv = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(key)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("key", ["another", "garbage", "passphrase"])
async def test_wrong_key(master: Master, folder: PrivateFolder, sshd: Sshd, key: str) -> None:
    path = new_key(sshd.folder / key)
    if key == "passphrase":
        protect(path)
    content = b"not a key" if key == "garbage" else path.read_bytes()
    folder.write(key=content, known_hosts=sshd.known_hosts.encode())
    error = await refusal(master)
    assert error.reason == "SshLoginRequired"
    assert "keySecretRef" in str(error)


@pytest.mark.parametrize("file", ["key", "known_hosts"])
async def test_c2_no_secret_shows_in_what_ssh_says_of_it(
    folder: PrivateFolder, sshd: Sshd, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its words go into conditions; either Secret may hold something else than it should."""
    caplog.set_level(logging.DEBUG)
    good = {"key": sshd.client_key.read_bytes(), "known_hosts": sshd.known_hosts.encode()}
    for number, value in enumerate(SHAPES.values()):
        folder.write(**{**good, file: value})
        path = folder.socket(f"c{number}")
        made = Master(sshd.target, identity=folder.identity, control_path=path)
        error = await refusal(made)
        await made.close()
        assert_unseen(error, caplog.text)


async def test_forwards_come_and_go_on_a_living_master(master: Master) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port: int = server.sockets[0].getsockname()[1]
        await master.start(timeout=PATIENCE)
        for direction in Direction:
            forward = Forward("127.0.0.1", free_port(), "127.0.0.1", port, direction)
            await master.forward(forward)
            reader, writer = await asyncio.open_connection("127.0.0.1", forward.port)
            assert await reader.read() == b"hello"
            writer.close()
            await writer.wait_closed()
            await master.cancel(forward)
            await until(lambda forward=forward: not listens(forward.port))
        assert await master.check()


async def test_a_taken_port_is_an_error_and_leaves_the_master(master: Master) -> None:
    async with await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0) as server:
        port: int = server.sockets[0].getsockname()[1]
        await master.start(timeout=PATIENCE)
        with pytest.raises(SshError, match="forward"):
            await master.forward(Forward("127.0.0.1", port, "127.0.0.1", 1))
        assert await master.check()


@pytest.mark.parametrize("forwarding", ["no", "yes"])
async def test_f8_a_server_that_forbids_forwarding_is_told_from_an_engine_that_is_not_there(
    tmp_path: Path, folder: PrivateFolder, forwarding: str
) -> None:
    sshd = Sshd(tmp_path / "strict", forwarding=forwarding)
    sshd.start()
    master = Master(
        sshd.target, identity=sshd.identity(tmp_path / "id"), control_path=folder.socket("m8")
    )
    try:
        await master.start(timeout=PATIENCE)
        forward = Forward("127.0.0.1", free_port(), "127.0.0.1", free_port())
        await master.forward(forward)
        reader, writer = await asyncio.open_connection("127.0.0.1", forward.port)
        assert await reader.read() == b""
        writer.close()
        if forwarding == "no":
            await until(lambda: master.forbidden == 1)
            further = Master(
                sshd.target,
                identity=sshd.identity(tmp_path / "id"),
                control_path=folder.socket("m9"),
                proxy_command=jump_command(
                    sshd.target, control_path=master.control_path, to=sshd.target
                ),
            )
            with pytest.raises(SshError, match=r"network\.mode: Reverse"):
                await further.start(timeout=PATIENCE)
        assert "open failed" not in master.said()
        assert await master.check()
        assert (master.forbidden > 0) == (forwarding == "no")
    finally:
        await master.close()
        sshd.close()


async def test_a_master_through_another(
    master: Master, sshd: Sshd, folder: PrivateFolder, tmp_path: Path
) -> None:
    await master.start(timeout=PATIENCE)
    inner = Sshd(tmp_path / "inner")
    inner.start()
    second = PrivateFolder()
    second.write(key=inner.client_key.read_bytes(), known_hosts=inner.known_hosts.encode())
    through = Master(
        inner.target,
        identity=second.identity,
        control_path=second.socket("m"),
        proxy_command=jump_command(sshd.target, control_path=master.control_path, to=inner.target),
    )
    try:
        await through.start(timeout=PATIENCE)
        assert await through.check()
        await master.close()
        assert (await through.wait()).reason == "SshUnreachable"
    finally:
        await through.close()
        second.close()
        inner.close()


def test_masters_end_with_a_process_that_is_killed(sshd: Sshd) -> None:
    script = f"""
import asyncio, pathlib
from isthmus.ssh.files import PrivateFolder
from isthmus.ssh.master import Master
from isthmus.ssh.options import Target

async def main():
    folder = PrivateFolder()
    key = pathlib.Path({str(sshd.client_key)!r}).read_bytes()
    folder.write(key=key, known_hosts={sshd.known_hosts!r}.encode())
    target = Target("127.0.0.1", {sshd.port}, {sshd.user!r})
    master = Master(target, identity=folder.identity, control_path=folder.socket("m"))
    await master.start(timeout=90)
    print(master.pid, folder.path, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert owner.stdout is not None
    with owner:
        pid, left = owner.stdout.readline().split()
        owner.kill()
    end = time.monotonic() + PATIENCE
    while not gone(int(pid)):
        assert time.monotonic() < end, "the master lives on"
        time.sleep(0.02)
    assert Path(left).exists()
    PrivateFolder().close()
    assert not Path(left).exists(), "the next one removes what a killed one left"


def gone(pid: int) -> bool:
    try:
        return b") Z " in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return True


def test_files_are_private_and_written_only_when_they_change(folder: PrivateFolder) -> None:
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert folder.write(key=b"a", known_hosts=b"b\n")
    assert not folder.write(key=b"a\n", known_hosts=b"b")
    assert folder.write(key=b"c", known_hosts=b"b")
    assert folder.identity.key.read_bytes() == b"c\n"
    for path in (folder.identity.key, folder.identity.known_hosts):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    PrivateFolder().close()
    assert folder.path.exists(), "a living owner's folder stays"


def test_a_folder_with_a_long_name_is_refused(tmp_path: Path) -> None:
    parent = tmp_path / ("x" * MAX_SOCKET_PATH)
    parent.mkdir()
    folder = PrivateFolder(parent=parent)
    with pytest.raises(OSError, match="TMPDIR"):
        folder.socket("m")
    folder.close()
