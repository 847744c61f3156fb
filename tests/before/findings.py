"""Which findings can be asked of a tree, and how their questions name what has moved since."""

import asyncio
import importlib
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOUND: Final = tuple(
    f"{letter}{number}"
    for letter, last in (("C", 2), ("H", 7), ("M", 9), ("L", 11), ("B", 9), ("F", 16))
    for number in range(1, last + 1)
)
"""By an attack (C, H, M, L), by reading (B), in use (F)."""

Question = Callable[[], bool | Awaitable[bool]]
"""Whether the fault is there, in the tree whose `isthmus` is imported."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault, as a behaviour that both trees can be asked for.

    Attributes:
        id: as in docs/security.md and docs/reliability.md.
        fault: what is seen where it is.
        module: where its question stands.
        question: asks.
    """

    id: str
    fault: str
    module: str
    question: Question

    def is_there(self) -> bool:
        """Ask; whatever is raised is no answer."""
        answer = self.question()
        if inspect.isawaitable(answer):
            return asyncio.run(_awaited(answer))
        return answer


ALL: Final[list[Finding]] = []


def finding(id: str, fault: str) -> Callable[[Question], Question]:
    """Take a question into the table."""

    def taken(question: Question) -> Question:
        ALL.append(Finding(id, fault, question.__module__, question))
        return question

    return taken


async def _awaited(answer: Awaitable[bool]) -> bool:
    return await answer


def any_of(*places: str) -> Any:
    """What stands at the first of these places ("module:name") that the tree has.

    Raises:
        LookupError: it has none of them.
    """
    for place in places:
        module, _, name = place.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise LookupError(f"this tree has none of {', '.join(places)}")


def takes(function: Any, name: str) -> bool:
    """Whether a function or class has a parameter of that name."""
    return name in inspect.signature(function).parameters


def tree() -> Path:
    """The tree that is asked."""
    return Path(str(importlib.import_module("isthmus").__file__)).parents[2]


def built(*places: str, **parts: Any) -> Any:
    """What stands there, made of those parts that it takes."""
    made = any_of(*places)
    return made(**{name: part for name, part in parts.items() if takes(made, name)})
