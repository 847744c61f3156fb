"""The words that ssh is called with, and when it is called again."""

import shlex
from pathlib import Path

import pytest

from isthmus.api.texts import one_line
from isthmus.ssh.failures import permanent, ssh_error
from isthmus.ssh.options import (
    Direction,
    Forward,
    Identity,
    Target,
    control_argv,
    jump_command,
    master_argv,
    session_argv,
)
from isthmus.ssh.reconnect import Reconnects

TARGET = Target(host="login1", port=2222, user="svc")
SOCKET = Path("/run/x/m")
IDENTITY = Identity(key=Path("/run/x/key"), known_hosts=Path("/run/x/known_hosts"))


def options_of(argv: tuple[str, ...]) -> list[str]:
    return [argv[i + 1] for i, word in enumerate(argv) if word == "-o"]


def test_a_master_trusts_nothing_but_its_files() -> None:
    argv = master_argv(TARGET, identity=IDENTITY, control_path=SOCKET)
    assert argv[:3] == ("ssh", "-F", "none")
    assert argv[-2:] == ("--", "login1")
    wanted = {
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "UserKnownHostsFile=/run/x/known_hosts",
        "GlobalKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
        "ForwardAgent=no",
        "PermitLocalCommand=no",
        "ControlMaster=yes",
        "ControlPersist=no",
        "ServerAliveInterval=15",
        "ServerAliveCountMax=3",
    }
    assert wanted <= set(options_of(argv))


def test_further_options_come_first_since_ssh_believes_the_first() -> None:
    argv = master_argv(
        TARGET, identity=IDENTITY, control_path=SOCKET, options=["ServerAliveInterval=5"]
    )
    found = options_of(argv)
    assert found.index("ServerAliveInterval=5") < found.index("ServerAliveInterval=15")


def test_a_session_never_connects_by_itself() -> None:
    argv = session_argv(TARGET, control_path=SOCKET, command="exec true")
    assert {"ControlMaster=no", "ProxyCommand=false"} <= set(options_of(argv))
    assert argv[-3:] == ("--", "login1", "exec true")


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (Forward("10.0.0.1", 41000, "gpu01", 30000), ("-L", "10.0.0.1:41000:gpu01:30000")),
        (Forward("::", 1, "fd00::1", 2), ("-L", "[::]:1:[fd00::1]:2")),
        (
            Forward("0.0.0.0", 0, "127.0.0.1", 30000, Direction.REMOTE),
            ("-R", "0.0.0.0:0:127.0.0.1:30000"),
        ),
    ],
)
def test_forwards(forward: Forward, words: tuple[str, str]) -> None:
    argv = control_argv(TARGET, control_path=SOCKET, command="forward", forward=forward)
    at = argv.index("-O")
    assert argv[at : at + 4] == ("-O", "forward", *words)


@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1", "fe80::1%$(id)", "a'; touch x; '", "%h"])
def test_l6_no_shell_reads_the_host_of_a_jump(host: str) -> None:
    node = Target(host=host, port=22, user="svc")
    command = jump_command(TARGET, control_path=Path("/run/a b/m"), to=node)
    assert "%" not in command.replace("%%", ""), "ssh puts in what stands behind a single one"
    words = shlex.split(command.replace("%%", "%"))
    assert words[words.index("-W") + 1] == f"[{host}]:22"
    assert "/run/a b/m" in words


@pytest.mark.parametrize(
    ("text", "reason", "final"),
    [
        ("svc@login1: Permission denied (publickey).", "SshLoginRequired", True),
        ("Host key verification failed.", "HostKeyMismatch", True),
        ("No ED25519 host key is known for login1 and you have …", "HostKeyMismatch", True),
        ("ssh: connect to host login1 port 22: Connection refused", "SshUnreachable", False),
        ("Could not resolve hostname login1: Name or service not known", "SshUnreachable", False),
        ("", "SshUnreachable", False),
    ],
)
def test_what_ssh_says(text: str, reason: str, final: bool) -> None:
    error = ssh_error(TARGET, text)
    assert (error.reason, permanent(error)) == (reason, final)
    assert "svc@login1:2222" in str(error)


def test_a_changed_host_key_is_told_by_its_fingerprint() -> None:
    text = (
        "@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@@@\n"
        "IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\n"
        "The fingerprint for the ED25519 key sent by the remote host is\nSHA256:abc/d+e.\n"
        "Please contact your system administrator.\nHost key verification failed.\n"
    )
    error = ssh_error(TARGET, text)
    assert error.reason == "HostKeyMismatch"
    assert "it shows the ED25519 key SHA256:abc/d+e. " in str(error)
    assert "NASTY" not in str(error)


def test_messages_are_one_line() -> None:
    assert one_line("\n  a\tb\x1b\n" + "x" * 400).startswith("a b x")
    assert len(one_line("x" * 400)) == 300


def test_the_first_reconnect_is_immediate_and_later_ones_are_rare() -> None:
    history = Reconnects(pause=30, refused_pause=300)
    assert history.wait(now=0) == 0
    history.connected(now=0)
    history.lost(now=100)
    assert history.wait(now=100) == 0
    history.failed(now=100)
    assert history.wait(now=101) == 29
    assert history.wait(now=130) == 0
    history.failed(now=130, permanent=True)
    assert history.wait(now=160) == 270
    history.changed()
    assert history.wait(now=160) == 0


def test_a_connection_that_keeps_ending_is_no_success() -> None:
    history = Reconnects(pause=30)
    history.connected(now=0)
    history.lost(now=1)
    assert history.wait(now=1) == 0
    history.connected(now=2)
    history.lost(now=3)
    assert history.wait(now=3) == 29
    history.connected(now=32)
    history.lost(now=100)
    assert history.wait(now=100) == 0
