"""What is asked of the engine of one attempt.

Apart from the reconciler, which only has to know when. What is asked of sbatch is
`backends/slurm/request.py`.
"""

from isthmus.api.conditions import PROBED, Phase
from isthmus.api.durations import parse_duration
from isthmus.api.health import HealthSpec
from isthmus.backends.slurm.frozen import FrozenJob
from isthmus.engines import ENGINES
from isthmus.probing.verdict import ProbeTarget
from isthmus.slurmjob.record import AttemptStatus


def probe_target(
    *, attempt: str, status: AttemptStatus, frozen: FrozenJob | None, health: HealthSpec
) -> ProbeTarget | None:
    """What to probe of an attempt: a running one, or one that drains and was not told to end."""
    told = status.ending.terminated_at is not None
    drains = status.phase == Phase.DRAINING and status.ever_ready and not told
    if frozen is None or status.url is None or not (drains or status.phase in PROBED):
        return None
    return ProbeTarget(
        url_base=status.url,
        model=frozen.served_name,
        attempt=attempt,
        engine=frozen.engine,
        interval=parse_duration(health.interval),
        timeout=float(ENGINES[frozen.engine].health_timeout),
        success_threshold=health.success_threshold,
        failure_threshold=health.failure_threshold,
    )
