"""What is read from stored objects, made once for each version of an object.

A pass reads its object, its parts and its clusters through the models of the kinds; most of them
have not changed since the last pass. Apart from the store, which knows no kind.
"""

from collections.abc import Callable
from typing import TypeVar

from isthmus.apiserver.objects import Object, uid

T = TypeVar("T")


class Derived:
    """Remembers values by the object that they were made from. For frozen values only."""

    def __init__(self, *, most: int = 1024) -> None:
        """Make an empty memory of at most `most` values."""
        self._most = most
        self._known: dict[tuple[object, str], tuple[Object, object]] = {}

    def of(self, obj: Object, make: Callable[[Object], T]) -> T:
        """Return `make(obj)`, the one from before if `obj` is the same object still.

        Not its resourceVersion decides, which comes again after a restored backup.

        Args:
            obj: as it lies in the store.
            make: a function that depends on nothing else; what it raises is not remembered.
        """
        key = make, uid(obj)
        known = self._known.get(key)
        if known is not None and known[0] is obj:
            return known[1]  # type: ignore[return-value]  # `make` is in the key
        value = make(obj)
        if len(self._known) >= self._most:
            self._known.clear()
        self._known[key] = obj, value
        return value
