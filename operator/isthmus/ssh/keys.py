"""Key pairs by ssh-keygen: one for each attempt that calls a bastion."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.api.conditions import Reason
from isthmus.errors import SshError
from isthmus.processes import run_process
from isthmus.ssh.options import ENVIRONMENT

_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key in OpenSSH's form, and its public one (`ssh-ed25519 AAAA…`)."""

    private: str = field(repr=False)
    public: str


async def new_key_pair() -> KeyPair:
    """Draw an ed25519 key without a passphrase.

    Raises:
        SshError: ssh-keygen did not run.
    """
    with tempfile.TemporaryDirectory(prefix="isthmus-key-") as folder:
        path = Path(folder) / "key"
        argv = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path))
        try:
            result = await run_process(argv, environment=ENVIRONMENT, timeout=_TIMEOUT)
        except OSError as error:
            text = f"ssh-keygen cannot be started: {error}"
            raise SshError(text, reason=Reason.SSH_UNREACHABLE) from error
        if result.returncode != 0:
            text = f"ssh-keygen failed: {result.stderr.strip()}"
            raise SshError(text, reason=Reason.SSH_UNREACHABLE)
        public = path.with_suffix(".pub").read_text(encoding="ascii")
        return KeyPair(
            private=path.read_text(encoding="ascii"), public=" ".join(public.split()[:2])
        )
