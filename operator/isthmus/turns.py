"""Who is next where several namespaces want the same few places: one of each, in turn.

Apart from the places themselves (submissions, probes), because it is one rule for all of them: a
namespace with a thousand that wait delays another one's first by one of its own, not by a thousand.
"""

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """What waits, in order within each namespace; the namespaces in turn."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._waiting: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()  # next one first

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def holds(self, namespace: str, item: T) -> bool:
        """Whether it waits."""
        return item in self._waiting.get(namespace, ())

    def add(self, namespace: str, item: T) -> None:
        """Have it wait behind the others of its namespace; once, however often it is added."""
        self._waiting.setdefault(namespace, OrderedDict()).setdefault(item)

    def remove(self, namespace: str, item: T) -> None:
        """Have it wait no more, if it does."""
        items = self._waiting.get(namespace)
        if items is not None:
            items.pop(item, None)
            if not items:
                del self._waiting[namespace]

    def pop(self, may: Callable[[str], bool] = lambda _: True) -> tuple[str, T] | None:
        """Take the next one out, with its namespace; None where none waits that may have a turn.

        Args:
            may: whether a namespace may have one now.
        """
        namespace = next(filter(may, self._waiting), None)
        if namespace is None:
            return None
        items = self._waiting[namespace]
        item, _ = items.popitem(last=False)
        self._waiting.move_to_end(namespace)
        if not items:
            del self._waiting[namespace]
        return namespace, item


class Places:
    """At most so many at a time, and fewer of one namespace; who waits is let in in turn."""

    def __init__(self, number: int, *, of_one: int | None = None) -> None:
        """Make free places.

        Args:
            number: of them.
            of_one: most that one namespace may hold; by default three quarters.
        """
        self._free = number
        self._of_one = max(1, number * 3 // 4) if of_one is None else of_one
        self._held: Counter[str] = Counter()
        self._turns: Turns[asyncio.Future[None]] = Turns()

    @contextlib.asynccontextmanager
    async def taken(self, namespace: str) -> AsyncIterator[None]:
        """Wait for a place, and hold it."""
        await self._take(namespace)
        try:
            yield
        finally:
            self._leave(namespace)

    async def _take(self, namespace: str) -> None:
        if self._free and self._may(namespace):
            self._hold(namespace)
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.add(namespace, waiting)
        try:
            await waiting
        except asyncio.CancelledError:
            self._turns.remove(namespace, waiting)
            if waiting.done() and not waiting.cancelled():
                self._leave(namespace)  # let in, and cancelled in the same moment
            raise

    def _leave(self, namespace: str) -> None:
        self._free += 1
        self._held[namespace] -= 1
        if not self._held[namespace]:
            del self._held[namespace]
        self._let_in()

    def _let_in(self) -> None:
        while self._free and (next_one := self._turns.pop(self._may)) is not None:
            namespace, waiting = next_one
            if not waiting.done():
                self._hold(namespace)
                waiting.set_result(None)

    def _may(self, namespace: str) -> bool:
        return self._held[namespace] < self._of_one

    def _hold(self, namespace: str) -> None:
        self._free -= 1
        self._held[namespace] += 1
