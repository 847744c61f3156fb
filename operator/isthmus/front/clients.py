"""Keeps the file of clients' keys true to their Secret, so that Envoy asks for those in it.

Looked at again and again and not watched: it is one small object, and the right to read it by its
name is all that is needed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

import httpx

from isthmus.api.client_keys import client_keys
from isthmus.apiserver.objects import dig
from isthmus.front.publish import KeysSource

_log = logging.getLogger("isthmus.front")

LOOK_EVERY = 10.0
_LOOK_SOON = 1.0


class ClientKeysFollower:
    """Tells each new set of clients and their keys."""

    def __init__(
        self,
        *,
        source: KeysSource,
        secret: str,
        publish: Callable[[Mapping[str, str]], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare.

        Args:
            source: where the Secret is.
            secret: its name.
            publish: called with name and key of each client, also while nothing has changed.
            sleep: between two looks.
        """
        self._source = source
        self._secret = secret
        self._publish = publish
        self._sleep = sleep
        self._told: tuple[str, ...] | None = None

    async def run(self) -> None:
        """Follow the Secret until cancelled."""
        while True:
            await self._sleep(LOOK_EVERY if await self.look() else _LOOK_SOON)

    async def look(self) -> bool:
        """Read the Secret once; what is known stays where it cannot be read.

        Returns:
            Whether it could be read. That there is none is an answer: then nobody gets in.
        """
        try:
            found = await self._source.secret(self._secret)
        except (httpx.HTTPError, OSError, ValueError) as error:
            _log.warning(
                "The Secret %s of clients' keys cannot be read, what is known stays: %s",
                self._secret,
                type(error).__name__,
            )
            return False
        clients = client_keys(dig(found, "data"))
        self._publish(clients.keys)
        told = (f"{len(clients.keys)} clients have a key", *clients.problems)
        if told != self._told:
            self._told = told
            _log.info("Secret %s: %s", self._secret, "; ".join(told))
        return True
