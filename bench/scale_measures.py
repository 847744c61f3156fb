"""What `bench.scale` measures, each a function that returns its figures.

Single applies and bursts are timed from the request to the event of the Deployment, on a watch of
the bench's own; populations are looked at from outside: /proc and the API server's metrics.
"""

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from bench.bare import (
    MERGE_PATCH,
    PATHS,
    Client,
    Json,
    Seen,
    model_deployment,
    prioritise,
    writes,
)
from bench.idle import memory, processor_time
from playground.cluster import Playground
from playground.commands import wait_until
from playground.errors import PlaygroundError
from playground.operator_process import Operator
from playground.progress import Progress

RESYNC = 300.0
"""Seconds between two looks at each object; `--idle-seconds` covers it once."""
CALM = 5.0
AHEAD = 200
"""ModelDeployments that are posted and not Ready yet."""
ATTEMPTS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where it is measured, and what a ModelDeployment of this bench looks like."""

    playground: Playground
    operator: Operator
    client: Client
    progress: Progress
    make: Callable[[str], Json] = model_deployment
    priority: int = 0

    def prioritise(self) -> None:
        """Put all that takes part above the rest of the machine, if that was asked for."""
        prioritise(self.playground, self.priority)


@dataclass(frozen=True, slots=True)
class Singles:
    """Seconds from the begin of a POST to its answer, and to the event of the Deployment."""

    posts: tuple[float, ...]
    deployments: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Objects posted one after another on one connection; seconds since the begin.

    Attributes:
        raw: what posting the same takes while the operator is stopped.
        posted: answer to the last POST.
        deployments: event of the last Deployment.
        complete: event of the last Service.
    """

    count: int
    raw: float
    posted: float
    deployments: float
    complete: float


@dataclass(slots=True, kw_only=True)
class Population:
    """Many deployments that are there.

    Attributes:
        count: ModelDeployments.
        objects: watched objects in all.
        filled: seconds from the first POST until every one was Ready.
        first: seconds from the start of the process until a change that was made while the
            operator was down is carried out, for the deployment that comes first by name.
        last: the same for the one that comes last.
        memory: MiB, resident, when nothing has happened for a while after that.
        memory_idle: the same at the end of the look.
        idle_seconds: length of the look at the idle operator.
        cpu: its seconds of processor time in that.
        writes: requests to the API server meanwhile that change anything but Leases, by anybody.
        load: of the machine at the end, over one minute.
    """

    count: int
    objects: int = 0
    filled: float = 0.0
    first: float = 0.0
    last: float = 0.0
    memory: float = 0.0
    memory_idle: float = 0.0
    idle_seconds: float = 0.0
    cpu: float = 0.0
    writes: int = 0
    load: float = 0.0


@dataclass(slots=True, kw_only=True)
class Figures:
    """Everything of one run; `memory_empty` is MiB of an operator that has nothing to watch."""

    command: str
    memory_empty: float = 0.0
    singles: Singles | None = None
    bursts: list[Burst] = field(default_factory=list)
    populations: list[Population] = field(default_factory=list)


def measure_singles(site: Site, *, count: int) -> Singles:
    """One apply at a time, each followed by a pause in which all that belongs to it is done."""
    posts, deployments = [], []
    seen, services = Seen(site.playground, kind="Deployment"), _services(site)
    names = [f"single-{number}" for number in range(count)]
    try:
        for name in names:
            begin = time.monotonic()
            site.client.call("POST", PATHS["ModelDeployment"], site.make(name))
            posts.append(time.monotonic() - begin)
            seen.wait(lambda n=name: n in seen.at, what=f"the Deployment of {name}")  # type: ignore[misc]
            deployments.append(seen.at[name] - begin)
            services.wait(lambda n=name: n in services.at, what=f"the Service of {name}")  # type: ignore[misc]
            time.sleep(0.05)
    finally:
        seen.close()
        services.close()
    clear(site, names)
    return Singles(posts=tuple(posts), deployments=tuple(deployments))


def measure_burst(site: Site, *, count: int) -> Burst:
    """Many applies at once."""
    raw = _raw_burst(site, count=count)
    names = [f"burst-{count}-{number}" for number in range(count)]
    bodies = [site.make(name) for name in names]
    seen, services = Seen(site.playground, kind="Deployment"), _services(site)
    try:
        begin = time.monotonic()
        for body in bodies:
            site.client.call("POST", PATHS["ModelDeployment"], body)
        posted = time.monotonic() - begin
        seen.wait(lambda: len(seen.at) >= count, what=f"{count} Deployments")
        services.wait(lambda: len(services.at) >= count, what=f"{count} Services")
        result = Burst(
            count=count,
            raw=raw,
            posted=posted,
            deployments=max(seen.at.values()) - begin,
            complete=max(services.at.values()) - begin,
        )
    finally:
        seen.close()
        services.close()
    clear(site, names)
    return result


