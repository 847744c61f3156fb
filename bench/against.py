"""`python -m bench.against COMMIT`: the figures that must not get worse, this tree against another.

Both trees take turns in short rounds of one run; a row is the ratio of the two in the same round.
Each is measured by its own bench in processes of its own where nothing else is said. The other tree
is a worktree of git's that goes at the end.

* front: Envoy with the configuration of each tree, before engines that answer at once: what Envoy
  itself does for a request is all there is to see then. Engines and clients are this tree's.
* probes: processor time of the prober over 500 workers.
* applies: from the POST of a ModelDeployment to its Deployment, one at a time, on a bare API server
  which both operators use, a namespace each.
* scale: 100 applies at once, and 1000 deployments with their pods (`bench.scale`): memory of the
  operator, and its processor time while nothing changes but each object is looked at every 30 s.
  Slow, so with fewer rounds.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.bare import Client
from bench.front_candidates import Envoy, instant_engines
from bench.http_load import Address, Clients, Result
from isthmus.front.envoy import Ports
from playground.cluster import Config, Playground
from playground.progress import Progress

PARTS = ("front", "probes", "applies", "scale")
REPOSITORY = Path(__file__).resolve().parents[1]
LIMIT = 180.0
"""Seconds for one measurement of one tree."""

_BOOTSTRAP = """
import sys
from isthmus.front import envoy
requests, health, admin = map(int, sys.argv[2:])
ports = envoy.Ports(address="127.0.0.1", requests=requests, health=health, admin=admin)
print(envoy.text(envoy.bootstrap(directory=sys.argv[1], ports=ports)))
"""
_PROBES = """
import json
from bench.probes import measure
if __name__ == "__main__":
    print(json.dumps({"probes: share of a processor": measure(500, seconds=10.0).processor}))
"""
_SCALE = """
import json, sys
sys.argv[1:] = ["--set", "resync-interval=30s", "--idle-seconds", "60"]
from bench import scale
from bench.scale_measures import measure_burst, measure_population
from playground.progress import Progress
options = scale._options()
with scale._site(options, Progress(silent=True)) as site:
    burst = measure_burst(site, count=100)
    with scale._simulated_pods(site):
        many = measure_population(site, count=1000, idle_seconds=options.idle_seconds)
print(json.dumps({
    "scale: 100 applies until the last Deployment, s": burst.deployments,
    "scale: memory with 1000 deployments, MiB": many.memory,
    "scale: idle with 1000 deployments, share of a processor": many.cpu / many.idle_seconds,
    "scale: 1000 deployments become Ready, s": many.filled,
}))
"""
_SCALE_LIMIT = 900.0
APPLY = "apply to Deployment, median of 15, s"


def printed(tree: Path, program: str, *arguments: str, limit: float = LIMIT) -> str:
    """What a program prints that runs with the code of a tree, within so many seconds.

    Raises:
        subprocess.SubprocessError: it failed, or took too long.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:  # spawned children read it again
        file.write(program)
        file.flush()
        done = subprocess.run(
            [sys.executable, file.name, *arguments],
            env=os.environ | {"PYTHONPATH": f"{tree / 'operator'}:{tree}"},
            cwd=tree,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=limit,
            check=True,
        )
    return done.stdout


def measured(tree: Path, program: str, *, limit: float = LIMIT) -> dict[str, float]:
    """The figures in the last line of that."""
    found: dict[str, float] = json.loads(printed(tree, program, limit=limit).splitlines()[-1])
    return found


class EnvoyOf(Envoy):
    """Envoy as the fronts of a tree have it."""

    def __init__(self, folder: Path, tree: Path) -> None:
        """Prepare."""
        super().__init__(folder)
        self._tree = tree

    def bootstrap(self, ports: Ports) -> str:
        """As that tree writes it."""
        numbers = (str(each) for each in (ports.requests, ports.health, ports.admin))
        return printed(self._tree, _BOOTSTRAP, str(self.folder), *numbers)


def front(tree: Path, workers: Sequence[Address]) -> dict[str, float]:
    """Figures of one round before these engines."""
    with tempfile.TemporaryDirectory(prefix="isthmus-front-") as folder:
        envoy = EnvoyOf(Path(folder), tree)
        try:
            envoy.start(workers)
            asyncio.run(_load(envoy, 1.0))
            before = envoy.processor_time()
            found = asyncio.run(_load(envoy, 4.0))
            spent = envoy.processor_time() - before
        finally:
            envoy.kill()
    if found.failed:
        raise RuntimeError(f"{tree}: requests failed: {dict(found.failures)}")
    return {
        "front: p50, us": found.percentile(0.5) * 1e6,
        "front: answers a second": found.rate,
        "front: processor time of a request, us": spent / len(found.seconds) * 1e6,
    }


async def _load(envoy: Envoy, seconds: float) -> Result:
    return await Clients(lambda: [envoy.address], count=16, tokens=16, streams=False).run(seconds)


def applies(playground: Playground, tree: Path, namespace: str) -> dict[str, float]:
    """Seconds from a POST to the Deployment of its pods, with the operator of a tree."""
    api = Client.administrator(playground)
    playground.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(tree / "crds"))
    space = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    playground.kubectl("apply", "-f", "-", stdin=space)
    deployments = f"/apis/isthmus.dev/v1alpha1/namespaces/{namespace}/modeldeployments"
    made = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    seconds = []
    with _operator(playground, tree, namespace):
        for number in range(18):
            name = f"{namespace}-{number}"
            # Of this one alone: a list of all takes the longer the larger they are.
            found = f"{made}?labelSelector=isthmus.dev%2Fmodeldeployment%3D{name}"
            began = time.monotonic()
            api.call("POST", deployments, _deployment(name))
            while not api.call("GET", found)["items"]:
                if time.monotonic() - began > LIMIT:
                    raise TimeoutError(f"{tree}: no Deployment after {LIMIT:.0f} s")
            seconds.append(time.monotonic() - began)
            time.sleep(0.3)  # all that belongs to it is done then
    return {APPLY: statistics.median(seconds[3:])}


