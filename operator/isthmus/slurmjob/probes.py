"""What is asked of the engine of one attempt, with the headers and the API key that it is sent.

Apart from the reconciler of SlurmJobs: reading Secrets is the only I/O before its plan is carried
out. What is asked of sbatch is `backends/slurm/request.py`.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from isthmus.api.conditions import PROBED, Phase
from isthmus.api.durations import parse_duration
from isthmus.api.health import HealthSpec
from isthmus.api.slurmjob import SlurmJob
from isthmus.apiserver.key import Key
from isthmus.apiserver.secrets import SecretRef, Secrets
from isthmus.backends.base import Load
from isthmus.backends.slurm.frozen import FrozenJob
from isthmus.engines import ENGINES
from isthmus.errors import ApiError, SecretMissingError
from isthmus.probing.prober import Prober
from isthmus.probing.verdict import ProbeState, ProbeTarget
from isthmus.rules.drain import UNREADABLE
from isthmus.slurmjob.attempt_keys import AttemptKeys
from isthmus.slurmjob.record import AttemptStatus

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProbedAttempt:
    """One attempt, and with which status it goes on.

    Attributes:
        detours: URLs other than the status' by which it can be reached.
    """

    job: SlurmJob
    frozen: FrozenJob | None
    health: HealthSpec
    status: AttemptStatus
    detours: tuple[str, ...] = ()

    def target(self) -> ProbeTarget | None:
        """What to probe, without what comes from Secrets; None while there is nothing.

        A running attempt is probed, and one that drains and was not told to end.
        """
        status, frozen, health = self.status, self.frozen, self.health
        told = status.ending.terminated_at is not None
        drains = status.phase == Phase.DRAINING and status.ever_ready and not told
        if frozen is None or status.url is None or not (drains or status.phase in PROBED):
            return None
        return ProbeTarget(
            url_base=status.url,
            model=frozen.served_name,
            attempt=self.job.spec.attempt,
            engine=frozen.engine,
            interval=parse_duration(health.interval),
            timeout=float(ENGINES[frozen.engine].health_timeout),
            success_threshold=health.success_threshold,
            failure_threshold=health.failure_threshold,
        )


class WorkerProbes:
    """What the prober does for attempts."""

    def __init__(self, *, prober: Prober, secrets: Secrets, keys: AttemptKeys) -> None:
        """Prepare.

        Args:
            prober: told of targets, asked for what it found.
            secrets: where headers are read.
            keys: of the attempts.
        """
        self._prober = prober
        self._secrets = secrets
        self._keys = keys

    def state(self, key: Key) -> ProbeState | None:
        """What the probes say, None before the first one."""
        return self._prober.state(key)

    def age(self, key: Key) -> float:
        """Seconds since the last probe ended, 0 before the first one."""
        return self._prober.age(key)

    def probe_now(self, key: Key) -> None:
        """Have the next probe at once."""
        self._prober.probe_now(key)

    def states(self) -> Iterable[tuple[Key, ProbeState]]:
        """Every attempt about which the probes say something."""
        return self._prober.states()

    def load(self, key: Key, attempt: ProbedAttempt) -> Load:
        """What the engine's metrics say; asked for from the next pass on where nobody asks yet."""
        asked = self._prober.load(key)
        if asked is not None:
            return asked
        return UNREADABLE if attempt.target() is None else Load(requests=None)

    def forget(self, key: Key) -> None:
        """Probe an attempt no more."""
        self._prober.watch(key, None)

    async def watch(self, key: Key, attempt: ProbedAttempt) -> None:
        """Have the attempt probed while there is something to probe, and not any more after."""
        target = attempt.target()
        draining = attempt.status.phase == Phase.DRAINING
        if target is not None:
            try:
                target = await self._completed(target, attempt)
            except (SecretMissingError, ApiError) as error:
                _log.warning("Probes of %s: %s", key.name, error)
                # It is our view that fails, not the worker: what is probed goes on being probed.
                # Of one that drains only the metrics are read, for which no engine wants a key.
                if not draining:
                    return
        self._prober.watch(key, target, draining=draining, detours=attempt.detours)

    async def _completed(self, target: ProbeTarget, attempt: ProbedAttempt) -> ProbeTarget:
        """The target with the headers and the API key that its probes send."""
        health = attempt.health
        plain = tuple((each.name, each.value) for each in health.headers if each.value is not None)
        secret = await self._secret_headers(attempt.job, health)
        target = replace(target, headers=plain, secret_headers=secret)
        if attempt.frozen is None:
            return target
        return replace(target, api_key=await self._keys.key(attempt.job, attempt.frozen))

    async def _secret_headers(
        self, job: SlurmJob, health: HealthSpec
    ) -> tuple[tuple[str, str], ...]:
        found = []
        for header in health.headers:
            if header.value_from is not None:
                source = header.value_from.secret_key_ref
                ref = SecretRef(job.metadata.namespace, source.name, source.key)
                try:
                    found.append((header.name, await self._secrets.header(ref)))
                except SecretMissingError as error:
                    if not source.optional:
                        raise
                    _log.warning("Probes go without the optional header %s: %s", header.name, error)
        return tuple(found)
