"""The instance that waits for the Lease answers its probes."""

import httpx
import pytest

from isthmus.loop.standby import standing_by
from tests.ports import free_port


async def test_answers_while_it_waits_and_then_frees_the_port() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/healthz"
    async with httpx.AsyncClient(trust_env=False) as client:
        async with standing_by(port):
            assert (await client.get(url)).text == "standing by\n"
        with pytest.raises(httpx.ConnectError):
            await client.get(url)
        async with standing_by(port):  # as the watch does next
            assert (await client.get(url)).status_code == 200


async def test_no_port_no_endpoint() -> None:
    async with standing_by(None):
        pass
