"""`python -m bench.against COMMIT`: the figures that must not get worse, this tree against another.

Both trees take turns in short rounds of one run, each measured by its own bench in processes of its
own; a row is the ratio of the two in the same round. The other tree is a worktree of git's that
goes at the end.

* front: its rate of requests and its median, ratios to the direct way, before engines that answer
  at once: what Envoy itself does for a request is all there is to see then.
* probes: processor time of the prober over 500 workers.
* applies: from the POST of a ModelDeployment to its Deployment, one at a time, on a bare API server
  which both operators use, a namespace each.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.bare import Client
from playground.cluster import Config, Playground
from playground.progress import Progress

REPOSITORY = Path(__file__).resolve().parents[1]
LIMIT = 180.0
"""Seconds for one measurement of one tree."""

_FRONT = """
import argparse, asyncio, json, tempfile
from pathlib import Path
from bench.front import Lab, overhead
options = argparse.Namespace(seconds=4.0, clients=16, rounds=1)
with tempfile.TemporaryDirectory() as folder, Lab(Path(folder)) as lab:
    found = asyncio.run(overhead(lab, ["envoy"], lab.instant(), options=options))["envoy"]
print(json.dumps({"front: p50 to direct": found.p50[0], "front: rate to direct": found.rate[0]}))
"""
_PROBES = """
import json
from bench.probes import measure
if __name__ == "__main__":
    print(json.dumps({"probes: share of a processor": measure(500, seconds=10.0).processor}))
"""
APPLY = "apply to Deployment, median of 15, s"


def measured(tree: Path, program: str) -> dict[str, float]:
    """What a program prints that runs with the code of a tree.

    Raises:
        subprocess.SubprocessError: it failed, or took too long.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:  # spawned children read it again
        file.write(program)
        file.flush()
        done = subprocess.run(
            [sys.executable, file.name],
            env=os.environ | {"PYTHONPATH": f"{tree / 'operator'}:{tree}"},
            cwd=tree,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=LIMIT,
            check=True,
        )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


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
            before = len(api.call("GET", made)["items"])
            began = time.monotonic()
            api.call("POST", deployments, _deployment(f"{namespace}-{number}"))
            while len(api.call("GET", made)["items"]) == before:
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


Rounds = list[tuple[dict[str, float], dict[str, float]]]


def take_turns(
    measures: list[tuple[str, Callable[[Path], dict[str, float]]]],
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


def table(found: Rounds, *, commit: str) -> Table:
    """A row for each figure: both medians, and the ratio with its range."""
    made = Table(title=f"Against {commit}", title_justify="left")
    for head in ("figure", commit, "now", "ratio: median (range)"):
        made.add_column(head, justify="left" if head == "figure" else "right")
    for figure in found[0][0]:
        pairs = [(old[figure], new[figure]) for old, new in found]
        ratios = sorted(new / old for old, new in pairs)
        made.add_row(
            figure,
            f"{statistics.median(old for old, _ in pairs):.4g}",
            f"{statistics.median(new for _, new in pairs):.4g}",
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        )
    return made


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.against", description=__doc__)
    parser.add_argument("commit", help="the other tree")
    parser.add_argument("--rounds", type=int, default=5, help="of each (%(default)s)")
    options = parser.parse_args()
    progress, numbers = Progress(), iter(range(10_000))
    state = Path(tempfile.mkdtemp(prefix="isthmus-bench-", dir="/var/tmp"))
    config = Config(state=state, instance=None, parts=frozenset({"apiserver"}))
    with worktree(options.commit) as other, Playground(config, progress=progress) as playground:
        found = take_turns(
            [
                ("front", lambda tree: measured(tree, _FRONT)),
                ("probes", lambda tree: measured(tree, _PROBES)),
                ("applies", lambda tree: applies(playground, tree, f"bench-{next(numbers)}")),
            ],
            (other, REPOSITORY),
            rounds=options.rounds,
            progress=progress,
        )
    Console().print(table(found, commit=options.commit))
    return 0


if __name__ == "__main__":
    sys.exit(main())
