"""What is read from stored objects, made once for each version of an object.

A pass reads its object, its parts and its clusters through the models of the kinds; most of them
have not changed since the last pass. Apart from the store, which knows no kind.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

from isthmus.apiserver.objects import Object, uid

R = TypeVar("R")
T = TypeVar("T")

_Made: TypeAlias = dict[object, tuple[object, object]]
"""What was made from one object, by what made it, with the version or parts it was made from."""
_NOTHING: Final[_Made] = {}


class Derived:
    """Remembers values by the object that they were made from. For frozen values only."""

    def __init__(self, *, most: int | None = None) -> None:
        """Make an empty memory.

        Args:
            most: objects, of which the one that was not asked for longest goes first; None where
                `forget` is called for each object that is gone. A fixed number would be of no use
                there: with one object more, each round of passes reads all of them anew.
        """
        self._most = most
        self._known: OrderedDict[str, _Made] = OrderedDict()

    def of(self, obj: Object, make: Callable[[Object], T]) -> T:
        """Return `make(obj)`, the one from before if `obj` is the same object still.

        Not its resourceVersion decides, which comes again after a restored backup.

        Args:
            obj: as it lies in the store.
            make: a function that depends on nothing else; what it raises is not remembered.
        """
        key = uid(obj)
        made = self._known.setdefault(key, {})
        if self._most is not None:
            self._known.move_to_end(key)
        known = made.get(make)
        if known is not None and known[0] is obj:
            return known[1]  # type: ignore[return-value]  # `make` is in the key
        made.pop(make, None)
        while self._most is not None and len(self._known) > self._most:
            self._known.popitem(last=False)
        value = make(obj)
        made[make] = obj, value
        return value

    def of_read(self, obj: Object, *, read: Callable[[Object], R], make: Callable[[R], T]) -> T:
        """Return `make(read(obj))`, each made once for each version of the object.

        Args:
            obj: as it lies in the store.
            read: as for `of`.
            make: a function that depends on nothing but what was read.
        """
        key = uid(obj)
        known = self._known.get(key, _NOTHING).get(make)
        if known is not None and known[0] is obj:
            return known[1]  # type: ignore[return-value]  # `make` is in the key
        value = make(self.of(obj, read))
        self._known[key][make] = obj, value
        return value

    def of_parts(self, obj: Object, *, parts: tuple[object, ...], make: Callable[[Object], T]) -> T:
        """Return `make(obj)`, the one from before if these parts of the object are as they were.

        Args:
            obj: as it lies in the store.
            parts: all of it that `make` reads, apart from what never changes (uid, names).
            make: as for `of`.
        """
        made = self._known.setdefault(uid(obj), {})
        known = made.get(make)
        if known is not None and known[0] == parts:
            return known[1]  # type: ignore[return-value]  # `make` is in the key
        made.pop(make, None)
        value = make(obj)
        made[make] = parts, value
        return value

    def forget(self, obj: Object) -> None:
        """Forget what was made from an object that is gone."""
        self._known.pop(uid(obj), None)

    def __len__(self) -> int:
        """Return how many objects something is known of."""
        return len(self._known)
