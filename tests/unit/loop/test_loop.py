"""The loop's policy for errors: what is tried again, what is told, and what ends the process."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from isthmus.apiserver.key import Key
from isthmus.errors import (
    ApiConflictError,
    ApiInvalidError,
    ApiUnavailableError,
    NotLeaderError,
    SlurmUnavailableError,
)
from isthmus.loop.loop import Loop
from isthmus.loop.queue import WorkQueue
from tests.virtualtime import run_virtual

A, B = Key("SlurmJob", "team-a", "a"), Key("SlurmJob", "team-a", "b")
Step = Callable[[Key], Awaitable[float | None]]


class Scripted:
    """A reconciler that does what the test says, and notes when."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.passes: list[tuple[float, str]] = []
        self.active: set[Key] = set()
        self.most_active = 0

    async def reconcile(self, key: Key) -> float | None:
        assert key not in self.active, "two passes over one object at a time"
        self.active.add(key)
        self.most_active = max(self.most_active, len(self.active))
        self.passes.append((asyncio.get_running_loop().time(), key.name))
        try:
            return await self.step(key)
        finally:
            self.active.remove(key)

    def times(self, name: str) -> list[float]:
        return [at for at, who in self.passes if who == name]


def world(step: Step, **settings: float) -> tuple[WorkQueue, Scripted, Loop]:
    queue = WorkQueue(retry_base=1, retry_cap=60, random=Random(1))
    reconciler = Scripted(step)
    loop = Loop(
        queue=queue,
        reconcilers={"SlurmJob": reconciler},
        workers=4,
        time_limit=settings.get("time_limit", 30),
    )
    return queue, reconciler, loop


async def run_for(loop: Loop, queue: WorkQueue, seconds: float) -> None:
    running = asyncio.create_task(loop.run())
    await asyncio.wait({running}, timeout=seconds)
    queue.shut_down()
    await running


def failing(*errors: Exception) -> Step:
    """Fail with each of `errors` in turn, the last one for ever; None in the end means success."""
    left = list(errors)

    async def step(key: Key) -> float | None:
        raise left.pop(0) if len(left) > 1 else left[0]

    return step


def test_object_is_looked_at_again_when_it_wants() -> None:
    async def step(key: Key) -> float | None:
        return 10 if key == A else None

    async def main() -> None:
        queue, reconciler, loop = world(step)
        queue.add(A)
        queue.add(B)
        await run_for(loop, queue, 35)
        assert reconciler.times("a") == [0, 10, 20, 30]
        assert reconciler.times("b") == [0]
        assert loop.counts.done == 5

    run_virtual(main)


@pytest.mark.parametrize(
    "error",
    [
        ApiUnavailableError("down"),
        ApiInvalidError("bad"),
        ApiConflictError("changed"),
        SlurmUnavailableError("down", reason="ControllerUnreachable"),
        ZeroDivisionError("a bug"),
    ],
)
def test_failed_pass_is_tried_again_ever_more_slowly(error: Exception) -> None:
    async def main() -> None:
        queue, reconciler, loop = world(failing(error))
        queue.add(A)
        await run_for(loop, queue, 600)
        times = reconciler.times("a")
        waits = [after - before for before, after in itertools.pairwise(times)]
        assert waits[0] <= 1, "soon at first"
        assert 30 <= waits[-1] <= 60, "slowly in the end"
        assert 10 < len(times) < 30

    run_virtual(main)


def test_failures_before_a_success_do_not_slow_the_next_retry() -> None:
    fails = [True] * 8 + [False, True] + [False] * 20

    async def step(key: Key) -> float | None:
        if fails.pop(0):
            raise ApiUnavailableError("down")
        return 100

    async def main() -> None:
        queue, reconciler, loop = world(step)
        queue.add(A)
        await run_for(loop, queue, 600)
        *_, failed_again, recovered = reconciler.times("a")[:11]
        assert recovered - failed_again <= 1

    run_virtual(main)


