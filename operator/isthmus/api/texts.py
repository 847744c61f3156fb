"""What a text must be like to stand in a message: printable, in one line, of a bounded length.

Names and sentences of engines, of SLURM, of ssh and of users come in through here, and whatever
is written into a status goes through it once more: a NUL, an ESC or a lone surrogate in an object
spoils the terminal or the client that reads it, and of a text that is too long the API server
refuses the whole write.
"""

from collections.abc import Iterable


def printable(text: str) -> str:
    """Return `text` in one line of printable characters; of one that is so already, itself."""
    if text.isprintable():
        return text
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def cut(text: str, *, limit: int) -> str:
    """Return `text` with at most `limit` characters (1 or more); an ellipsis ends what was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def one_line(text: str, *, limit: int = 300) -> str:
    """Return a foreign text for a message: printable, its words one blank apart, bounded."""
    return cut(" ".join(printable(text).split()), limit=limit)


def listed(names: Iterable[str], *, most: int = 5, limit: int = 60) -> str:
    """Return the first few of foreign names, sorted, and how many more there are; "" for none."""
    found = sorted(names)
    told = ", ".join(one_line(name, limit=limit) for name in found[:most])
    return f"{told} and {len(found) - most} more" if len(found) > most else told
