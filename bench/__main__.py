"""`python -m bench`: start a playground, measure, print the table, take everything away."""

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from bench.handover import measure_handovers
from bench.idle import measure_idle
from bench.lab import Lab
from bench.report import Report, console_tables, markdown
from bench.startup import measure_startup
from playground.cluster import Config, Playground
from playground.errors import PlaygroundError
from playground.operator_process import Operator
from playground.progress import Progress


def main() -> int:
    """Run everything; 1 where the playground or a measurement fails."""
    options = _options()
    state = Path(tempfile.mkdtemp(prefix="isthmus-bench-", dir="/var/tmp"))
    state.chmod(0o755)
    progress = Progress()
    report = Report(command=shlex.join(["python", "-m", "bench", *sys.argv[1:]]), runs=options.runs)
    try:
        with Playground(Config(state=state, instance=None), progress=progress) as playground:
            settings = ["liveness-port=0", *options.set]
            operator = Operator(
                playground,
                arguments=[word for each in settings for word in ("--set", each)],
                installation_id="benchmrk",
            )
            lab = Lab(playground, operator)
            lab.start()
            try:
                report.comparisons = measure_startup(lab, runs=options.runs)
                report.idles = measure_idle(lab, seconds=options.idle_seconds)
                with progress.step("hand-overs"):
                    report.handovers = measure_handovers(playground, operator, runs=options.runs)
            finally:
                operator.stop()
    except PlaygroundError as error:
        progress.note(f"bench: {error}")
        return 1
    console = Console()
    for table in console_tables(report):
        console.print(table)
    if options.markdown:
        options.markdown.write_text(markdown(report), encoding="utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each start and scaling")
    parser.add_argument("--idle-seconds", type=float, default=60.0, help="length of each idle look")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="setting of `isthmus run`"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