def test_broken_object_does_not_stop_the_others() -> None:
    async def step(key: Key) -> float | None:
        if key == A:
            raise KeyError("spec")
        return 1

    async def main() -> None:
        queue, reconciler, loop = world(step)
        queue.add(A)
        queue.add(B)
        await run_for(loop, queue, 100)
        assert len(reconciler.times("b")) == 100
        assert loop.counts.unexpected > 3

    run_virtual(main)


def test_lost_lease_ends_the_loop() -> None:
    async def main() -> None:
        queue, _, loop = world(failing(NotLeaderError("lost")))
        queue.add(A)
        with pytest.raises(NotLeaderError, match="lost"):
            await asyncio.wait_for(loop.run(), timeout=1)

    run_virtual(main)


def test_cancelled_worker_ends_the_loop_instead_of_dying_unnoticed() -> None:
    async def step(key: Key) -> float | None:
        raise asyncio.CancelledError

    async def main() -> None:
        queue, _, loop = world(step)
        queue.add(A)
        with pytest.raises(RuntimeError, match="worker"):
            await asyncio.wait_for(loop.run(), timeout=1)

    run_virtual(main)


def test_hanging_pass_is_cut_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def step(key: Key) -> float | None:
        await asyncio.sleep(3600)
        return None

    async def main() -> None:
        queue, reconciler, loop = world(step, time_limit=30)
        queue.add(A)
        await run_for(loop, queue, 100)
        assert len(reconciler.times("a")) == 4
        assert loop.counts.timed_out == 4

    run_virtual(main)
    assert "longer than 30 s" in caplog.text


def test_passes_run_side_by_side_up_to_the_number_of_workers() -> None:
    async def step(key: Key) -> float | None:
        await asyncio.sleep(1)
        return None

    async def main() -> None:
        queue, reconciler, loop = world(step)
        for number in range(20):
            queue.add(Key("SlurmJob", "team-a", str(number)))
        await run_for(loop, queue, 5.5)
        assert len(reconciler.passes) == 20
        assert reconciler.most_active == 4

    run_virtual(main)


def test_failure_is_told_once_per_text_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    down = ApiUnavailableError("connection refused")
    answers: list[Exception | None] = [down] * 5 + [ApiUnavailableError("503")] + [None]

    async def step(key: Key) -> float | None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return None

    async def main() -> None:
        queue, _, loop = world(step)
        queue.add(A)
        await run_for(loop, queue, 600)

    run_virtual(main)
    told = [record.getMessage() for record in caplog.records]
    assert sum("connection refused" in line for line in told) == 1
    assert sum("503" in line for line in told) == 1
    assert "works again after 6 failed passes" in told[-1]
    assert all("SlurmJob team-a/a" in line for line in told)


def test_bug_is_told_with_its_place_and_not_with_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        queue, _, loop = world(failing(ZeroDivisionError("a bug")))
        queue.add(A)
        await run_for(loop, queue, 100)

    run_virtual(main)
    assert caplog.text.count("unexpected ZeroDivisionError") == 1
    assert "test_loop.py" in caplog.text
    assert "a bug" not in caplog.text, "an exception may quote what an object holds"


def test_shut_down_lets_the_pass_under_way_finish() -> None:
    finished: list[Key] = []

    async def step(key: Key) -> float | None:
        await asyncio.sleep(5)
        finished.append(key)
        return 1

    async def main() -> None:
        queue, _, loop = world(step)
        queue.add(A)
        await run_for(loop, queue, 2)
        assert finished == [A]

    run_virtual(main)


def test_progress_is_told_and_its_end_is_an_error() -> None:
    async def step(key: Key) -> float | None:
        return 1

    async def main() -> None:
        queue, _, loop = world(step)
        queue.add(A)
        running = asyncio.create_task(loop.run())
        await asyncio.sleep(1000.5)
        assert loop.check_progress() == "0 objects wait"
        running.cancel()  # nobody works any more, and nobody has noticed
        await asyncio.wait({running})
        queue.add(B)
        assert loop.check_progress() == "1 objects wait"
        await asyncio.sleep(61)
        with pytest.raises(RuntimeError, match="no pass ends"):
            loop.check_progress()

    run_virtual(main)
