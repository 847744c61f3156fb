"""What an administrator is told of records of SLURM that cannot be read."""

from isthmus.backends.slurm.records import Snapshot


def told(snapshot: Snapshot) -> str:
    """What an administrator is told of records that cannot be read; "" if there is none."""
    if not (snapshot.unreadable or snapshot.nameless):
        return ""
    parts = []
    if jobs := snapshot.unreadable:
        shown = ", ".join(f"{job.job_id} {job.name[:80]} ({job.problem})" for job in jobs[:3])
        more = "" if len(jobs) <= 3 else f" and {len(jobs) - 3} more"
        parts.append(f"cannot read the records of jobs {shown}{more}: these are left as they are")
    if snapshot.nameless:
        parts.append(
            f"cannot read id and name of some records ({len(snapshot.nameless)}, "
            f"{snapshot.nameless[0]}): until they are gone nothing is submitted on this cluster "
            "and no job is taken to be gone"
        )
    return f"{'; '.join(parts)}. Update Isthmus to a release that reads this SLURM, or report it"
