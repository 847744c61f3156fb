"""The bodies of the OpenAI API: chat completions and completions, whole and as server-sent events.

Apart from the engines because both speak the same format; what differs (names, errors, extra
fields) is passed in.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass

from .generation import EngineStoppedError, Job

DONE = b"data: [DONE]\n\n"
ErrorBody = Callable[[int, str, str | None], dict[str, object]]


class RejectedError(Exception):
    """A request that is answered with an error, by status, message and parameter at fault."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        """Keep what the engine's error body needs."""
        super().__init__(message)
        self.status = status
        self.param = param


@dataclass(frozen=True, slots=True)
class Completion:
    """A parsed request for a completion."""

    chat: bool
    model: str
    stream: bool
    include_usage: bool
    max_tokens: int | None
    ignore_eos: bool
    min_tokens: int
    prompt_tokens: int
    question: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every chunk or body of one answer repeats."""

    completion: Completion
    identifier: str
    created: int
    fingerprint: str


def parse(body: bytes, *, chat: bool) -> Completion:
    """Read the body of a request.

    Raises:
        RejectedError: with status 400, the body is not one the API takes.
    """
    try:
        data = json.loads(body)
    except ValueError as error:
        raise RejectedError(400, f"JSON decode error: {error}") from None
    if not isinstance(data, dict):
        raise RejectedError(400, "Input should be a valid dictionary")
    temperature = data.get("temperature")
    if isinstance(temperature, int | float) and temperature < 0:
        message = f"temperature must be non-negative, got {temperature}."
        raise RejectedError(400, message, "temperature")
    texts = _chat_texts(data) if chat else _prompt_texts(data)
    options = data.get("stream_options")
    model = data.get("model")
    return Completion(
        chat=chat,
        model=model if isinstance(model, str) else "",
        stream=data.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        max_tokens=_max_tokens(data),
        ignore_eos=data.get("ignore_eos") is True,
        min_tokens=_integer(data, "min_tokens") or 0,
        prompt_tokens=sum(len(text.split()) + (4 if chat else 0) for text in texts) or 1,
        question=texts[-1] if texts else "",
    )


def _integer(data: Mapping[str, object], key: str) -> int | None:
    value = data.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise RejectedError(400, f"{key}: Input should be a valid integer", key)
    return value


def _max_tokens(data: Mapping[str, object]) -> int | None:
    for key in ("max_completion_tokens", "max_tokens"):
        value = _integer(data, key)
        if value is not None:
            if value < 0:
                raise RejectedError(400, f"{key} must be at least 1, got {value}.", key)
            return value
    return None


def _chat_texts(data: Mapping[str, object]) -> list[str]:
    messages = data.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RejectedError(400, "messages: Field required", "messages")
    texts = []
    for message in messages:
        if not isinstance(message, dict) or "role" not in message:
            raise RejectedError(400, "messages: each needs a role and a content", "messages")
        content = message.get("content")
        if isinstance(content, list):
            content = " ".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
        texts.append(content if isinstance(content, str) else "")
    return texts


def _prompt_texts(data: Mapping[str, object]) -> list[str]:
    prompt = data.get("prompt")
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt:
        if all(isinstance(part, int) for part in prompt):
            return [" ".join(map(str, prompt))]
        return [part if isinstance(part, str) else "" for part in prompt[:1]]
    raise RejectedError(400, "prompt: Field required", "prompt")


def envelope(completion: Completion, *, identifier: str | None, fingerprint: str) -> Envelope:
    """Give an answer its id (or take the one given), time and fingerprint."""
    name = identifier or f"{'chatcmpl' if completion.chat else 'cmpl'}-{uuid.uuid4().hex}"
    return Envelope(completion, name, int(time.time()), fingerprint)


def whole(answer: Envelope, *, text: str, tokens: int, finish_reason: str) -> dict[str, object]:
    """Build the body of an answer that is not streamed."""
    choice: dict[str, object] = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
    if answer.completion.chat:
        choice["message"] = {"role": "assistant", "content": text}
    else:
        choice["text"] = text
    return _base(answer, streaming=False) | {
        "choices": [choice],
        "usage": _usage(answer.completion, tokens),
    }


async def stream(
    answer: Envelope,
    *,
    job: Job,
    tokens: AsyncGenerator[str, None],
    interval: int,
    error_body: ErrorBody,
) -> AsyncGenerator[bytes, None]:
    """Yield the events of a streamed answer, `interval` tokens in each.

    An engine that fails meanwhile shows as an error event followed by [DONE], under HTTP 200.
    """
    count = 0
    if answer.completion.chat:
        yield _event(_chunk(answer, text="", first=True))
    try:
        held: list[str] = []
        async for token in tokens:
            count += 1
            held.append(token)
            if len(held) >= interval:
                yield _event(_chunk(answer, text="".join(held)))
                held.clear()
        yield _event(_chunk(answer, text="".join(held), finish_reason=job.finish_reason))
        if answer.completion.include_usage:
            usage = _usage(answer.completion, count)
            yield _event(_base(answer, streaming=True) | {"choices": [], "usage": usage})
    except EngineStoppedError as error:
        if error.aborted:
            yield _event(_chunk(answer, text="", finish_reason="abort"))
        else:
            yield _event(error_body(500, str(error), None))
    finally:
        await tokens.aclose()
    yield DONE


def _base(answer: Envelope, *, streaming: bool) -> dict[str, object]:
    if answer.completion.chat:
        kind = "chat.completion.chunk" if streaming else "chat.completion"
    else:
        kind = "text_completion"
    return {
        "id": answer.identifier,
        "object": kind,
        "created": answer.created,
        "model": answer.completion.model,
        "system_fingerprint": answer.fingerprint,
    }


def _chunk(
    answer: Envelope, *, text: str, first: bool = False, finish_reason: str | None = None
) -> dict[str, object]:
    choice: dict[str, object] = {"index": 0, "logprobs": None, "finish_reason": finish_reason}
    if not answer.completion.chat:
        choice["text"] = text
    elif first:
        choice["delta"] = {"role": "assistant", "content": ""}
    else:
        choice["delta"] = {"content": text}
    return _base(answer, streaming=True) | {"choices": [choice]}


def _usage(completion: Completion, tokens: int) -> dict[str, object]:
    return {
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": tokens,
        "total_tokens": completion.prompt_tokens + tokens,
    }


def _event(content: object) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
