"""The seeds of `make test`: those that have found something, and enough others."""

from pathlib import Path

FILE = Path(__file__).parent / "corpus.txt"


def read(text: str) -> dict[int, str]:
    """Seed → why it is in the corpus, in the order of seeds.

    Raises:
        ValueError: a line without a seed or without a reason, or a seed that stands there twice.
    """
    found: dict[int, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words, _, reason = line.partition(" ")
        if not line or line.startswith("#"):
            continue
        first, _, last = words.partition("-")
        if not reason.strip():
            raise ValueError(f"line {number} gives no reason: {line!r}")
        for seed in range(int(first), int(last or first) + 1):
            if seed in found:
                raise ValueError(f"line {number}: seed {seed} stands there twice")
            found[seed] = reason.strip()
    return dict(sorted(found.items()))


def seeds() -> list[int]:
    """All of the file."""
    return list(read(FILE.read_text(encoding="utf-8")))
