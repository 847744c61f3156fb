"""When the latest rollout began and when it ended.

A rollout begins when a pool is to run another revision while it has workers, or when workers of an
older one are found, and ends with the first look at which all wanted workers serve and none is of
an older one. Until then a further change begins another, so that a duration is that of the last
one. Whatever fails later is no rollout.
"""

from isthmus.api.modeldeployment_status import RolloutStatus
from isthmus.api.times import rfc3339


def rollout_times(
    before: RolloutStatus | None, *, changed: bool, outdated: bool, complete: bool, now: float
) -> RolloutStatus | None:
    """The record of the latest rollout.

    Args:
        before: as it was recorded last, None before the first.
        changed: a pool with workers is to run another revision than at the last look.
        outdated: there are workers of other revisions than the current ones.
        complete: all wanted workers serve, and there are none but those of the current revisions.
        now: epoch seconds.
    """
    under_way = before is not None and before.under_way
    moment = rfc3339(int(now))
    if complete:
        if before is None or not under_way:
            return before
        return before.model_copy(update={"finished_at": moment})
    if changed or (outdated and not under_way):
        return RolloutStatus(started_at=moment)
    return before
