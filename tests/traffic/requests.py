"""One chat completion, read to its end, and everything about it that can be wrong.

An answer counts only if it is complete: status 200, `finish_reason`, exactly as many tokens as were
asked for, no error event, `[DONE]` after a stream. Status 200 alone proves nothing: an engine that
dies in the middle of a stream may still end it properly (measured with vLLM 0.32.0).
"""

import json
from dataclasses import dataclass, field

import httpx

TOKENS = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """How one request ended; `problem` is "" if it was answered completely."""

    problem: str
    worker: str = ""
    begun: bool = False


@dataclass(slots=True)
class _Reading:
    """What has been read of an answer."""

    text: list[str] = field(default_factory=list)
    finish_reason: str = ""
    error: str = ""
    done: bool = False


def body(*, model: str, tokens: int, stream: bool) -> dict[str, object]:
    """A request for exactly `tokens` tokens."""
    return {
        "model": model,
        "stream": stream,
        "max_tokens": tokens,
        "ignore_eos": True,
        "messages": [{"role": "user", "content": "count"}],
    }


async def ask(
    client: httpx.AsyncClient, url: str, *, request: dict[str, object], headers: dict[str, str]
) -> Answer:
    """Send one request and judge its answer; never raises."""
    reading = _Reading()
    begun = False  # with its first byte: from then on nobody can repeat it elsewhere
    try:
        async with client.stream(
            "POST", f"{url}/v1/chat/completions", json=request, headers=headers
        ) as response:
            if response.status_code != 200:
                text = (await response.aread())[:200].decode(errors="replace")
                return Answer(f"status {response.status_code}: {text}")
            begun = True
            if request["stream"]:
                async for line in response.aiter_lines():
                    _take_line(reading, line)
            else:
                _take_whole(reading, await response.aread())
    except httpx.HTTPError as error:
        said = f"{type(error).__name__}: {error}"
        return Answer(said, worker=_worker(reading), begun=begun)
    except ValueError as error:
        return Answer(f"not JSON: {error}", worker=_worker(reading), begun=begun)
    return Answer(_problem(reading, request), worker=_worker(reading), begun=begun)


def _take_line(reading: _Reading, line: str) -> None:
    if not line.startswith("data:"):
        return
    data = line.removeprefix("data:").strip()
    if data == "[DONE]":
        reading.done = True
        return
    event = json.loads(data)
    if "error" in event:
        reading.error = str(event["error"])[:200]
    for choice in event.get("choices") or []:
        content = choice.get("delta", {}).get("content")
        if content:
            reading.text.append(content)
        reading.finish_reason = choice.get("finish_reason") or reading.finish_reason


def _take_whole(reading: _Reading, content: bytes) -> None:
    answer = json.loads(content)
    if "error" in answer:
        reading.error = str(answer["error"])[:200]
    for choice in answer.get("choices") or []:
        reading.text = choice["message"]["content"].split(" ")
        reading.finish_reason = choice.get("finish_reason") or ""
    reading.done = True


def _problem(reading: _Reading, request: dict[str, object]) -> str:
    if reading.error:
        return f"error in the answer: {reading.error}"
    if reading.finish_reason != "length":
        return f"finish_reason is {reading.finish_reason!r}"
    if len(reading.text) != request["max_tokens"]:
        return f"{len(reading.text)} tokens instead of {request['max_tokens']}"
    return "" if reading.done else "the stream ended without [DONE]"


def _worker(reading: _Reading) -> str:
    """Who answered: simulated engines begin with `Hello from vLLM on POD (Kubernetes pod, …`."""
    return "".join(reading.text) if len(reading.text) < 4 else _name(reading.text)


def _name(text: list[str]) -> str:
    words = " ".join(part.strip() for part in text).split(" ")
    return words[4] if len(words) > 4 and words[:2] == ["Hello", "from"] else " ".join(words[:3])
