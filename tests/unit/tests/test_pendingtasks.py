"""The guard of the contract tests against tasks that nobody holds any more notices one."""

import asyncio

import pytest

from tests.pendingtasks import no_task_is_lost
from tests.virtualtime import run_virtual


def test_a_lost_task_is_noticed() -> None:
    async def lose() -> None:
        asyncio.create_task(asyncio.Event().wait(), name="lost")  # noqa: RUF006
        await asyncio.sleep(0)

    async def main() -> None:
        with pytest.raises(AssertionError, match="was destroyed"), no_task_is_lost():
            await lose()

    run_virtual(main)


def test_one_that_is_cancelled_is_not() -> None:
    async def main() -> None:
        with no_task_is_lost():
            task = asyncio.create_task(asyncio.Event().wait())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run_virtual(main)
