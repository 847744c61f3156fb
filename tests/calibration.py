"""How fast the machine is at this moment: `python -m tests.calibration` prints processor seconds.

Fixed work of the kind that tests do: objects, text, JSON, patterns. The same work takes 1.4 times
as much processor time beside busy neighbours, so a budget is only worth something in proportion to
this. None of it is Isthmus's own code: what became slower by a change would make room for itself.
"""

import hashlib
import json
import re
import time
from dataclasses import dataclass, replace

ROUNDS = 24_000
"""About 1.9 seconds of processor time on an idle core of 2026."""
WORDS = re.compile(r"([a-z]+)-(\d+)")


@dataclass(frozen=True)
class Node:
    """Something to copy and to compare."""

    name: str
    tasks: tuple[int, ...]
    labels: tuple[tuple[str, str], ...]


def work(rounds: int) -> str:
    """The work, and a digest of what came out: the same on every machine."""
    digest = hashlib.sha256()
    nodes = [Node(f"node-{n}", tuple(range(n)), (("rack", f"r{n % 7}"),)) for n in range(40)]
    for number in range(rounds):
        n = number % len(nodes)
        nodes[n] = replace(nodes[n], tasks=(*nodes[n].tasks[-30:], number))
        text = json.dumps({one.name: [one.tasks, one.labels] for one in nodes[n - 4 : n]})
        read = json.loads(text)
        found = [match.groups() for name in read for match in WORDS.finditer(name * 3)]
        most = sorted(nodes, key=lambda one: (len(one.tasks), one.name), reverse=True)[0]
        digest.update(f"{text}{found}{most.name}".encode())
    return digest.hexdigest()


def main() -> None:
    begin = time.process_time()
    work(ROUNDS)
    print(f"{time.process_time() - begin:.3f}")


if __name__ == "__main__":
    main()
