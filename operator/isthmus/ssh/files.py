"""A private folder for one connection: the key, the host keys, and room for control sockets.

ssh takes keys from files only. They are 0600 in a folder 0700 that goes with its owner; what an
owner that was killed left behind is removed by the next one. Where TMPDIR is a file system in
memory, no key touches a disk.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from isthmus.ssh.options import Identity

PREFIX: Final = "isthmus-ssh-"

MAX_SOCKET_PATH: Final = 90
"""Bytes: unix sockets allow 107, and ssh first makes the socket under a name 17 bytes longer."""


class PrivateFolder:
    """Files of one connection."""

    def __init__(self, *, parent: Path | None = None) -> None:
        """Make the folder; removes those of dead owners beside it.

        Args:
            parent: where; None for the folder of temporary files.

        Raises:
            OSError: it cannot be made.
        """
        place = parent or Path(tempfile.gettempdir())
        _sweep(place)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        self.identity = Identity(
            key=self.path / "key",
            known_hosts=self.path / "known_hosts",
        )
        # held while this process lives, whatever its end
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, *, key: bytes, known_hosts: bytes) -> bool:
        """Put key and host keys in place.

        A missing line feed at the end, without which ssh refuses a key, is added, and line ends
        of Windows, which it refuses too, are mended.

        Returns:
            Whether anything differs from what was there.
        """
        changed = _write(self.identity.key, key)
        return _write(self.identity.known_hosts, known_hosts) or changed

    def socket(self, name: str) -> Path:
        """The path of a control socket in the folder.

        Raises:
            OSError: the path is longer than ssh can use.
        """
        path = self.path / name
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise OSError(
                f"{path} is too long for a control socket of ssh: set TMPDIR to a folder with a "
                "short name"
            )
        return path

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _write(path: Path, content: bytes) -> bool:
    text = content.replace(b"\r\n", b"\n")
    text = text if text.endswith(b"\n") else text + b"\n"
    try:
        if path.read_bytes() == text:
            return False
    except FileNotFoundError:
        pass
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(text)
    temporary.replace(path)
    return True


def _sweep(place: Path) -> None:
    """Remove folders of ours whose owner has ended."""
    for folder in place.glob(f"{PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            handle = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # not ours, being made, or gone
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(handle)
