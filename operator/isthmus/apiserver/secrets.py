"""Reading single values of Secrets, with a short memory, and nothing else of them.

Apart from the store, which never holds a Secret: nothing lists or watches Secrets, so that the
operator needs no right to list them, and a dump of its memory shows few of them.
"""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import Object, dig
from isthmus.apiserver.objects import name as name_of
from isthmus.apiserver.objects import namespace as namespace_of
from isthmus.apiserver.resources import SECRETS
from isthmus.errors import SecretMissingError

_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,8192}")
"""What may stand behind "Bearer": visible ASCII, of which RFC 6750's characters are a part."""
_HEADER: Final = re.compile(r"[\x20-\x7e]{1,8192}")
"""What may be a whole header: several words of them."""


@dataclass(frozen=True, slots=True)
class SecretRef:
    """One key of one Secret."""

    namespace: str
    name: str
    key: str

    def __str__(self) -> str:
        """Return namespace/name, key as messages name it."""
        return f"Secret {self.namespace}/{self.name}, key {self.key}"


@dataclass(slots=True)
class _Known:
    obj: Object | None = field(repr=False)
    read_at: float


class Secrets:
    """Values of Secrets, each read again when it is older than `max_age` seconds."""

    def __init__(
        self, api: ApiServer, *, clock: Callable[[], float], max_age: float = 30.0
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            api: what is asked, with its own time limit.
            clock: seconds, monotonic.
            max_age: seconds for which an answer (also "there is none") is believed.
        """
        self._api = api
        self._clock = clock
        self._max_age = max_age
        self._known: dict[tuple[str, str], _Known] = {}
        self._swept_at = clock()

    async def value(self, ref: SecretRef) -> bytes:
        """Return the decoded value.

        Raises:
            SecretMissingError: no such Secret or key, or it is empty; says what to create.
            ApiError: the API server did not answer.
        """
        obj = await self.read(namespace=ref.namespace, name=ref.name)
        encoded = dig(obj, "data", ref.key)
        if not isinstance(encoded, str) or not encoded:
            what = "does not exist" if obj is None else f"has no key {ref.key!r}"
            raise SecretMissingError(
                f"Secret {ref.namespace}/{ref.name} {what}: create it with "
                f"`kubectl create secret generic {ref.name} -n {ref.namespace} "
                f"--from-file={ref.key}=FILE`"
            )
        try:
            return base64.b64decode(encoded, validate=True)
        except ValueError:
            raise SecretMissingError(f"{ref} is not base64") from None

    async def text(self, ref: SecretRef) -> str:
        """Return the value as one line of text, white space around it left out.

        Raises:
            SecretMissingError: as for `value`, or it is not one line of text.
            ApiError: the API server did not answer.
        """
        try:
            text = (await self.value(ref)).decode().strip()
        except UnicodeDecodeError:
            raise SecretMissingError(f"{ref} is not text in UTF-8") from None
        if not text or not text.isprintable():
            raise SecretMissingError(f"{ref} must be one line of printable text")
        return text

    async def token(self, ref: SecretRef) -> str:
        """Return the value as a token that can stand in a header, white space around it left out.

        Raises:
            SecretMissingError: as for `value`, or it is no such token.
            ApiError: the API server did not answer.
        """
        return await self._shaped(
            ref,
            _TOKEN,
            otherwise="is no token that can be sent: it must be one word of visible ASCII "
            "characters, at most 8192; a key in PEM, a kubeconfig or several lines are none",
        )

    async def header(self, ref: SecretRef) -> str:
        """Return the value as a header's, white space around it left out.

        Raises:
            SecretMissingError: as for `value`, or no header can have it.
            ApiError: the API server did not answer.
        """
        return await self._shaped(
            ref,
            _HEADER,
            otherwise="is no value of a header: it must be one line of printable ASCII "
            "characters, at most 8192; a key in PEM or a kubeconfig is none",
        )

    async def _shaped(self, ref: SecretRef, shape: re.Pattern[str], *, otherwise: str) -> str:
        """Return a value of a shape that can be sent; what it holds instead is not told."""
        text = (await self.value(ref)).decode(errors="replace").strip()
        if not shape.fullmatch(text):
            raise SecretMissingError(f"{ref} {otherwise}")
        return text

    def forget(self) -> None:
        """Read everything anew at its next use."""
        self._known.clear()

    def forget_one(self, *, namespace: str, name: str) -> None:
        """Read one Secret anew at its next use."""
        self._known.pop((namespace, name), None)

    def remember(self, obj: Object) -> None:
        """Take in a Secret as the API server stored it."""
        self._keep((namespace_of(obj), name_of(obj)), obj)

    async def read(self, *, namespace: str, name: str) -> Object | None:
        """Return a whole Secret, None if there is none.

        Raises:
            ApiError: the API server did not answer.
        """
        known = self._known.get((namespace, name))
        if known is not None and self._clock() - known.read_at < self._max_age:
            return known.obj
        obj = await self._api.get(SECRETS, namespace=namespace, name=name)
        self._keep((namespace, name), obj)
        return obj

    def _keep(self, place: tuple[str, str], obj: Object | None) -> None:
        now = self._clock()
        if now - self._swept_at >= self._max_age:  # a value that nobody asks for is not kept
            self._known = {p: k for p, k in self._known.items() if now - k.read_at < self._max_age}
            self._swept_at = now
        self._known[place] = _Known(obj=obj, read_at=now)
