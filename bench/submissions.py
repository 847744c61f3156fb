"""`python -m bench.submissions`: many jobs through a real slurmctld, and their adoption.

Hundreds of SlurmJobs beside the same number of raw `sbatch` in the same run, and beside `sbatch`
with the three writes that no controller can leave out, made by plain calls; then a restart of the
operator, with every status wiped, beside a thousand running jobs. The jobs run a stub that needs a
few hundred kB, so that they fit on one machine; what is adopted is judged by identity.
"""

import argparse
import os
import re
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from rich.console import Console

from bench.bare import MERGE_PATCH, PATHS, Client, Json, Seen, prioritise
from bench.lab import Lab
from bench.lab import model_deployment as lab_deployment
from bench.report import Rows, markdown_tables, tables
from playground import manifests
from playground.cluster import Config, Playground, parse_parts
from playground.commands import wait_until
from playground.errors import PlaygroundError
from playground.operator_process import Operator
from playground.progress import Progress

CPUS = 512
RAW_CLIENTS = 8
DEPLOYMENTS = 10
PARTITION = "gpu"
ROUNDS = 3
SETTINGS = ("liveness-port=0", "lease-duration=120s")
"""A lease that lasts: what is measured is not how a machine does that is too busy for it."""
STUB = "#!/bin/sh\nexec sleep 1000000\n"
SUBMIT, CANCEL = "REQUEST_SUBMIT_BATCH_JOB", "REQUEST_KILL_JOB"


@dataclass(slots=True)
class Figures:
    """Seconds of `count` submissions, and what an adoption of `adopted` jobs took and did."""

    command: str
    count: int = 0
    raw: float = 0.0
    written: float = 0.0
    isthmus: float = 0.0
    adopted: int = 0
    adoption: float = 0.0
    in_sync: float = 0.0
    requests: dict[str, int] = field(default_factory=dict)
    changed: int = 0


class Site:
    """A bare API server, a SLURM whose nodes claim many processors, and the operator."""

    def __init__(self, playground: Playground, *, settings: Sequence[str], priority: int) -> None:
        """Describe it; `start` starts the operator."""
        self.priority = priority
        self.playground = playground
        words = [word for each in settings for word in ("--set", each)]
        self.operator = Operator(playground, arguments=words, installation_id="benchmrk")
        self.client = Client.administrator(playground)
        self.lab = Lab(playground, self.operator)

    def start(self) -> None:
        """Start the operator, with a stub for an engine."""
        stub = self.playground.state / "stub" / "sglang"
        stub.parent.mkdir()
        stub.write_text(STUB, encoding="ascii")
        stub.chmod(0o755)
        self.lab.start()
        cluster = self.cluster()
        self.playground.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(cluster))
        prioritise(self.playground, self.priority)

    def cluster(self) -> Json:
        """The playground's SlurmCluster with the stub in the jobs' PATH."""
        state, slurm = self.playground.state, self.playground.slurm
        found: Json = dict(manifests.slurm_cluster(state, bin_folder=slurm.bin_folder))
        site = {"setup": f'export PATH={state}/stub:"$PATH"'}
        found["spec"] = {**found["spec"], "site": {**found["spec"]["site"], **site}}
        return found

    def deployment(self, name: str, *, replicas: int) -> Json:
        """Workers without GPUs, hardly ever probed, for the stub answers nothing."""
        found = lab_deployment(name, backend="slurm", replicas=replicas)
        found["spec"]["pools"][0]["worker"] = {"gpusPerNode": 0}
        found["spec"]["health"] = {"startupTimeout": "2h", "interval": "60s"}
        return found

    def start_jobs(self, wanted: bool) -> None:
        """Whether the partition starts jobs, or keeps them pending."""
        state = "UP" if wanted else "DOWN"
        self.playground.slurm.command(
            "scontrol", "update", f"PartitionName={PARTITION}", f"State={state}"
        )

    def scale(self, name: str, *, replicas: int) -> None:
        """Have a deployment with so many workers."""
        path = f"{PATHS['ModelDeployment']}/{name}"
        try:
            self.client.call("PATCH", path, {"spec": {"replicas": replicas}}, kind=MERGE_PATCH)
        except PlaygroundError as error:
            if "404" not in str(error):
                raise
            obj = self.deployment(name, replicas=replicas)
            self.client.call("POST", PATHS["ModelDeployment"], obj)

    def jobs(self) -> dict[str, int]:
        """SlurmJobs that know their job: name to job id."""
        items = self.client.call("GET", PATHS["SlurmJob"])["items"]
        return {
            item["metadata"]["name"]: item["status"]["jobId"]
            for item in items
            if item.get("status", {}).get("jobId")
        }

    def running(self) -> int:
        """Jobs that run."""
        return len(self.queue("RUNNING"))

    def queue(self, states: str = "PENDING,RUNNING,COMPLETING") -> list[str]:
        """Ids of the jobs in some states."""
        said = self.playground.slurm.command("squeue", "-h", "-t", states, "-o", "%i", timeout=120)
        return sorted(said.split())

    def requests(self) -> dict[str, int]:
        """Requests that slurmctld has answered so far, by type."""
        said = self.playground.slurm.command("sdiag", timeout=120)
        found = re.findall(r"^\s*(REQUEST_\w+)\s*\(\s*\d+\)\s*count:(\d+)", said, re.M)
        return {name: int(count) for name, count in found}


