"""Records what a real SLURM prints for the operator's own questions, as samples for the parsers.

Run as root beside a throw-away cluster of four nodes gpu01 to gpu04 with eight GPUs each, with
partitions gpu, spot (preempted by requeue) and spotcancel (by cancel), a short KillWait and
`SLURM_CONF` set; `SLURM_PREFIX` names the folder of another release's programs::

    PYTHONPATH=operator python tests/contract/samples/slurm/record.py 22.05

It makes jobs and nodes in as many states as can be made, then stores the raw answers. Not by it:
`snapshot-hidden.txt`, the answer to the first question where slurm.conf has
`PrivateData=nodes,reservations`, with two jobs, one of them with an empty name.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from isthmus.backends.slurm.commands import CommandClient
from isthmus.backends.slurm.executor import LocalExecutor
from isthmus.backends.slurm.records import SubmitRequest
from isthmus.processes import CommandResult

MARKER = "isthmus-sample"
USER = "svc"
SLEEP = "#!/bin/bash\nsleep 3600\n"
BIN = str(Path(os.environ.get("SLURM_PREFIX", "/usr")) / "bin")


class RecordingExecutor:
    """Keeps the last answer of the executor behind it."""

    def __init__(self) -> None:
        self.inner = LocalExecutor(bin_directory=BIN, user=USER)
        self.last = CommandResult(0, "", "")

    async def run(self, argv: Sequence[str], *, stdin: str = "", timeout: float) -> CommandResult:
        self.last = await self.inner.run(argv, stdin=stdin, timeout=timeout)
        return self.last

    @property
    def warning(self) -> str:
        return self.inner.warning

    async def close(self) -> None:
        await self.inner.close()


def admin(command: str, *argv: str) -> None:
    whole = [f"{BIN}/{command}", *argv]
    subprocess.run(whole, check=True, timeout=30, stdin=subprocess.DEVNULL)


def sbatch(name: str, *options: str, script: str = SLEEP) -> int:
    argv = [
        f"{BIN}/sbatch",
        "--parsable",
        f"--job-name={name}",
        "--chdir=/tmp",
        "--output=/dev/null",
    ]
    comment = f"--comment=isthmus:v1:sample01:default/{name}:hpc:0:x7k2qp"
    environment = {
        "PATH": f"{BIN}:{os.environ['PATH']}",  # also in the job, which calls scontrol
        "SLURM_CONF": os.environ["SLURM_CONF"],
    }
    done = subprocess.run(
        [*argv, comment, *options],
        input=script,
        env=environment,
        user=USER,
        group=USER,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return int(done.stdout.strip() or 0)


def make_jobs() -> None:
    node = "--nodelist=gpu{:02}".format
    gpus = "--gres=gpu:h100:{}".format
    sbatch("completed", node(1), script="#!/bin/bash\ntrue\n")
    sbatch("failed", node(1), script="#!/bin/bash\nexit 3\n")
    sbatch("gate", node(1), script="#!/bin/bash\nexit 75\n")
    sbatch("killed", node(1), script="#!/bin/bash\nkill -9 $$\n")
    sbatch("refused", "--gres=gpu:h100:99")
    sbatch("held", "--hold")
    sbatch("begin", "--begin=now+1hour")
    sbatch("too-long", "--time=8-00:00:00")
    sbatch("unlimited", "--time=UNLIMITED", "--hold")
    sbatch("weird | name, ünïcode", "--comment=a|b, c=d\nsecond line \x1f unit", node(1))
    sbatch("no-comment", "--comment=", node(1))
    timeout = sbatch("timeout", node(1), "--time=5")
    cancelled = sbatch("cancelled", node(1))
    suspended = sbatch("suspended", node(1))
    completing = sbatch("completing", node(1), script="#!/bin/bash\ntrap '' TERM\nsleep 3600\n")
    requeued = sbatch("requeued", node(1), "--requeue")
    requeue_held = sbatch("requeue-held", node(1), "--requeue")
    sbatch("running", node(1), gpus(1), "--time=1-02:03:00")
    sbatch("two-nodes", "--nodelist=gpu[03-04]", "--nodes=2")
    sbatch("node-fail", node(2), "--no-requeue")
    sbatch("preempted", node(4), gpus(8), "--partition=spotcancel")
    time.sleep(4)
    sbatch("preemptor", node(4), gpus(8))
    first = sbatch("failed-first", node(1), script="#!/bin/bash\nexit 1\n")
    sbatch("dependency-never", f"--dependency=afterok:{first}")
    sbatch("resources", node(4), gpus(8))
    sbatch("drained", node(3), "--exclusive")
    admin("scontrol", "update", f"jobid={timeout}", "EndTime=now+1")
    admin("scancel", str(cancelled))
    admin("scontrol", "suspend", str(suspended))
    admin("scontrol", "requeue", str(requeued))
    admin("scontrol", "requeuehold", str(requeue_held))
    admin("scontrol", "update", "nodename=gpu02", "state=down", "reason=dead PSU, rack 4")
    admin("scontrol", "update", "nodename=gpu03", "state=drain", "reason=ECC | bank 3")
    time.sleep(35)
    admin("scancel", str(completing))
    time.sleep(1)


async def record(folder: Path) -> None:
    executor = RecordingExecutor()
    client = CommandClient(executor, bin_directory=BIN, marker=lambda: MARKER)

    def keep(name: str) -> None:
        folder.joinpath(name).write_text(executor.last.stdout + executor.last.stderr)

    snapshot = await client.snapshot()
    keep("snapshot.txt")
    for job in snapshot.jobs:
        if job.name in {"running", "held", "failed", "weird | name, ünïcode", "requeued"}:
            await client.show_job(job.job_id)
            keep(f"show-job-{job.name.split()[0]}.txt")
    await client.show_job(67_000_000)
    keep("show-job-unknown.txt")
    for option, name in (
        ("--partition=nowhere", "partition"),
        ("--gres=gpu:h100:99", "configuration"),
        ("--exclude=nowhere", "node"),
        ("--constraint=nothing", "constraint"),
        ("--reservation=none", "reservation"),
        ("--time=soon", "time"),
        ("--no-such-option", "option"),
    ):
        await client.submit(SubmitRequest(f"refused-{name}", "x", SLEEP, (option,)))
        keep(f"sbatch-{name}.txt")
    await client.submit(SubmitRequest("accepted", "x", SLEEP, ("--hold",)))
    keep("sbatch-accepted.txt")


if __name__ == "__main__":
    make_jobs()
    asyncio.run(record(Path(__file__).parent / sys.argv[1]))
