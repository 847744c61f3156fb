"""Probes of off-cluster workers: is the engine healthy, and is it the one we think it is?

Pods have the kubelet for this; a SLURM job has only us. A worker gets no traffic before its health
is good and its model and attempt agree, for behind its address and port another job may listen.

There are two probes, and the engine's profile knows the questions of both: the *full* one asks for
the health as thoroughly as the engine can tell it and then for the identity; the *short* one asks
the cheapest question that still shows a dead or draining engine. The next question is asked while
nothing is wrong by the answers so far.

A full probe is the first one, the one after each failure, and every `full_every`th. That is also
where the identity is checked and where the engine's metrics are read for its load: a process that
was started anew under the same address is asked who it is. All probes of one worker are one after
another, in a task of its own. A worker that was healthy and has been dead for long is asked less
and less often; one that starts is not, for its first answer is awaited.

A worker that drains is not asked for its health any more: only its load matters, every second.

The API key and headers out of Secrets go with the guarded questions alone. Engines answer for
health, readiness and metrics without a key, and whoever listens at a published port would be told
it by the first question.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from random import Random

from isthmus.apiserver.key import Key
from isthmus.backends.base import Load
from isthmus.engines import ENGINES
from isthmus.engines.metrics import LoadReader, Reading
from isthmus.engines.questions import NOTHING_ASKED, Answer, ProbeVerdict, Question
from isthmus.errors import EngineError, EngineRefusedError
from isthmus.guarded import where
from isthmus.probing.client import ProbeClient
from isthmus.probing.verdict import (
    ProbeResult,
    ProbeState,
    ProbeTarget,
    advance,
    interval_after,
    visible,
)
from isthmus.turns import Places

_log = logging.getLogger(__name__)

DRAIN_INTERVAL = 1.0
"""Seconds between two readings of the load of a worker that drains."""
_READING_LIMIT = 5.0
_MOST_TOLD = 1024


@dataclass(slots=True)
class _Watched:
    """One watched worker.

    Attributes:
        wake: set to have the next probe at once.
        load: the last reading that succeeded, `load_at` its time.
        idle_since: time of the first of the readings in a row that found it idle, None if the last
            one did not.
        proof: seconds for which such a row must have lasted before it is believed.
        silent_since: when the readings began to fail, or when the watch was begun.
        detours: URLs by which the load can be read too.
    """

    target: ProbeTarget
    task: asyncio.Task[None]
    draining: bool
    silent_since: float | None
    detours: tuple[str, ...] = ()
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    state: ProbeState | None = None
    load: int | None = None
    load_at: float = 0.0
    idle_since: float | None = None
    proof: float = 0.0

    @property
    def idle_for(self) -> float:
        """Seconds from the first to the last reading in a row that found it idle."""
        return 0.0 if self.idle_since is None else self.load_at - self.idle_since

    @property
    def idle(self) -> bool:
        """Whether the readings have shown for long enough that it is idle."""
        return self.idle_since is not None and self.idle_for >= self.proof


class Prober:
    """Probes a changing set of workers at their own intervals."""

    def __init__(
        self,
        client: ProbeClient,
        *,
        on_change: Callable[[Key], None],
        clock: Callable[[], float] | None = None,
        random: Random | None = None,
        concurrency: int = 256,
        full_every: int = 6,
    ) -> None:
        """Make a prober without targets.

        Args:
            client: asks the engines.
            on_change: called when `healthy` or the reason of the last result changed, so not for
                every probe.
            clock: seconds, monotonic; by default the clock of the running loop.
            random: source of the spread of the probes in time.
            concurrency: most probes at the same time; a hanging worker occupies one of them for
                its timeout, and those of one namespace not all of them (`Places`).
            full_every: which probe of a healthy worker is a full one.
        """
        self._client = client
        self._on_change = on_change
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._random = random or Random()
        self._places = Places(concurrency)
        self._told: set[tuple[str, str, str]] = set()
        self._full_every = full_every
        self._watched: dict[Key, _Watched] = {}

    def watch(
        self,
        key: Key,
        target: ProbeTarget | None,
        *,
        draining: bool = False,
        detours: tuple[str, ...] = (),
    ) -> None:
        """Probe `target` from now on; None for nothing.

        A changed target starts without a state, since it may be another process; an equal one goes
        on undisturbed. From one that drains only the load is read: where its own URL says nothing,
        through the `detours`, for it may be the way that is broken.
        """
        known = self._watched.get(key)
        if known is not None and known.target == target:
            known.detours = detours
            if known.draining is not draining:
                # A probe under way that hangs is no silence of the metrics: none were asked for.
                known.draining, known.silent_since = draining, None
                known.wake.set()
            return
        if known is not None:
            del self._watched[key]
            known.task.cancel()
        if target is not None:
            task = asyncio.create_task(self._run(key, target), name=f"probe {key}")
            self._watched[key] = _Watched(
                target=target,
                task=task,
                draining=draining,
                silent_since=self._clock(),
                detours=detours,
            )

    def load(self, key: Key) -> Load | None:
        """Return what is known of a worker's load, None for what is not watched."""
        known = self._watched.get(key)
        if known is None:
            return None
        now = self._clock()
        return Load(
            requests=known.load,
            age=now - known.load_at,
            silent_for=0.0 if known.silent_since is None else now - known.silent_since,
            idle_for=known.idle_for,
            proof=known.proof,
        )

    async def loads(
        self, targets: Mapping[str, ProbeTarget], *, time_limit: float
    ) -> Mapping[str, int | None]:
        """Read the loads of some workers now, all at once; None for those that do not tell."""
        found = await asyncio.gather(
            *(self._read_load(target, limit=time_limit) for target in targets.values())
        )
        return {
            name: None if reading is None else reading.requests
            for name, reading in zip(targets, found, strict=True)
        }

    def state(self, key: Key) -> ProbeState | None:
        """Return what is known, None before the first probe and for what is not watched."""
        known = self._watched.get(key)
        return None if known is None else known.state

    def age(self, key: Key) -> float:
        """Return seconds since the last probe ended, 0 before the first one."""
        state = self.state(key)
        return 0.0 if state is None else self._clock() - state.last.checked_at

    def probe_now(self, key: Key) -> None:
        """Have the next probe of a worker at once, however long it has failed."""
        known = self._watched.get(key)
        if known is not None:
            known.wake.set()

    def keys(self) -> tuple[Key, ...]:
        """Return what is watched."""
        return tuple(self._watched)

    def states(self) -> Iterator[tuple[Key, ProbeState]]:
        """Yield what is known of each worker that has been probed."""
        for key, known in self._watched.items():
            if known.state is not None:
                yield key, known.state

    async def close(self) -> None:
        """Stop all probes. The client is left open."""
        tasks = [known.task for known in self._watched.values()]
        self._watched.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: Key, target: ProbeTarget) -> None:
        since_full = 0
        while (known := self._current(key, target)) is not None:
            started = self._clock()
            known.wake.clear()
            if known.draining:
                await self._follow_load(key, known)
                await self._pause(known, started + DRAIN_INTERVAL)
                continue
            before = known.state
            full = before is None or not before.last.ok or since_full + 1 >= self._full_every
            since_full = 0 if full else since_full + 1
            if before is None:
                # Of many that were begun together not all have their full probes together.
                since_full = int(self._random.random() * self._full_every)
            async with self._places.taken(key.namespace):
                result = await self._probe(target, full=full)
                if full and result.ok:
                    self._note(known, await self._read_load(target, limit=_READING_LIMIT))
            if self._current(key, target) is not known:
                return
            known.state = replace(advance(known.state, result, target), load=known.load)
            if before is None or visible(before) != visible(known.state):
                self._on_change(key)
            spread = 1 + 0.1 * (self._random.random() - 0.5)
            await self._pause(known, started + interval_after(known.state, target) * spread)

    def _current(self, key: Key, target: ProbeTarget) -> _Watched | None:
        known = self._watched.get(key)
        return known if known is not None and known.target is target else None

    async def _pause(self, known: _Watched, until: float) -> None:
        """Wait until a moment, or until something else is wanted of the worker."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - self._clock())):
                await known.wake.wait()

    async def _follow_load(self, key: Key, known: _Watched) -> None:
        """One reading of a worker that drains; told when it becomes idle."""
        before = known.idle
        async with self._places.taken(key.namespace):
            reading = await self._read_load(known.target, limit=_READING_LIMIT)
            if reading is None and known.detours:
                reading = await self._read_by_detours(known)
        self._note(known, reading)
        if known.state is not None:
            load = None if reading is None else reading.requests
            known.state = replace(known.state, load=load)
        if self._current(key, known.target) is known and known.idle and not before:
            self._on_change(key)

    def _note(self, known: _Watched, reading: Reading | None) -> None:
        now = self._clock()
        if reading is None:
            known.idle_since = None
            known.silent_since = now if known.silent_since is None else known.silent_since
            return
        known.load, known.proof = reading
        known.load_at, known.silent_since = now, None
        if known.load:
            known.idle_since = None
        elif known.idle_since is None:
            known.idle_since = now

    async def _read_by_detours(self, known: _Watched) -> Reading | None:
        ways = [replace(known.target, url_base=url) for url in known.detours]
        found = [self._read_load(way, limit=_READING_LIMIT) for way in ways]
        return next((each for each in await asyncio.gather(*found) if each is not None), None)

    async def _read_load(self, target: ProbeTarget, *, limit: float) -> Reading | None:
        """Requests that an engine holds, None where it does not say within `limit` seconds."""
        engine = ENGINES[target.engine]
        page = LoadReader(engine.load)
        try:
            async with asyncio.timeout(limit):
                status = await self._client.stream(
                    f"{target.url_base}{engine.metrics.path}",
                    headers=_headers(target, engine.metrics),
                    take=page.feed,
                )
        except (TimeoutError, EngineError):
            return None
        except Exception as error:
            self._complain("Reading the metrics", target, error)
            return None
        return page.reading() if status == 200 else None

    async def _probe(self, target: ProbeTarget, *, full: bool) -> ProbeResult:
        try:
            async with asyncio.timeout(target.timeout):
                found = await self._ask(target, full=full)
        except TimeoutError:
            found = ProbeVerdict("Timeout", f"no answer within {target.timeout:g} s")
        except EngineRefusedError as error:
            found = ProbeVerdict("Refused", f"{target.url_base} refuses connections: {error}")
        except EngineError as error:
            found = ProbeVerdict("HttpError", str(error))
        except Exception as error:  # a bug in here must look like a failure, not like silence
            found = ProbeVerdict("HttpError", f"unexpected {type(error).__name__}")
            self._complain("Probe", target, error)
        return ProbeResult(found.healthy, found.reason, found.message, self._clock())

    def _complain(self, what: str, target: ProbeTarget, error: Exception) -> None:
        """Log what nobody had thought of: once, and not at each probe of the same engine."""
        told = what, target.url_base, type(error).__name__
        if told in self._told:
            return
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told.add(told)
        _log.error("%s of %s failed unexpectedly: %s", what, target.url_base, where(error))

    async def _ask(self, target: ProbeTarget, *, full: bool) -> ProbeVerdict:
        engine = ENGINES[target.engine]
        found, answers = NOTHING_ASKED, list[Answer]()
        for question in engine.probes(full=full):
            answers.append(await self._answer(target, question))
            found = engine.judge(answers, model=target.model, attempt=target.attempt)
            if not found.healthy:
                break
        return found

    async def _answer(self, target: ProbeTarget, question: Question) -> Answer:
        url, headers = f"{target.url_base}{question.path}", _headers(target, question)
        answer = await self._client.get(url, headers=headers)
        return Answer(question, answer.status, answer.body)


def _headers(target: ProbeTarget, question: Question) -> dict[str, str]:
    """What a question sends: nothing secret but where the engine wants it."""
    headers = dict(target.headers)
    if not question.guarded:
        return headers
    headers |= dict(target.secret_headers)
    if target.api_key:
        headers["Authorization"] = f"Bearer {target.api_key}"
    return headers