def knows_its_job(obj: Json) -> str:
    """Name of a SlurmJob that has a job id."""
    return str(obj["metadata"]["name"]) if obj.get("status", {}).get("jobId") else ""


def measure_submissions(site: Site, figures: Figures, *, count: int) -> None:
    """The same number of jobs, raw and through SlurmJobs, in turns."""
    figures.count = count
    each = count // ROUNDS
    progress = site.playground.progress
    for turn in range(ROUNDS):
        # Starting them takes more of this machine, which is all nodes at once, than submitting.
        site.start_jobs(False)
        with progress.step(f"{each} raw sbatch, {RAW_CLIENTS} at a time"):
            figures.raw += _raw(site, each, first=turn * each)
        with progress.step(f"{each} SlurmJobs"):
            figures.isthmus += _through_isthmus(site, (turn + 1) * each)
        with progress.step(f"{each} raw sbatch, each with an object and two writes of its status"):
            figures.written += _written(site, each, first=turn * each)
        with progress.step(f"{(turn + 1) * each} jobs run"):
            site.start_jobs(True)
            _until(lambda n=(turn + 1) * each: site.running() >= n, every=1.0)  # type: ignore[misc]


def _named(site: Site, begin: str) -> list[str]:
    """Ids of jobs whose name begins so."""
    said = site.playground.slurm.command("squeue", "-h", "-o", "%i %j", timeout=120)
    return [line.split()[0] for line in said.splitlines() if line.split()[1].startswith(begin)]


