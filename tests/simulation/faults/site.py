"""The site is slow, full or strange for some minutes."""

from random import Random

from tests.simulation.faults.register import happens, later
from tests.simulation.world import World


@happens(1.0)
def site_changes(world: World, random: Random) -> None:
    """For some minutes the site is slow, full, or strange."""
    slurm = world.slurm
    site = slurm.site
    name, value = random.choice(
        [
            ("gpus", random.randrange(0, 3)),
            ("quota", random.randrange(0, 3)),
            ("folder_broken", True),
            ("queue_seconds", 300.0),
            ("load_seconds", 400.0),
            ("drain_seconds", 120.0),
            ("kill_wait", 60.0),
            ("min_job_age", 2.0),
            ("publish_delay", 200.0),
            ("forged_port", random.choice([22, 41500])),
            ("rewrite_comments", True),
            ("crash_chance", 0.7),
            ("clock_skew", random.choice([-600.0, 600.0])),
        ]
    )
    before = getattr(slurm.usual_site(), name)
    world.tell(f"fault: site.{name} = {value}")
    setattr(site, name, value)

    def back() -> None:
        setattr(site, name, before)
        slurm.schedule()

    later(world, random.random() * 500, back)
