"""Clients of a real engine, which judge whether an answer is whole.

Apart from tests/traffic, which counts the pieces of a simulated answer: a real engine may send
several tokens at once, and what is written may be empty. Here the engine's own count is asked for.
"""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

import httpx

from tests.engines.model import prompt
from tests.real.world import bearer

REQUEST_SECONDS = 900.0


class Ask(threading.Thread):
    """One chat completion, streamed or not.

    Attributes:
        begun: set with the first token.
        first_token: seconds from the request to its first token, 0.0 before.
        seconds: of the whole, 0.0 before its end.
        ended: the moment of its end on the monotonic clock.
        problem: why the answer is not whole, "" if it is; meaningful at its end.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        tokens: int = 16,
        prompt_tokens: int = 8,
        first: int = 0,
        stream: bool = True,
    ) -> None:
        super().__init__(daemon=True)
        self.url, self.key, self.stream = url, key, stream
        self.tokens = tokens
        self.begun = threading.Event()
        self.first_token = self.seconds = self.ended = 0.0
        self.problem = "no answer yet"
        self._body: dict[str, Any] = {
            "model": "llama",
            "stream": stream,
            "max_tokens": tokens,
            "ignore_eos": True,
            "messages": [{"role": "user", "content": prompt(prompt_tokens, first=first)}],
        }
        if stream:
            self._body["stream_options"] = {"include_usage": True}

    def run(self) -> None:
        began = time.monotonic()
        try:
            self.problem = self._ask(began)
        except (httpx.HTTPError, ValueError) as error:
            self.problem = f"{type(error).__name__}: {error}"
        self.ended = time.monotonic()
        self.seconds = self.ended - began
        self.begun.set()

    def _ask(self, began: float) -> str:
        timeout = httpx.Timeout(REQUEST_SECONDS, connect=30)
        with httpx.stream(
            "POST",
            f"{self.url}/v1/chat/completions",
            json=self._body,
            headers={"Connection": "close", **bearer(self.key)},
            timeout=timeout,
            trust_env=False,
        ) as answer:
            if answer.status_code != 200:
                return f"status {answer.status_code}: {answer.read()[:200].decode()}"
            if not self.stream:
                return self._judge([json.loads(answer.read())], done=True)
            return self._read(answer.iter_lines(), began)

    def _read(self, lines: Iterator[str], began: float) -> str:
        events, done = [], False
        for line in lines:
            data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
            if data == "[DONE]":
                done = True
            elif data:
                events.append(json.loads(data))
                written = [c["delta"].get("content") for c in events[-1].get("choices") or []]
                if any(written) and not self.begun.is_set():
                    self.first_token = time.monotonic() - began
                    self.begun.set()
        return self._judge(events, done=done)

    def _judge(self, events: list[dict[str, Any]], *, done: bool) -> str:
        errors = [str(event["error"])[:200] for event in events if "error" in event]
        if errors:
            return f"error in the answer: {errors[0]}"
        choices = [choice for event in events for choice in event.get("choices") or []]
        reasons = {choice.get("finish_reason") for choice in choices} - {None}
        if reasons != {"length"}:
            return f"finish_reason is {reasons or 'missing'}"
        usages = [event["usage"]["completion_tokens"] for event in events if event.get("usage")]
        if not usages or usages[-1] != self.tokens:
            return f"{usages[-1:]} tokens instead of {self.tokens}"
        return "" if done else "the stream ended without [DONE]"


def ask(url: str, **options: Any) -> Ask:
    """One request to its end, which must be whole."""
    one = Ask(url, **options)
    one.start()
    one.join(REQUEST_SECONDS)
    assert not one.problem, one.problem
    return one


class Load:
    """Requests to one address for as long as the block lasts, half of them streams."""

    def __init__(self, url: str, *, lanes: int = 4, tokens: int = 24) -> None:
        self._url, self._tokens = url, tokens
        self._end = threading.Event()
        self._lanes = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(lanes)
        ]
        self._lock = threading.Lock()
        self.answered = 0
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        for lane in self._lanes:
            lane.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._end.set()
        for lane in self._lanes:
            lane.join(REQUEST_SECONDS)

    def wait_answered(self, more: int, *, timeout: float) -> None:
        """Wait until so many more requests have been answered; at once when one has failed."""
        wanted, end = self.answered + more, time.monotonic() + timeout
        while self.answered < wanted and not self.failures:
            assert time.monotonic() < end, f"{self.answered} requests answered, {wanted} wanted"
            time.sleep(0.1)

    def assert_no_failure(self) -> str:
        """After the block; returns how many there were, in words."""
        whole = f"{self.answered} of {self.answered + len(self.failures)} requests answered"
        assert not self.failures, f"{whole}; the first failure: {self.failures[0]}"
        return whole

    def _run(self, number: int) -> None:
        while not self._end.is_set():
            one = Ask(self._url, tokens=self._tokens, first=number, stream=number % 2 == 0)
            one.run()
            with self._lock:
                if one.problem:
                    self.failures.append(f"after {one.seconds:.1f} s: {one.problem}")
                else:
                    self.answered += 1
            time.sleep(0.1)
