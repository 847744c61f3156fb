"""Probes of off-cluster workers: is the engine healthy, and is it the one we think it is?

Pods have the kubelet for this; a SLURM job has only us. A worker gets no traffic before its health
is good and its model and attempt agree, for behind its address and port another job may listen.

There are two probes. The *full* one asks the target's health path and then for the identity; the
*short* one asks the cheapest question that still shows a dead or draining engine:

* vLLM: both ask `/health` (instant: 503 only once its engine is dead).
* SGLang: the full one asks `/health`, which generates a real token and therefore takes 1 s or more
  (0.5.x; give it a timeout of 5 s or more); the short one asks `/ready`, which answers at once and
  says 503 until the server is up and while it drains. So a busy worker is not asked for a token
  every few seconds, and one whose scheduler hangs is still found by the next full probe.

A full probe is the first one, the one after each failure, and every `full_every`th. That is also
where the identity is checked. All probes of one worker are one after another, in a task of its own.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Literal

import httpx

from isthmus.api.names import identity_model_name
from isthmus.apiserver.objects import dig
from isthmus.reconcile.queue import Key

_log = logging.getLogger(__name__)

Reason = Literal[
    "Healthy", "Refused", "NotReady", "Timeout", "WrongModel", "WrongAttempt", "HttpError"
]
_IDENTITY: frozenset[Reason] = frozenset({"WrongModel", "WrongAttempt"})
_MOST_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTarget:
    """A worker to probe.

    Attributes:
        url_base: scheme, host and port, e.g. `http://node7:41003`.
        health_path: what a full probe asks, e.g. `/health`.
        model: served model name that must be listed.
        attempt: attempt of the SlurmJob that must answer.
        engine: which engine it is, for how it tells its attempt.
        interval: seconds from the start of one probe to the start of the next.
        timeout: seconds for one probe as a whole.
        success_threshold: successes in a row that make it healthy.
        failure_threshold: failures in a row that make it unhealthy. A wrong identity is one at
            once: it is not a worker of ours that is slow but somebody else.
        api_key: key of the engine's own API, None if it has none.
    """

    url_base: str
    health_path: str
    model: str
    attempt: str
    engine: Literal["vllm", "sglang"]
    interval: float
    timeout: float
    success_threshold: int
    failure_threshold: int
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The outcome of one probe; `checked_at` is the prober's clock at its end."""

    ok: bool
    reason: Reason
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
    """

    healthy: bool | None
    consecutive_failures: int
    last: ProbeResult
    consecutive_successes: int = 0


@dataclass(slots=True)
class _Watched:
    target: ProbeTarget
    task: asyncio.Task[None]
    state: ProbeState | None = None


class Prober:
    """Probes a changing set of workers at their own intervals."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        on_change: Callable[[Key], None],
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Random | None = None,
        concurrency: int = 256,
        full_every: int = 6,
    ) -> None:
        """Make a prober without targets.

        Args:
            client: see `probe_client`.
            on_change: called when `healthy` or the reason of the last result changed, so not for
                every probe.
            clock: seconds, monotonic; by default the clock of the running loop.
            sleep: waits for some seconds.
            random: source of the spread of the probes in time.
            concurrency: most probes at the same time; a hanging worker occupies one of them for
                its timeout.
            full_every: which probe of a healthy worker is a full one.
        """
        self._client = client
        self._on_change = on_change
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._sleep = sleep
        self._random = random or Random()
        self._slots = asyncio.Semaphore(concurrency)
        self._full_every = full_every
        self._watched: dict[Key, _Watched] = {}

    def watch(self, key: Key, target: ProbeTarget | None) -> None:
        """Probe `target` from now on; None for nothing.

        A changed target starts without a state, since it may be another process; an equal one goes
        on undisturbed.
        """
        known = self._watched.get(key)
        if known is not None and known.target == target:
            return
        if known is not None:
            del self._watched[key]
            known.task.cancel()
        if target is not None:
            task = asyncio.create_task(self._run(key, target), name=f"probe {key}")
            self._watched[key] = _Watched(target=target, task=task)

    def state(self, key: Key) -> ProbeState | None:
        """Return what is known, None before the first probe and for what is not watched."""
        known = self._watched.get(key)
        return None if known is None else known.state

    def keys(self) -> tuple[Key, ...]:
        """Return what is watched."""
        return tuple(self._watched)

    async def close(self) -> None:
        """Stop all probes. The client is left open."""
        tasks = [known.task for known in self._watched.values()]
        self._watched.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: Key, target: ProbeTarget) -> None:
        since_full = 0
        while True:
            started = self._clock()
            before = self.state(key)
            full = before is None or not before.last.ok or since_full + 1 >= self._full_every
            since_full = 0 if full else since_full + 1
            async with self._slots:
                result = await self._probe(target, full=full)
            known = self._watched.get(key)
            if known is None or known.target is not target:
                return
            known.state = advance(known.state, result, target)
            if before is None or _visible(before) != _visible(known.state):
                self._on_change(key)
            spread = 1 + 0.1 * (self._random.random() - 0.5)
            await self._sleep(max(0.0, started + target.interval * spread - self._clock()))

    async def _probe(self, target: ProbeTarget, *, full: bool) -> ProbeResult:
        try:
            async with asyncio.timeout(target.timeout):
                reason, message = await self._ask(target, full=full)
        except (TimeoutError, httpx.TimeoutException):
            reason, message = "Timeout", f"no answer within {target.timeout:g} s"
        except httpx.ConnectError as error:
            reason, message = "Refused", f"{target.url_base} refuses connections: {error}"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason, message = "HttpError", f"{type(error).__name__}: {error}"
        except Exception as error:  # a bug in here must look like a failure, not like silence
            _log.exception("Probe of %s failed unexpectedly", target.url_base)
            reason, message = "HttpError", f"unexpected {type(error).__name__}: {error}"
        return ProbeResult(reason == "Healthy", reason, message, self._clock())

    async def _ask(self, target: ProbeTarget, *, full: bool) -> tuple[Reason, str]:
        path = target.health_path
        if target.engine == "sglang" and not full:
            path = "/ready"
        status, _ = await self._get(target, path)
        if status == 503:
            return "NotReady", f"{path} says 503: starting, draining or dead"
        if status != 200:
            return "HttpError", f"{path} says {status}"
        return await self._identify(target) if full else ("Healthy", "")

    async def _identify(self, target: ProbeTarget) -> tuple[Reason, str]:
        status, answer = await self._get(target, "/v1/models")
        if status != 200:
            return "HttpError", f"/v1/models says {status}"
        names = served_models(answer)
        if target.model not in names:
            found = ", ".join(sorted(names)) or "nothing"
            return "WrongModel", f"serves {found} instead of {target.model}"
        if target.engine == "vllm":
            if identity_model_name(target.attempt) in names:
                return "Healthy", ""
            return "WrongAttempt", f"does not serve {identity_model_name(target.attempt)}"
        status, answer = await self._get(target, "/model_info")
        if status != 200:
            return "HttpError", f"/model_info says {status}"
        version = str(dig(_json(answer), "weight_version", default=""))
        if version == target.attempt:
            return "Healthy", ""
        return "WrongAttempt", f"is attempt {version or 'unknown'} instead of {target.attempt}"

    async def _get(self, target: ProbeTarget, path: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {target.api_key}"} if target.api_key else {}
        # Read piece by piece: whatever listens there must not be able to fill our memory.
        async with self._client.stream(
            "GET", f"{target.url_base}{path}", headers=headers
        ) as answer:
            body = b""
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > _MOST_BYTES:
                    raise httpx.DecodingError(f"{path} answers with more than {_MOST_BYTES} bytes")
            return answer.status_code, body


def probe_client() -> httpx.AsyncClient:
    """Return a client for probes: no redirects, no proxies from the environment, no keep-alive.

    A connection of its own for each probe, because an engine that no longer accepts connections
    may well go on answering on an old one.
    """
    return httpx.AsyncClient(
        follow_redirects=False,
        trust_env=False,
        timeout=None,  # each probe has its own limit, which covers it as a whole
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
    )


def served_models(body: bytes) -> frozenset[str]:
    """Return the names in an answer of `/v1/models`, none if it is malformed."""
    data = dig(_json(body), "data", default=[])
    return frozenset(
        str(dig(model, "id")) for model in (data if isinstance(data, list) else []) if model
    )


def advance(state: ProbeState | None, result: ProbeResult, target: ProbeTarget) -> ProbeState:
    """Return the state after one more result."""
    successes = (state.consecutive_successes if state else 0) + 1 if result.ok else 0
    failures = 0 if result.ok else (state.consecutive_failures if state else 0) + 1
    healthy = state.healthy if state else None
    if successes >= target.success_threshold:
        healthy = True
    elif failures >= target.failure_threshold or result.reason in _IDENTITY:
        healthy = False
    return ProbeState(healthy, failures, result, successes)


def _visible(state: ProbeState) -> tuple[bool | None, Reason]:
    return state.healthy, state.last.reason


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None
