"""What a simulated engine is told through its environment, and the faults it can be told to have.

Real command lines stay real: everything that only a simulator has is an environment variable whose
name starts with `SIMULATOR_`. `vllm serve --help` and `sglang serve --help` end with this list.
`DESCRIPTIONS` says what each one means, `Knobs` its default.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields

PREFIX = "SIMULATOR_"

DESCRIPTIONS = {
    "load_seconds": "seconds from start until the engine is ready",
    "first_token_seconds": "time to the first token of a request",
    "prefill_token_seconds": "time to the first token grows by this for each token of the prompt",
    "tokens_per_second": "tokens generated per second and request after the first",
    "output_tokens": "natural length of an answer in tokens, whatever the prompt; max_tokens cuts "
    "it, ignore_eos makes it exactly max_tokens",
    "max_running": "requests running at once if --max-num-seqs or --max-running-requests is absent",
    "context_length": "context length if --max-model-len or --context-length is absent",
    "exit_at_load": "exit with this code in the middle of loading",
    "hang_at_load": "1: never become ready; 2: nor, from where vLLM's EngineCore starts or SGLang "
    "answers 503",
    "hang_at_term": "0: vLLM ends at a SIGTERM while EngineCore starts, instead of hanging",
    "shared_memory_mib": "room that vLLM needs in /dev/shm with several processes",
    "crash_after_seconds": "lose the engine's child process this long after ready",
    "crash_after_requests": "lose the engine's child process when this many requests were taken",
    "hang_after_requests": "stop generating, without a word, after this many requests",
    "hang_health_after_seconds": "/health no longer succeeds from this long after ready (vLLM: no "
    "answer; SGLang: 503 after SGLANG_HEALTH_CHECK_TIMEOUT)",
    "error_rate": "share of requests answered with 500, 0 to 1",
    "stream_error_rate": "share of streams that end in an error event under HTTP 200, 0 to 1",
    "drain_poll_seconds": "SGLang looks this often whether it is idle after SIGTERM, first at once",
    "teardown_seconds": "time from the decision to end to the end of the process (real vLLM: 6 to "
    "40, SGLang: 2)",
    "metrics_lag_seconds": "vLLM's metrics are at most this late",
    "crash_seconds": "time from the loss of the child process to the end of the engine",
    "rendezvous": "0: rank 0 neither waits for the other ranks nor dies with them",
    "rendezvous_seconds": "how long ranks wait for each other before they give up",
    "seed": "seed of the random choices above",
}


@dataclass(frozen=True, slots=True)
class Knobs:
    """Settings of one simulated engine; times in seconds, rates between 0 and 1."""

    load_seconds: float = 2.0
    first_token_seconds: float = 0.1
    prefill_token_seconds: float = 0.0
    tokens_per_second: float = 50.0
    output_tokens: int = 48
    max_running: int = 256
    context_length: int = 4096
    exit_at_load: int = -1
    hang_at_load: int = 0
    hang_at_term: int = 1
    shared_memory_mib: int = 160
    crash_after_seconds: float = -1.0
    crash_after_requests: int = -1
    hang_after_requests: int = -1
    hang_health_after_seconds: float = -1.0
    error_rate: float = 0.0
    stream_error_rate: float = 0.0
    drain_poll_seconds: float = 5.0
    teardown_seconds: float = 0.5
    metrics_lag_seconds: float = 0.5
    crash_seconds: float = 5.0
    rendezvous: int = 1
    rendezvous_seconds: float = 600.0
    seed: int = 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Knobs:
        """Read the knobs; an unknown or malformed one ends the program with exit code 2."""
        known = {field.name: field for field in fields(cls)}
        values: dict[str, float | int] = {}
        for name, text in environment.items():
            if not name.startswith(PREFIX):
                continue
            key = name.removeprefix(PREFIX).lower()
            if key not in known:
                _refuse(f"{name} is not a knob; there are: {', '.join(map(variable, known))}")
            convert = int if known[key].type == "int" else float
            try:
                values[key] = convert(text)
            except ValueError:
                _refuse(f"{name}={text!r} is not a number ({DESCRIPTIONS[key]})")
        return cls(**values)  # type: ignore[arg-type]

    def randomness(self) -> random.Random:
        """Make the generator for the random choices."""
        return random.Random(self.seed)


def variable(key: str) -> str:
    """Name the environment variable of a knob."""
    return PREFIX + key.upper()


def describe() -> str:
    """List every knob with its default and meaning, one per line."""
    defaults = Knobs()
    width = max(len(variable(key)) for key in DESCRIPTIONS)
    return "\n".join(
        f"{variable(key):{width}}  {text} (default {getattr(defaults, key):g})"
        for key, text in DESCRIPTIONS.items()
    )


def _refuse(message: str) -> None:
    print(f"engine simulator: error: {message}", file=sys.stderr)
    raise SystemExit(2)