def _raw_burst(site: Site, *, count: int) -> float:
    """Post the same objects while the operator is stopped, so that nobody reacts."""
    names = [f"raw-{count}-{number}" for number in range(count)]
    bodies = [site.make(name) for name in names]
    os.kill(site.operator.pid, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        for body in bodies:
            site.client.call("POST", PATHS["ModelDeployment"], body)
        raw = time.monotonic() - begin
        for name in names:
            site.client.call("DELETE", f"{PATHS['ModelDeployment']}/{name}")
    finally:
        os.kill(site.operator.pid, signal.SIGCONT)
    _settle(site)
    # It found them in the watch and made what they ask for before it came to their end.
    _clear_what_belonged(site, set(names))
    return raw


def _services(site: Site) -> Seen:
    return Seen(site.playground, kind="Service")


def clear(site: Site, names: Iterable[str]) -> None:
    """Delete deployments and, since no garbage collector runs here, what belongs to them."""
    gone = set(names)
    for name in gone:
        site.client.call("DELETE", f"{PATHS['ModelDeployment']}/{name}")
    _until(lambda: not _count(site, "ModelDeployment"), "the ModelDeployments are gone")
    _clear_what_belonged(site, gone)


def _clear_what_belonged(site: Site, gone: Collection[str]) -> None:
    for kind in ("Deployment", "Service", "ControllerRevision", "EndpointSlice", "Pod"):
        found = site.client.call("GET", PATHS[kind])["items"]
        for item in found:
            if item["metadata"].get("labels", {}).get("isthmus.dev/modeldeployment") in gone:
                path = f"{PATHS[kind]}/{item['metadata']['name']}"
                now = {"gracePeriodSeconds": 0}
                site.client.call("DELETE", path, now)


def measure_population(site: Site, *, count: int, idle_seconds: float) -> Population:
    """Fill up to `count` deployments with pods, restart the operator, look at it while idle."""
    found, operator = Population(count=count), site.operator
    with site.progress.step(f"{count} deployments become Ready"):
        found.filled = _fill(site, count)
    names = sorted(item["metadata"]["name"] for item in _items(site, "ModelDeployment"))
    with site.progress.step("restart: the first and the last by name"):
        found.first, found.last = _restart(site, first=names[0], last=names[-1])
    _settle(site)
    found.objects = sum(_count(site, kind) for kind in PATHS)
    found.memory = memory(operator.pid)
    with site.progress.step(f"idle with {count} deployments"):
        before, cpu, begin = writes(site.client), processor_time(operator.pid)[0], time.monotonic()
        time.sleep(idle_seconds)
        found.cpu = processor_time(operator.pid)[0] - cpu
        found.idle_seconds = time.monotonic() - begin
        found.writes = writes(site.client) - before
    found.memory_idle = memory(operator.pid)
    with open("/proc/loadavg", encoding="utf-8") as file:
        found.load = float(file.read().split()[0])
    return found


def _fill(site: Site, count: int) -> float:
    """Not faster than they become Ready: the API server of a small machine gives up otherwise."""
    have = {item["metadata"]["name"] for item in _items(site, "ModelDeployment")}
    missing = [name for number in range(count) if (name := f"many-{number:05}") not in have]
    ready = Seen(site.playground, kind="ModelDeployment", what=_named_if_ready)
    begin = time.monotonic()
    try:
        for number, name in enumerate(missing):
            least = number - AHEAD
            ready.wait(lambda n=least: len(ready.at) >= n, what="most are Ready", timeout=600)  # type: ignore[misc]
            _post(site, name)
        ready.wait(lambda: len(ready.at) >= len(missing), what=f"{count} are Ready", timeout=600)
    finally:
        ready.close()
    return time.monotonic() - begin


def _named_if_ready(obj: Json) -> str:
    return str(obj["metadata"]["name"]) if obj.get("status", {}).get("summary") == "Ready" else ""


def _post(site: Site, name: str) -> None:
    """Post a ModelDeployment; again where the API server had too much to do."""
    for attempt in range(ATTEMPTS):
        try:
            site.client.call("POST", PATHS["ModelDeployment"], site.make(name))
            return
        except PlaygroundError as error:
            text = str(error)
            if "AlreadyExists" in text:
                return
            if attempt + 1 == ATTEMPTS or not any(f": {code} " in text for code in (429, 500, 504)):
                raise
            time.sleep(2.0**attempt)


def _restart(site: Site, *, first: str, last: str) -> tuple[float, float]:
    """Scale two while the operator is down; seconds from its start until each is carried out."""
    site.operator.stop()
    for name in (first, last):
        path = f"{PATHS['ModelDeployment']}/{name}"
        wanted = site.client.call("GET", path)["spec"]["replicas"] % 3 + 1
        site.client.call("PATCH", path, {"spec": {"replicas": wanted}}, kind=MERGE_PATCH)
    seen = Seen(site.playground, kind="Deployment")
    try:
        begin = time.monotonic()
        site.playground.components.start_again(site.operator.name)
        site.prioritise()
        seen.wait(lambda: {first, last} <= seen.at.keys(), what=f"{first} and {last} are scaled")
        return seen.at[first] - begin, seen.at[last] - begin
    finally:
        seen.close()


def _settle(site: Site) -> None:
    """Wait until nothing was written for a while and the operator uses hardly any time."""
    since, before = time.monotonic(), (writes(site.client), 0.0)
    while time.monotonic() - since < CALM:
        time.sleep(1.0)
        now = writes(site.client), processor_time(site.operator.pid)[0]
        if now[0] != before[0] or now[1] - before[1] > 0.3:
            since = time.monotonic()
        before = now


def _items(site: Site, kind: str) -> list[Json]:
    found: list[Json] = site.client.call("GET", PATHS[kind])["items"]
    return found


def _count(site: Site, kind: str) -> int:
    answer = site.client.call("GET", PATHS[kind] + "?limit=1")
    return len(answer["items"]) + int(answer["metadata"].get("remainingItemCount", 0))


def _until(
    condition: Callable[[], bool], what: str, *, timeout: float = 300.0, every: float = 0.1
) -> None:
    wait_until(condition, what=what, timeout=timeout, interval=every)
