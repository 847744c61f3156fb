"""Which worker is probed, and what its probes say together. Pure.

Apart from the prober, which asks: thresholds and back-off are rules, and have no I/O. What is
asked, and what one probe says, is known by the engine's profile.
"""

from dataclasses import dataclass, field
from typing import Final

from isthmus.engines.questions import STRANGER, ProbeReason

_MOST_INTERVAL: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTarget:
    """A worker to probe.

    Attributes:
        url_base: scheme, host and port, e.g. `http://node7:41003`.
        model: served model name that must be listed.
        attempt: attempt of the SlurmJob that must answer.
        engine: name of its engine, whose profile knows what to ask.
        interval: seconds from the start of one probe to the start of the next.
        timeout: seconds for one probe as a whole.
        success_threshold: successes in a row that make it healthy.
        failure_threshold: failures in a row that make it unhealthy. A wrong identity is one at
            once: it is not a worker of ours that is slow but somebody else.
        headers: names and values that every question sends.
        secret_headers: those whose values come from Secrets: with questions for the identity only.
        api_key: key of the engine's own API, None if it has none; sent as they are.
    """

    url_base: str
    model: str
    attempt: str
    engine: str
    interval: float
    timeout: float
    success_threshold: int
    failure_threshold: int
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    secret_headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The outcome of one probe; `checked_at` is the prober's clock at its end."""

    ok: bool
    reason: ProbeReason
    message: str
    checked_at: float


@dataclass(frozen=True, slots=True)
class ProbeState:
    """What the probes of one worker say together.

    Attributes:
        healthy: None until a threshold is reached for the first time.
        consecutive_failures: failures since the last success.
        last: the latest result.
        consecutive_successes: successes since the last failure.
        load: requests that its engine holds, running and waiting; None while unknown.
        was_healthy: it was healthy at some time.
    """

    healthy: bool | None
    consecutive_failures: int
    last: ProbeResult
    consecutive_successes: int = 0
    load: int | None = None
    was_healthy: bool = False


def advance(state: ProbeState | None, result: ProbeResult, target: ProbeTarget) -> ProbeState:
    """Return the state after one more result."""
    successes = (state.consecutive_successes if state else 0) + 1 if result.ok else 0
    failures = 0 if result.ok else (state.consecutive_failures if state else 0) + 1
    healthy = state.healthy if state else None
    if successes >= target.success_threshold:
        healthy = True
    elif failures >= target.failure_threshold or result.reason in STRANGER:
        healthy = False
    was = healthy is True or (state is not None and state.was_healthy)
    return ProbeState(healthy, failures, result, successes, was_healthy=was)


def interval_after(state: ProbeState, target: ProbeTarget) -> float:
    """Return seconds until the next probe: doubled with each failure of one that is long dead."""
    beyond = state.consecutive_failures - 2 * target.failure_threshold
    if beyond <= 0 or not state.was_healthy:
        return target.interval
    return max(target.interval, min(_MOST_INTERVAL, target.interval * 2.0 ** min(beyond, 10)))


def visible(state: ProbeState) -> tuple[bool | None, ProbeReason]:
    """Return what of a state its observers are told about."""
    return state.healthy, state.last.reason
