"""The key and the host keys of a connection, read from Secrets again and again.

Apart from the files that ssh reads (`files.py`): a Secret may change, or the API server may be
away, while a connection lives.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from isthmus.api.conditions import Reason
from isthmus.apiserver.secrets import SecretRef, Secrets
from isthmus.errors import ApiError, SecretMissingError, SshError


@dataclass(frozen=True, slots=True)
class Credentials:
    """Content of the two files."""

    key: bytes = field(repr=False)
    known_hosts: bytes = field(repr=False)


class CredentialSource(Protocol):
    """Where credentials come from."""

    async def read(self) -> Credentials:
        """Return what is to be used now.

        Raises:
            SshError: there is nothing to be used; says what to create.
        """
        ...


class SecretCredentials:
    """Credentials in two Secrets; the last good ones while the API server does not answer."""

    def __init__(self, secrets: Secrets, *, key: SecretRef, known_hosts: SecretRef) -> None:
        """Prepare; nothing is read yet."""
        self._secrets = secrets
        self._key = key
        self._known_hosts = known_hosts
        self._last: Credentials | None = None

    async def read(self) -> Credentials:
        """Read both values, from the memory of `Secrets` where it is young enough.

        Raises:
            SshError: reason `SecretMissing`, or `SshUnreachable` where the API server has never
                answered.
        """
        try:
            self._last = Credentials(
                key=await self._value(self._key),
                known_hosts=await self._value(self._known_hosts),
            )
        except ApiError as error:
            if self._last is None:
                text = f"{self._key} cannot be read from the API server: {error}"
                raise SshError(text, reason=Reason.SSH_UNREACHABLE) from error
        assert self._last is not None
        return self._last

    async def _value(self, ref: SecretRef) -> bytes:
        try:
            return await self._secrets.value(ref)
        except SecretMissingError as error:
            text = f"{ref} is missing or empty. Make it with `{self._command(ref)}`."
            raise SshError(text, reason=Reason.SECRET_MISSING) from error

    def _command(self, missing: SecretRef) -> str:
        """What creates or replaces the Secret, whole: both values may stand in one."""
        place = (missing.namespace, missing.name)
        refs = [r for r in (self._key, self._known_hosts) if (r.namespace, r.name) == place]
        files = " ".join(f"--from-file={ref.key}=FILE" for ref in refs)
        return (
            f"kubectl create secret generic {missing.name} -n {missing.namespace} {files} "
            "--dry-run=client -o yaml | kubectl apply -f -"
        )
