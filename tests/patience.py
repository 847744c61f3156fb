"""How much longer than on an idle machine something may take: for the few limits in real seconds.

A test waits for conditions. Where a rule itself names seconds, they are multiplied by this.
"""

import os

MOST = 10.0


def patience() -> float:
    """How many processes wanted each core in the last minute: 1 on an idle machine, at most 10."""
    return min(MOST, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))
