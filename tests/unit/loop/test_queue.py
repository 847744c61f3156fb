"""The work queue keeps its promises, whatever the order of calls."""

import asyncio
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from isthmus.apiserver.key import Key, spread
from isthmus.loop.queue import LATER_EVERY, REPEAT_GAP, WorkQueue
from tests.virtualtime import FakeClock, VirtualTimeLoop, run_virtual

A, B = Key("SlurmJob", "team-a", "a"), Key("SlurmJob", "team-a", "b")
KEYS = st.sampled_from([Key("SlurmJob", "team-a", name) for name in "abc"])


def queue(clock: FakeClock | None = None, **changes: float) -> WorkQueue:
    times = {"retry_base": 1.0, "retry_cap": 60.0} | changes
    return WorkQueue(random=Random(1), clock=clock, **times)


class QueueAgainstModel(RuleBasedStateMachine):
    """Any sequence of calls gives what a naive model gives."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.queue = queue(self.clock)
        self.wanted: set[Key] = set()  # must run (again) as soon as no worker has it
        self.due: dict[Key, float] = {}
        self.active: list[Key] = []

    def pass_time(self) -> None:
        for key, due in list(self.due.items()):
            if due <= self.clock.now:
                del self.due[key]
                self.wanted.add(key)

    @rule(key=KEYS, later=st.booleans())
    def add(self, key: Key, later: bool) -> None:
        self.queue.add(key, later=later)
        self.wanted.add(key)

    @rule(key=KEYS, seconds=st.floats(min_value=0.1, max_value=100))
    def add_after(self, key: Key, seconds: float) -> None:
        self.queue.add_after(key, seconds)
        self.due[key] = min(self.due.get(key, float("inf")), self.clock.now + seconds)

    @rule(seconds=st.floats(min_value=0, max_value=60))
    def advance(self, seconds: float) -> None:
        self.clock.now += seconds
        self.pass_time()

    @rule()
    def take(self) -> None:
        key = self.queue.try_get()
        if key is None:
            assert self.wanted <= set(self.active), "a wanted key was not handed out"
            return
        assert key not in self.active, "two workers have the same key"
        assert key in self.wanted, "a key ran that nobody wanted, or too early"
        self.wanted.discard(key)
        self.active.append(key)

    @precondition(lambda self: self.active)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.active))
        self.active.remove(key)
        self.queue.done(key)
        if key in self.wanted:
            self.wanted.discard(key)
            self.due[key] = min(self.due.get(key, float("inf")), self.clock.now + REPEAT_GAP)

    @invariant()
    def counts_agree(self) -> None:
        assert self.queue.depth() == len(self.wanted)
        assert self.queue.active() == len(self.active)


TestQueueAgainstModel = QueueAgainstModel.TestCase


def test_key_added_while_worked_on_runs_exactly_once_more() -> None:
    clock = FakeClock()
    work = queue(clock)
    work.add(A)
    assert work.try_get() == A
    for _ in range(3):
        work.add(A)
    assert work.try_get() is None
    work.done(A)
    assert work.try_get() is None, "its own writes are seen in one look"
    clock.now += REPEAT_GAP
    assert work.try_get() == A
    work.done(A)
    clock.now += REPEAT_GAP
    assert work.try_get() is None


def test_fresh_change_does_not_wait_for_the_gap() -> None:
    work = queue(FakeClock())
    work.add(A)
    assert work.try_get() == A
    work.add(A)
    work.done(A)
    work.add(A)
    assert work.try_get() == A


def test_oldest_key_comes_first_and_its_age_is_told() -> None:
    clock = FakeClock()
    work = queue(clock)
    work.add(B)
    clock.now += 5
    work.add(A)
    clock.now += 2
    assert (work.depth(), work.oldest_age()) == (2, 7.0)
    assert [work.try_get(), work.try_get()] == [B, A]
    assert work.oldest_age() == 0.0


def test_retries_double_up_to_the_cap_until_forgotten() -> None:
    work = queue(FakeClock(), retry_base=1.0, retry_cap=10.0)
    delays = [work.retry(A) for _ in range(100)]
    for delay, full in zip(delays, [1, 2, 4, 8, 10, 10], strict=False):
        assert full / 2 <= delay <= full
    assert max(delays) <= 10.0
    assert work.failures(A) == 100
    work.forget(A)
    assert work.retry(A) <= 1.0


def test_waiting_workers_get_keys_at_the_exact_time() -> None:
    async def main() -> list[tuple[float, str]]:
        work = queue()
        loop = asyncio.get_running_loop()
        seen: list[tuple[float, str]] = []

        async def worker() -> None:
            while (key := await work.get()) is not None:
                seen.append((loop.time(), key.name))
                work.done(key)

        workers = [asyncio.create_task(worker()) for _ in range(3)]
        await asyncio.sleep(1)
        work.add_after(A, 30)
        work.add_after(A, 10)  # the earlier one counts
        work.add_after(A, 20)
        work.add_after(B, 5)
        await asyncio.sleep(100)
        work.shut_down()
        await asyncio.gather(*workers)
        return seen

    assert run_virtual(main) == [(6.0, "b"), (11.0, "a")]


def test_wakeup_of_a_cancelled_worker_goes_to_another() -> None:
    async def main() -> Key | None:
        work = queue()
        first = asyncio.create_task(work.get())
        second = asyncio.create_task(work.get())
        await asyncio.sleep(0)
        work.add(A)  # wakes the first worker …
        first.cancel()  # … which is cancelled before it takes the key
        with pytest.raises(asyncio.CancelledError):
            await first
        return await asyncio.wait_for(second, timeout=1)

    assert run_virtual(main) == A


def test_shut_down_ends_every_wait_and_takes_nothing_more() -> None:
    async def main() -> None:
        work = queue()
        waits = [asyncio.create_task(work.get()) for _ in range(3)]
        await asyncio.sleep(0)
        work.shut_down()
        assert await asyncio.gather(*waits) == [None, None, None]
        work.add(A)
        work.add_after(A, 1)
        assert await work.get() is None

    run_virtual(main)


def test_a_delay_costs_no_polling() -> None:
    """Workers waiting for a distant time wake up once, not again and again."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        work = queue()
        work.add_after(A, 3600)
        assert await work.get() == A
        assert loop.time() == 3600
        return loop.turns

    assert run_virtual(main) < 10