def _through_isthmus(site: Site, count: int) -> float:
    """Have so many SlurmJobs in all; seconds until the last one knows its job."""
    before = site.jobs().keys()
    seen = Seen(site.playground, kind="SlurmJob", what=knows_its_job)
    try:
        begin = time.monotonic()
        for number in range(DEPLOYMENTS):
            site.scale(f"jobs-{number}", replicas=count // DEPLOYMENTS)
        wanted = count - len(before)
        seen.wait(
            lambda: len(seen.at.keys() - before) >= wanted, what=f"{count} jobs are submitted"
        )
        return max(seen.at[name] for name in seen.at.keys() - before) - begin
    finally:
        seen.close()


def _written(site: Site, count: int, *, first: int) -> float:
    """Seconds for the same number by plain calls: POST, "submitting", sbatch, "submitted".

    Objects and statuses are copies of one that the operator wrote, which is stopped meanwhile.
    """
    found = site.client.call("GET", PATHS["SlurmJob"] + "?limit=1")["items"][0]
    submitted = found["status"]
    submitting = {k: v for k, v in submitted.items() if k not in ("jobId", "state", "submittedAt")}
    scripts = _scripts(site, count, first=first)
    clients = threading.local()

    def one(number: int) -> None:
        if not hasattr(clients, "own"):
            clients.own = Client.administrator(site.playground)
        name, client = f"plain-{number}", clients.own
        obj = {key: found[key] for key in ("apiVersion", "kind", "spec")}
        path = PATHS["SlurmJob"]
        client.call("POST", path, {**obj, "metadata": {"name": name}})
        path = f"{path}/{name}/status"
        client.call("PATCH", path, {"status": submitting}, kind=MERGE_PATCH)
        _sbatch(site, scripts[number])
        client.call("PATCH", path, {"status": submitted}, kind=MERGE_PATCH)

    os.kill(site.operator.pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(max_workers=RAW_CLIENTS) as pool:
            begin = time.monotonic()
            list(pool.map(one, range(count)))
            taken = time.monotonic() - begin
        for number in range(count):
            site.client.call("DELETE", f"{PATHS['SlurmJob']}/plain-{number}")
    finally:
        os.kill(site.operator.pid, signal.SIGCONT)
    _cancel_raw(site)
    return taken


def _raw(site: Site, count: int, *, first: int) -> float:
    scripts = _scripts(site, count, first=first)
    with ThreadPoolExecutor(max_workers=RAW_CLIENTS) as pool:
        begin = time.monotonic()
        list(pool.map(lambda words: _sbatch(site, words), scripts))
        taken = time.monotonic() - begin
    _cancel_raw(site)
    return taken


def _sbatch(site: Site, words: Sequence[str]) -> None:
    site.playground.slurm.command("sbatch", *words, user="svc")


def _cancel_raw(site: Site) -> None:
    site.playground.slurm.command("scancel", *_named(site, "raw-"))
    _until(lambda: not _named(site, "raw-"), every=0.5)


def _scripts(site: Site, count: int, *, first: int) -> list[list[str]]:
    job = site.lab.render(site.deployment("raw", replicas=1))
    setup = f"isthmus_setup={shlex.quote(site.cluster()['spec']['site']['setup'])}"
    scripts = []
    for number in range(first, first + count):
        attempt = f"r{number:05}"
        path = site.playground.state / "jobs" / f"raw-{attempt}.sh"
        text = job.script.replace("xxxxxx", attempt)
        path.write_text(re.sub(r"^isthmus_setup=.*$", lambda _: setup, text, flags=re.M))
        options = [option.replace("xxxxxx", attempt) for option in job.options]
        scripts.append([*options, str(path)])
    return scripts


def measure_adoption(site: Site, figures: Figures, *, count: int) -> None:
    """Restart with every status wiped, beside running jobs."""
    progress, operator = site.playground.progress, site.operator
    each = count // DEPLOYMENTS
    with progress.step(f"{count} jobs run"):
        for number in range(DEPLOYMENTS):
            site.scale(f"jobs-{number}", replicas=each)
        _until(lambda: site.running() >= count and len(site.jobs()) >= count, every=2.0)
    before, queue = site.jobs(), site.queue()
    with progress.step("the operator is stopped and every status wiped"):
        operator.stop()
        for name in before:
            remove = [{"op": "remove", "path": "/status"}]
            path = f"{PATHS['SlurmJob']}/{name}/status"
            site.client.call("PATCH", path, remove, kind="application/json-patch+json")
    requests = site.requests()
    seen = Seen(site.playground, kind="SlurmJob", what=knows_its_job)
    with progress.step(f"{len(before)} jobs are adopted"):
        syncs = operator.output().count("In sync")
        begin = time.monotonic()
        site.playground.components.start_again(operator.name)
        prioritise(site.playground, site.priority)
        _until(lambda: operator.output().count("In sync") > syncs, every=0.05)
        figures.in_sync = time.monotonic() - begin
        seen.wait(lambda: len(seen.at) >= len(before), what="all are adopted")
        figures.adoption = max(seen.at.values()) - begin
    seen.close()
    time.sleep(15.0)  # what it would do wrongly it would do by now
    after = site.requests()
    figures.adopted = len(before)
    figures.requests = {n: after.get(n, 0) - requests.get(n, 0) for n in (SUBMIT, CANCEL)}
    now = site.jobs()
    same = sum(now.get(name) == job for name, job in before.items())
    figures.changed = len(before) - same + len(set(queue) ^ set(site.queue()))


def _until(condition: Callable[[], bool], *, every: float, timeout: float = 900.0) -> None:
    wait_until(condition, what="the jobs run", timeout=timeout, interval=every)


def sections(figures: Figures) -> Iterator[tuple[str, Rows]]:
    """The tables."""
    if figures.count and figures.isthmus:
        raw = figures.count / figures.raw
        written = figures.count / figures.written
        rate = figures.count / figures.isthmus
        yield (
            f"{figures.count} jobs through one slurmctld",
            [
                ("", "seconds", "jobs a second", "share of raw", "of sbatch with the writes"),
                (f"sbatch, {RAW_CLIENTS} at a time", f"{figures.raw:.1f}", f"{raw:.1f}", "", ""),
                (
                    "POST, PATCH, sbatch, PATCH",
                    f"{figures.written:.1f}",
                    f"{written:.1f}",
                    f"{written / raw:.2f}",
                    "",
                ),
                (
                    "apply → all submitted",
                    f"{figures.isthmus:.1f}",
                    f"{rate:.1f}",
                    f"{rate / raw:.2f}",
                    f"{rate / written:.2f}",
                ),
            ],
        )
    if figures.adopted:
        yield (
            f"Adoption of {figures.adopted} running jobs, every status wiped",
            [
                ("", ""),
                ("start of the process → in sync", f"{figures.in_sync:.1f} s"),
                ("start of the process → last job adopted", f"{figures.adoption:.1f} s"),
                ("submissions", str(figures.requests[SUBMIT])),
                ("cancellations", str(figures.requests[CANCEL])),
                ("jobs that are others than before", str(figures.changed)),
            ],
        )


@contextmanager
def _site(options: argparse.Namespace, progress: Progress) -> Iterator[Site]:
    state = Path(tempfile.mkdtemp(prefix="isthmus-jobs-", dir="/var/tmp"))
    state.chmod(0o755)
    parts = parse_parts("apiserver,slurm")
    config = Config(state=state, instance=None, parts=parts, cpus=CPUS)
    with Playground(config, progress=progress) as playground:
        site = Site(playground, settings=[*SETTINGS, *options.set], priority=options.priority)
        try:
            site.start()
            yield site
        finally:
            if options.log:
                options.log.write_text(site.operator.output(), encoding="utf-8")
            site.operator.stop()


def main() -> int:
    """Run both measurements; 1 where one fails."""
    parser = argparse.ArgumentParser(prog="python -m bench.submissions", description=__doc__)
    parser.add_argument("--jobs", type=int, default=300, help="submissions (0: none)")
    parser.add_argument("--adopt", type=int, default=1000, help="running jobs (0: none)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="setting of `isthmus run`"
    )
    parser.add_argument("--priority", type=int, default=0, metavar="NICE", help="as of bench.scale")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the operator's log there")
    options = parser.parse_args()
    progress = Progress()
    figures = Figures(command=shlex.join(["python", "-m", "bench.submissions", *sys.argv[1:]]))
    try:
        with _site(options, progress) as site:
            if options.jobs:
                measure_submissions(site, figures, count=options.jobs)
            if options.adopt:
                measure_adoption(site, figures, count=options.adopt)
    except PlaygroundError as error:
        progress.note(f"bench: {error}")
        return 1
    finally:
        found = list(sections(figures))
        for table in tables(found):
            Console().print(table)
        if options.markdown:
            options.markdown.write_text(markdown_tables(found, command=figures.command))
    return 0


if __name__ == "__main__":
    sys.exit(main())
