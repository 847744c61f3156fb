"""What the operator costs while nothing changes: slurmctld, the API server, the machine."""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from bench.lab import Lab, model_deployment
from bench.startup import many_names, start_many
from playground.operator_process import NAMESPACE

_LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/isthmus"
_WRITES = re.compile(r"^apiserver_request_total\{(?P<labels>.*)\} (?P<count>[0-9.e+]+)$", re.M)
_VERBS = re.compile(r'verb="(POST|PUT|PATCH|APPLY|DELETE|DELETECOLLECTION)"')
# Every kubelet renews its node's Lease and status, whatever Isthmus does; our Lease is told apart.
_NOT_COUNTED = re.compile(r'resource="(leases|nodes)"')
_LOOK_AT_LEASE_EVERY = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """One look at an operator with nothing to do.

    Attributes:
        workers: SLURM workers that run meanwhile.
        seconds: how long it was looked at.
        rpcs: requests of the job user that slurmctld has answered.
        writes: requests to the API server that change anything but Leases and nodes, by anybody.
        renewals: of the operator's Lease, per minute.
        cpu: seconds of processor time of the operator itself.
        commands_cpu: of the commands that it ran, such as squeue.
        memory: MiB, resident, at the end.
    """

    workers: int
    seconds: float
    rpcs: int
    writes: int
    renewals: float
    cpu: float
    commands_cpu: float
    memory: float


def measure_idle(lab: Lab, *, seconds: float) -> list[Idle]:
    """Look with no worker, with one, and with twenty of ten deployments."""
    progress, found = lab.playground.progress, []
    names: list[str] = []
    for workers in (0, 1, 20):
        with progress.step(f"idle with {workers} SLURM workers"):
            if workers == 1:
                names = ["idle-one"]
                lab.create(model_deployment(names[0], backend="slurm"))
                lab.wait_members(*names, count=1)
            elif workers:
                lab.delete("ModelDeployment", *names)
                lab.wait_idle(*names)
                names = many_names("idle")
                start_many(lab, names)
            _settle(lab)
            found.append(_look(lab, workers=workers, seconds=seconds))
    lab.delete("ModelDeployment", *names)
    lab.wait_idle(*names)
    return found


def _settle(lab: Lab) -> None:
    """Wait until nothing has been written for 10 s: the last statuses of a start."""
    last, since = _writes(lab), time.monotonic()

    def calm() -> bool:
        nonlocal last, since
        now = _writes(lab)
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > 10

    lab.wait(calm, what="nothing is written for 10 s")


def _look(lab: Lab, *, workers: int, seconds: float) -> Idle:
    """Look from one poll to another, so that the rate does not depend on where it begins."""
    pid = lab.operator.pid
    rpcs = _next_poll(lab)
    begin, renewals, seen = time.monotonic(), -1, ""
    writes, cpu = _writes(lab), processor_time(pid)
    while time.monotonic() - begin < seconds:
        renewed = str(lab.get(_LEASE)["spec"]["renewTime"])
        renewals, seen = renewals + (renewed != seen), renewed
        time.sleep(_LOOK_AT_LEASE_EVERY)
    renewals_per_minute = renewals / (time.monotonic() - begin) * 60
    asked = _next_poll(lab) - rpcs
    own, commands = (now - then for now, then in zip(processor_time(pid), cpu, strict=True))
    return Idle(
        workers=workers,
        seconds=time.monotonic() - begin,
        rpcs=asked,
        writes=_writes(lab) - writes,
        renewals=renewals_per_minute,
        cpu=own,
        commands_cpu=commands,
        memory=memory(pid),
    )


def _next_poll(lab: Lab) -> int:
    """Wait until the operator has asked slurmctld again, and return all that it asked so far."""
    before = now = _rpcs(lab)
    while now == before or now != _rpcs(lab):
        now = _rpcs(lab)
        time.sleep(_LOOK_AT_LEASE_EVERY)
    return now


def _rpcs(lab: Lab) -> int:
    """All requests of the job user, from sdiag's table by user; sdiag itself runs as root."""
    said = lab.playground.slurm.command("sdiag").partition("statistics by user")[2]
    user = lab.playground.config.user
    match = re.search(rf"^\s*{user}\s*\(\s*\d+\)\s+count:(\d+)", said, re.M)
    return int(match[1]) if match else 0


def _writes(lab: Lab) -> int:
    metrics = lab.playground.kubernetes.request("GET", "/metrics").decode()
    return sum(
        int(float(match["count"]))
        for match in _WRITES.finditer(metrics)
        if _VERBS.search(match["labels"]) and not _NOT_COUNTED.search(match["labels"])
    )


def processor_time(pid: int) -> tuple[float, float]:
    """Processor time in seconds: of the process, and of its children that have ended."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    fields = text.rpartition(")")[2].split()
    own, children = (int(fields[i]) + int(fields[i + 1]) for i in (11, 13))
    tick = os.sysconf("SC_CLK_TCK")
    return own / tick, children / tick


def memory(pid: int) -> float:
    """MiB of a process that are resident."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024
