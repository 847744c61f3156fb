"""A status claims the port of another worker's forward while no login host can be reached.

What seed 9919 found, in its shortest form.
"""

from tests.simulation import runner
from tests.simulation.faults.register import Planned
from tests.simulation.runner import Result

SEEDS = {
    "two workers of one Service": (18, 4),
    "workers of two Services, two supervisors": (34, 1),
    "workers of two Services": (38, 1),
}
"""Worlds that come to rest before the claim, and which worker claims whose port."""


def claimed(name: str) -> Result:
    """Let it happen; the claim is in the trace."""
    seed, salt = SEEDS[name]
    away = Planned(at=300.0, name="login_hosts_away", salt=salt)
    claim = Planned(at=306.0, name="forward_ports_conflict", salt=salt)
    return runner.run(seed, (away, claim))