def test_fresh_changes_come_before_keys_that_can_wait() -> None:
    work = queue(FakeClock())
    resynced = [Key("SlurmJob", "team-a", f"resync-{number}") for number in range(20)]
    for key in resynced:
        work.add(key, later=True)
    work.add(A)
    assert work.try_get() == A
    work.add(A)  # by its own write, for instance
    work.done(A)
    work.add(B)
    assert work.try_get() == B
    assert work.try_get() == resynced[0]


def test_keys_that_can_wait_get_a_turn_among_any_number_of_fresh_ones() -> None:
    work = queue(FakeClock())
    work.add(A, later=True)
    taken = []
    for number in range(LATER_EVERY):
        work.add(Key("SlurmJob", "team-a", f"fresh-{number}"))
        taken.append(work.try_get())
    assert A in taken


def test_change_of_a_key_that_can_wait_makes_it_fresh() -> None:
    work = queue(FakeClock())
    work.add(B, later=True)
    work.add(A, later=True)
    work.add(A)
    assert [work.try_get(), work.try_get(), work.try_get()] == [A, B, None]


def test_resync_of_many_objects_is_spread_and_steady() -> None:
    keys = [Key("SlurmJob", "team-a", f"job-{number}") for number in range(1000)]
    found = [spread(300.0, key=key) for key in keys]
    assert found == [spread(300.0, key=key) for key in keys]
    assert all(270.0 <= seconds <= 330.0 for seconds in found)
    minutes = [sum(lower <= s < lower + 6 for s in found) for lower in range(270, 330, 6)]
    assert min(minutes) > 50, "about a hundred in each tenth"


def test_changes_of_parts_are_seen_in_one_look_that_does_not_wait_for_a_resync() -> None:
    clock = FakeClock()
    work = queue(clock)
    for number in range(20):
        work.add(Key("SlurmJob", "team-a", f"resync-{number}"), later=True)
    for _ in range(3):
        work.add_after(A, 0.1, later=False)
        clock.now += 0.04
    assert work.try_get() == A
    work.done(A)
    assert A not in [work.try_get() for _ in range(20)]
