"""Drawn answers of a router: each is either used or told, and none leads to another path."""

from __future__ import annotations

import json
import re
from random import Random

import httpx
import pytest

from isthmus.routing.external import OWNER_LABEL, HttpRouter, RouterError, synchronize

CASES = 1500
STRANGE = [
    "",
    ".",
    "..",
    "a/b",
    "a?b",
    "a#b",
    "%2e%2e",
    "a b",
    "\n",
    "\x00",
    "\x1b[0m",
    "é",
    "\ud800",
]
STRANGE += ["x" * 257, "x" * 70_000, "id-1", "7", "http://10.0.0.1:8000", "\\..\\", "*", "a;b"]


def value(random: Random, *, depth: int = 3) -> object:
    """Some JSON."""
    kind = random.randrange(9 if depth else 6)
    if kind < 2:
        return random.choice(STRANGE)
    if kind < 6:
        return random.choice([None, True, 0, -1, 10**30, 1.5, float("inf"), float("nan")])
    inner = [value(random, depth=depth - 1) for _ in range(random.randrange(4))]
    return inner if kind == 6 else {random.choice(STRANGE): one for one in inner}


def worker(random: Random) -> object:
    if random.random() < 0.1:
        return value(random)
    found: dict[str, object] = {"id": value(random), "url": value(random)}
    owner = "me" if random.random() < 0.7 else value(random)
    found[random.choice(["labels", "metadata"])] = {OWNER_LABEL: owner}
    return found


def body(random: Random) -> bytes:
    if random.random() < 0.1:
        return json.dumps(value(random)).encode()
    listed = {"workers": [worker(random) for _ in range(random.randrange(5))]}
    text = json.dumps(listed).encode()
    if random.random() < 0.2:  # cut, or with some byte changed
        at = random.randrange(len(text))
        text = text[:at] + random.choice([b"", random.randbytes(1) + text[at + 1 :]])
    return text


@pytest.mark.parametrize("part", range(3))
async def test_c1_drawn_answers(part: int) -> None:
    random = Random(f"answers {part}")
    told: list[str] = []
    asked: list[tuple[str, str]] = []
    now = b""

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.method, request.url.raw_path.decode()))
        status = random.choice([200, 200, 200, 404, 500, 302]) if request.method != "GET" else 200
        return httpx.Response(status, stream=httpx.ByteStream(now))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        router = HttpRouter(client, url="http://router:30000")
        for _ in range(CASES // 3):
            now = body(random)
            try:
                await synchronize(
                    router, wanted={"http://10.0.0.1:8000": ""}, model="llama", owner="me"
                )
            except RouterError as error:
                told.append(str(error))
    assert 0 < len(told) < CASES // 3
    assert all(text.isprintable() and len(text) < 600 for text in told)
    paths = {path for method, path in asked if method == "DELETE"}
    assert "/workers/id-1" in paths
    assert all(re.fullmatch(r"/workers/(?!\.\.?$)[^/?#]{1,800}", path) for path in paths), paths
    assert not any("%" in path for path in paths)
