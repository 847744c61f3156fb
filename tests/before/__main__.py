"""`python -m tests.before [COMMIT]`: every finding, on the commit it was found in and here.

Ends with 1 where a fault is here, where one is not there on that commit, or where an answer is
missing.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from bench.against import worktree
from tests.before.answers import FOUND_IN, Answers, answers, problems


def table(found: Iterable[Answers], *, commit: str) -> Table:
    """A row for each question."""
    made = Table(title=f"Findings on {commit} and here", title_justify="left")
    for head in ("finding", "fault", commit, "here"):
        made.add_column(head)
    for one in found:
        made.add_row(one.finding.id, one.finding.fault, one.before, one.here)
    return made


def main() -> int:
    """Ask and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.before", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("commit", nargs="?", default=FOUND_IN, help="(%(default)s)")
    parser.add_argument("--only", default="", metavar="ID,...", help="ids of findings (all)")
    options = parser.parse_args()
    only = frozenset(options.only.split(",")) - {""}
    try:
        with worktree(options.commit) as other:
            found = answers(other, only=only)
    except subprocess.CalledProcessError as error:
        print(f"git gives no tree of {options.commit} (is this a clone with its history?)")
        print(error.stderr.decode(errors="replace").strip())
        return 2
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table(found, commit=options.commit))
    wrong = problems(found)
    for line in wrong:
        print(line)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
