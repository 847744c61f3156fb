"""Writing files with an owner and a mode, and asking for ports: what both clusters need."""

import fcntl
import os
import pwd
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playground.errors import PlaygroundError


@contextmanager
def state_lock(state: Path, *, patience: float = 0.0) -> Iterator[None]:
    """One start or stop at a time in a state folder; the folder itself is what is locked.

    Raises:
        PlaygroundError: another one holds it for longer than `patience` seconds.
    """
    state.mkdir(parents=True, exist_ok=True)
    handle = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    end = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise PlaygroundError(
                        f"another start or stop is under way in {state}: wait for it, or end it"
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that a file stands for; waits as long as another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_folder(path: Path, *, owner: str = "root", mode: int = 0o755) -> None:
    """A folder with an owner and a mode, whatever the umask."""
    path.mkdir(parents=True, exist_ok=True)
    entry = pwd.getpwnam(owner)
    os.chown(path, entry.pw_uid, entry.pw_gid)
    path.chmod(mode)


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all, whenever its writer is killed."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def make_secret(path: Path, *, size: int, owner: str, mode: int) -> None:
    """A file of random bytes that only its owner can read, unless it is there."""
    entry = pwd.getpwnam(owner)
    if not path.exists():
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(os.urandom(size))
    os.chown(path, entry.pw_uid, entry.pw_gid)
    path.chmod(mode)


def write(path: Path, text: str) -> bool:
    """Write a file that everybody may read; returns whether it changed."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    return True


def listens(address: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def check_port(port: int, *, what: str) -> None:
    """Raise PlaygroundError when a port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError as error:
            raise PlaygroundError(
                f"port {port} for {what} is taken ({error.strerror}); choose another INSTANCE"
            ) from error


def write_secret(path: Path, text: str) -> None:
    """Write a file that only root can read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