@contextlib.contextmanager
def _operator(playground: Playground, tree: Path, namespace: str) -> Iterator[None]:
    words = ["run", "--kubeconfig", str(playground.kubernetes.kubeconfig)]
    words += ["--installation-id", "benchmrk"]
    for setting in ("liveness-port=0", f"namespace={namespace}", f"watch-namespaces={namespace}"):
        words += ["--set", setting]
    process = subprocess.Popen(
        [sys.executable, "-m", "isthmus", *words],
        env=os.environ | {"PYTHONPATH": str(tree / "operator")},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _deployment(name: str) -> dict[str, object]:
    return {
        "apiVersion": "isthmus.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"source": "hf://org/model", "servedNames": ["llama"]},
            "pools": [{"name": "k8s", "kubernetes": {}}],
            "endpoint": {"type": "Service"},
        },
    }


@contextlib.contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """The other tree."""
    with tempfile.TemporaryDirectory(prefix="isthmus-against-", dir="/var/tmp") as folder:
        path = Path(folder) / "tree"
        _git("worktree", "add", "--detach", str(path), commit)
        try:
            yield path
        finally:
            _git("worktree", "remove", "--force", str(path))


def _git(*words: str) -> None:
    subprocess.run(["git", *words], cwd=REPOSITORY, check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def engines() -> Iterator[Sequence[Address]]:
    """Addresses of engines that answer at once."""
    with tempfile.TemporaryDirectory(prefix="isthmus-engines-") as folder:
        process, addresses = instant_engines(Path(folder), count=4)
        try:
            yield addresses
        finally:
            process.kill()


Measure = tuple[str, Callable[[Path], dict[str, float]]]
Rounds = list[tuple[dict[str, float], dict[str, float]]]


def take_turns(
    measures: Sequence[Measure],
    trees: tuple[Path, Path],
    *,
    rounds: int,
    progress: Progress,
) -> Rounds:
    """Each measure of both trees, so many times; an element is what (other, this) tree took."""
    found: Rounds = []
    for number in range(rounds):
        pair: tuple[dict[str, float], dict[str, float]] = {}, {}
        for name, measure in measures:
            with progress.step(f"round {number + 1} of {rounds}: {name}"):
                # Who comes first changes, for the second finds warmer caches.
                for index in (0, 1) if number % 2 == 0 else (1, 0):
                    pair[index].update(measure(trees[index]))
        found.append(pair)
    return found


def table(found: Sequence[Rounds], *, commit: str) -> Table:
    """A row for each figure: both medians, and the ratio with its range."""
    made = Table(title=f"Against {commit}", title_justify="left")
    for head in ("figure", commit, "now", "ratio: median (range)"):
        made.add_column(head, justify="left" if head == "figure" else "right")
    for rounds in found:
        for figure in rounds[0][0]:
            made.add_row(figure, *_cells([(old[figure], new[figure]) for old, new in rounds]))
    return made


def _cells(pairs: Sequence[tuple[float, float]]) -> tuple[str, str, str]:
    ratios = sorted(new / old for old, new in pairs)
    return (
        f"{statistics.median(old for old, _ in pairs):.4g}",
        f"{statistics.median(new for _, new in pairs):.4g}",
        f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
    )


def main() -> int:
    """Measure and print."""
    options = _options()
    progress, numbers = Progress(), iter(range(10_000))
    found: list[Rounds] = []
    with worktree(options.commit) as other, contextlib.ExitStack() as stack:
        trees = (other, REPOSITORY)
        measures: list[Measure] = []
        if "front" in options.only:
            addresses = stack.enter_context(engines())
            measures.append(("front", lambda tree: front(tree, addresses)))
        if "probes" in options.only:
            measures.append(("probes", lambda tree: measured(tree, _PROBES)))
        if "applies" in options.only:
            state = Path(tempfile.mkdtemp(prefix="isthmus-bench-", dir="/var/tmp"))
            config = Config(state=state, instance=None, parts=frozenset({"apiserver"}))
            playground = stack.enter_context(Playground(config, progress=progress))

            def single(tree: Path) -> dict[str, float]:
                return applies(playground, tree, f"bench-{next(numbers)}")

            measures.append(("applies", single))
        if measures:
            found.append(take_turns(measures, trees, rounds=options.rounds, progress=progress))
        stack.close()
        if "scale" in options.only:
            scale: Measure = ("scale", lambda tree: measured(tree, _SCALE, limit=_SCALE_LIMIT))
            rounds = options.scale_rounds
            found.append(take_turns([scale], trees, rounds=rounds, progress=progress))
    Console().print(table(found, commit=options.commit))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.against", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("commit", help="the other tree")
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=list(PARTS),
        metavar="PART,...",
        help=f"of {', '.join(PARTS)} (all)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each (%(default)s)")
    parser.add_argument("--scale-rounds", type=int, default=1, help="of scale (%(default)s)")
    options = parser.parse_args()
    unknown = sorted(set(options.only) - set(PARTS))
    if unknown:
        parser.error(f"--only: no part is called {', '.join(unknown)}; write {', '.join(PARTS)}")
    if min(options.rounds, options.scale_rounds) < 1:
        parser.error("--rounds and --scale-rounds: write 1 or more")
    return options


if __name__ == "__main__":
    sys.exit(main())
