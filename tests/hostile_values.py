"""Values that nobody had thought of, and objects with one of them somewhere: for survival tests.

What is drawn is kept apart from who must survive it: the simulation stores it unread, the real API
server may refuse some of it.
"""

import copy
from collections.abc import Iterator
from random import Random
from typing import Any

CANARY = "cAnArY-b41d"
"""Stands in each Secret that is planted, and may stand nowhere else."""

TEXTS = (
    "",
    " ",
    "\n",
    "a\nb\x1b[31m",
    "\x00",
    "\ud800",
    "\u202e\ufeff",
    "x" * 5000,
    "-" * 63,
    "a" * 63,
    "../../..",
    "$(id)`id`;id",
    "%s%n%x",
    "{}",
    "[" * 3000,
    "null",
    "NaN",
    "9" * 5000,
    "-1",
    "0x10",
    "1e999",
    "٣",
    "http://[::1",
    "http://router:port",
    "http://a:b:c",
    "http://xn--999999999:80",
    "fe80::1%eth0",
    "gpu..example.org",
    "0.0.0.0",
    "::",
    "2026-13-45T99:99:99Z",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00Z",
    "P1Y",
    "99999999999999999999h",
    "isthmus.dev/x",
    "uid-1",
)
NUMBERS = (0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 65536, 1.5, float("1e308"))


def nested(depth: int) -> Any:
    """Lists in lists."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def any_value(random: Random) -> Any:
    """A value of any kind."""
    return random.choice(
        (
            lambda: random.choice(TEXTS),
            lambda: random.choice(NUMBERS),
            lambda: random.choice((True, False, None)),
            lambda: random.choice(([], {}, [None], [{}], {"": ""}, {"a": {"b": []}})),
            lambda: nested(200),
            lambda: [random.choice(TEXTS) for _ in range(random.choice((1, 40, 300)))],
            lambda: {str(number): number for number in range(100)},
        )
    )()


def like(value: Any, random: Random) -> Any:
    """Another value of the same kind: what a typed API lets through."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice([number for number in NUMBERS if isinstance(number, int)])
    if isinstance(value, str):
        return random.choice(TEXTS)
    return type(value)() if isinstance(value, dict | list) else value


def places(value: Any, *, depth: int = 30) -> Iterator[tuple[Any, Any]]:
    """Each container with each of its keys, not deeper than so: what is nested stays as it is."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if depth and isinstance(value[key], dict | list):
            yield from places(value[key], depth=depth - 1)


def spoiled(part: Any, random: Random, *, typed: bool) -> Any:
    """A copy with one to three odd values in it, or without some.

    Args:
        part: a part of an object, such as its spec.
        random: decides.
        typed: whether values keep their kind, as in objects that Kubernetes itself checks.
    """
    new = copy.deepcopy(part)
    for _ in range(random.choice((1, 1, 2, 3))):
        found = list(places(new))
        if not found:
            return new if typed else any_value(random)
        container, key = random.choice(found)
        draw = random.random()
        if draw < 0.2:
            del container[key]
        elif typed:
            container[key] = like(container[key], random)
        elif draw < 0.3 and isinstance(container, dict):
            container[random.choice(("unknown", "spec", "extra"))] = any_value(random)
        else:
            container[key] = any_value(random)
    return new


def secret_bytes(random: Random) -> bytes:
    """What a Secret may hold, with the canary in it."""
    canary = CANARY.encode()
    return random.choice(
        (
            canary,
            b"-----BEGIN PRIVATE KEY-----\n" + canary + b"\n-----END PRIVATE KEY-----\n",
            canary + b"\r\nX-Injected: yes",
            b"\x00" + canary + b"\x00",
            canary + "schlüssel".encode("latin-1"),
            b"\xff\xfe" + canary.decode().encode("utf-16-le"),
            b'{"auths": {"' + canary + b'": {}}}',
            canary * 4000,
            canary + b" ",
            b"",
        )
    )
