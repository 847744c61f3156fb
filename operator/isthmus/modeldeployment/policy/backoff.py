"""How long to wait before a failed attempt is replaced.

An attempt that ended through its own fault (Failed, Finished) is followed by its replacement after
`base * 2^(n-1)` seconds, n the number of such attempts still on record, capped. What was not its
fault (walltime, preemption, a lost node) is replaced at once.
"""

from collections.abc import Sequence

from isthmus.api.conditions import Phase
from isthmus.backends.base import Worker

PENALISED = frozenset({Phase.FAILED, Phase.FINISHED})


def retry_at(*, ended: Sequence[Worker], base: float, cap: float) -> float | None:
    """When the next attempt may be made.

    Args:
        ended: ended attempts on record of one revision of one pool.
        base: first delay in seconds.
        cap: longest delay in seconds.

    Returns:
        Epoch seconds, or None where nothing has to be waited for.
    """
    penalised = [worker for worker in ended if worker.phase in PENALISED]
    times = [worker.finished_at for worker in penalised if worker.finished_at is not None]
    if not times:
        return None
    exponent = min(len(penalised) - 1, 30)
    return max(times) + min(cap, base * 2.0**exponent)
