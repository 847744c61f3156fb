"""What ssh's messages mean: a reason for a condition, and what to do. Pure.

The texts are those of OpenSSH under LC_ALL=C; the return code is 255 for all of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from isthmus.api.conditions import Reason
from isthmus.api.texts import one_line
from isthmus.errors import SshError
from isthmus.ssh.options import Target

SESSION_REFUSED = "Session open refused by peer"
"""The server allows no more sessions on this connection (MaxSessions); nothing was run."""

MASTER_GONE = "Control socket connect"
"""Nobody listens on the control socket; nothing was sent."""

OPEN_FAILED = b"open failed: "
"""In ssh's line for a connection through a forward that did not come about; the cause follows."""

FORWARDING_FORBIDDEN = b"administratively prohibited"
"""The cause where its rules forbid it (AllowTcpForwarding, PermitOpen, options of the key)."""


@dataclass(frozen=True, slots=True)
class _Known:
    parts: tuple[str, ...]
    reason: Reason
    advice: str


_KNOWN = (
    _Known(
        (
            "REMOTE HOST IDENTIFICATION HAS CHANGED",
            "Host key verification failed",
            "host key is known for",
            "REVOKED HOST KEY",
        ),
        Reason.HOST_KEY_MISMATCH,
        "The host does not show a key that login.ssh.knownHostsRef holds: ask the site whether "
        "its key was changed, and only then put the new one into the Secret.",
    ),
    _Known(
        ("Permission denied", "Too many authentication failures", "No more authentication"),
        Reason.SSH_LOGIN_REQUIRED,
        "The host does not let this key in: check login.ssh.user and keySecretRef (a key without "
        "passphrase that stands in the account's authorized_keys), and that the account needs no "
        "second factor.",
    ),
    _Known(
        ("tdio forwarding",),
        Reason.SSH_UNREACHABLE,
        "The login host does not let connections on to the node: allow TCP forwarding there "
        "(AllowTcpForwarding, PermitOpen, options of the key), or set network.mode: Reverse.",
    ),
)
_UNREACHABLE = (
    "Check login.ssh.hosts and port, and that sshd runs there and takes connections from the "
    "operator."
)


def ssh_error(target: Target, text: str) -> SshError:
    """The error for what ssh said when it could not connect or lost its connection."""
    words = _shown_key(text) or one_line(text) or "the connection ended without a message."
    for known in _KNOWN:
        if any(part in text for part in known.parts):
            return SshError(f"{target}: {words} {known.advice}", reason=known.reason)
    return SshError(f"{target}: {words} {_UNREACHABLE}", reason=Reason.SSH_UNREACHABLE)


def _shown_key(text: str) -> str:
    """The fingerprint out of the long warning of a changed host key; "" where there is none."""
    match = re.search(r"fingerprint for the (\S+) key sent by the remote host is\s+(\S+)", text)
    return f"it shows the {match[1]} key {match[2].rstrip('.')}." if match else ""


def permanent(error: SshError) -> bool:
    """Whether trying again soon is pointless and may get the account or address banned."""
    return error.reason in {Reason.HOST_KEY_MISMATCH, Reason.SSH_LOGIN_REQUIRED}
