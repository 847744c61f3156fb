"""`python -m bench.scale`: how the operator does with many deployments, on a bare API server.

etcd, kube-apiserver and the operator's own process are real; what controllers and kubelets would do
is simulated. Nothing is asserted: tables are printed, and written only where asked.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from bench.bare import PATHS, Client
from bench.idle import memory
from bench.report import markdown_tables, tables
from bench.scale_measures import (
    RESYNC,
    Figures,
    Site,
    measure_burst,
    measure_population,
    measure_singles,
)
from bench.scale_report import sections
from playground.cluster import Config, Playground
from playground.errors import PlaygroundError
from playground.operator_process import Operator
from playground.progress import Progress
from playground.python_environment import REPOSITORY


def main() -> int:
    """Run what is asked for; 1 where the API server or a measurement fails."""
    options = _options()
    progress = Progress()
    figures = Figures(command=shlex.join(["python", "-m", "bench.scale", *sys.argv[1:]]))
    try:
        with _site(options, progress) as site:
            figures.memory_empty = memory(site.operator.pid)
            if options.singles:
                with progress.step(f"{options.singles} single applies"):
                    figures.singles = measure_singles(site, count=options.singles)
            for count in options.bursts:
                with progress.step(f"a burst of {count}"):
                    figures.bursts.append(measure_burst(site, count=count))
            with _simulated_pods(site):
                for count in sorted(options.deployments):
                    figures.populations.append(
                        measure_population(site, count=count, idle_seconds=options.idle_seconds)
                    )
    except PlaygroundError as error:
        progress.note(f"bench: {error}")
        return 1
    finally:
        _show(figures, options.markdown)
    return 0


def _show(figures: Figures, file: Path | None) -> None:
    found = list(sections(figures))
    console = Console()
    for table in tables(found):
        console.print(table)
    if file:
        file.write_text(markdown_tables(found, command=figures.command), encoding="utf-8")


@contextmanager
def _site(options: argparse.Namespace, progress: Progress) -> Iterator[Site]:
    """A bare API server with the operator in it."""
    state = Path(tempfile.mkdtemp(prefix="isthmus-scale-", dir="/var/tmp"))
    state.chmod(0o755)
    config = Config(state=state, instance=None, parts=frozenset({"apiserver"}))
    with Playground(config, progress=progress) as playground:
        # The Lease is long, because the operator is stopped while the raw side is measured.
        settings = ["liveness-port=0", "lease-duration=120s", f"resync-interval={RESYNC:.0f}s"]
        settings += options.set
        operator = Operator(
            playground,
            arguments=[word for each in settings for word in ("--set", each)],
            installation_id="benchmrk",
        )
        client = Client.administrator(playground)
        # No controller makes it here, and pods are refused without.
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        client.call("POST", "/api/v1/namespaces/default/serviceaccounts", account)
        operator.start()
        try:
            operator.wait_for_output("In sync", timeout=120.0)
            client.call("GET", PATHS["ModelDeployment"])
            site = Site(
                playground=playground,
                operator=operator,
                client=client,
                progress=progress,
                priority=options.priority,
            )
            site.prioritise()
            yield site
            operator.require_running()
        finally:
            if options.log:
                options.log.write_text(operator.output(), encoding="utf-8")
            operator.stop()


@contextmanager
def _simulated_pods(site: Site) -> Iterator[None]:
    """The process that stands in for controllers and kubelets."""
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY / 'operator'}:{REPOSITORY}"}
    kubeconfig = str(site.playground.kubernetes.kubeconfig)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.simulated_pods", kubeconfig],
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait(timeout=10)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--singles", type=int, default=200, help="single applies (0: none)")
    for name, default, text in (
        ("--bursts", [10, 50, 100, 300], "applies at once"),
        ("--deployments", [833, 1000, 5000], "populations to look at"),
    ):
        parser.add_argument(name, type=int, nargs="*", default=default, metavar="N", help=text)
    parser.add_argument(
        "--idle-seconds", type=float, default=RESYNC + 30, help="length of each idle look"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="setting of `isthmus run`"
    )
    parser.add_argument(
        "--priority",
        type=int,
        default=0,
        metavar="NICE",
        help="nice value of all that takes part, such as -15 on a machine that does other things",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the operator's log there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
