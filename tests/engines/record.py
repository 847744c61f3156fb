"""What became of each row: kept in the cache, so that a run goes on where one ended, and written as
the table of docs/engines.md.

A row that passed counts as long as nothing that it shows has changed: the operator, the playground,
the versions of the engines and the row's own text.
"""

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from playground.commands import run
from tests.engines import environment
from tests.engines.rows import ROWS, SITES, Row

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = REPOSITORY / "docs" / "engines.md"
BEGIN, END = "<!-- rows: written by `make engines` -->\n", "<!-- end of rows -->"
SHOWN = ("operator", "playground", "charts", "crds", "deploy")
NAMES = {"vllm": "vLLM", "sglang": "SGLang"}
MOST_LETTERS = 160


@dataclass(frozen=True, slots=True)
class Result:
    """One row on one site.

    Attributes:
        problem: "" if it passed.
        seconds: of the whole row, with all that it waited for.
        note: a word of what was measured.
        date: day and minute, UTC.
        logs: folder of what was kept of a failed row.
        state: `key` of what it was run with.
        commit: of the working tree; with a + where files of it were changed.
    """

    problem: str
    seconds: float
    note: str
    date: str
    logs: str
    state: str = ""
    commit: str = ""


class Record:
    """All results, by `SITE ROW`."""

    def __init__(self, cache: Path) -> None:
        self._path = cache / "engines-results.json"
        self._results = self._read()

    def _read(self) -> dict[str, Result]:
        if not self._path.exists():
            return {}
        plain = json.loads(self._path.read_text(encoding="utf-8"))
        return {name: Result(**one) for name, one in plain.items()}

    def get(self, site: str, row: str) -> Result | None:
        """The last result, None where there is none."""
        return self._results.get(f"{site} {row}")

    def put(self, site: str, row: str, result: Result) -> None:
        """Keep a result, and write it down at once."""
        self._results = self._read() | {f"{site} {row}": result}  # another run may write too
        plain = {name: dataclasses.asdict(one) for name, one in sorted(self._results.items())}
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
        fresh.rename(self._path)

    def passed(self, site: str, row: Row) -> bool:
        """Whether it has passed with all as it is now."""
        known = self.get(site, row.name)
        return known is not None and not known.problem and known.state == key(row)

    def write(self, document: Path = DOCUMENT) -> None:
        """Put the table between its marks."""
        text = document.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        document.write_text(f"{before}{BEGIN}{self.table()}\n{END}{after}", encoding="utf-8")

    def table(self) -> str:
        """The rows that have been run, as markdown; says of each with which commit."""
        found = {(s, r.name): known for s in SITES for r in ROWS if (known := self.get(s, r.name))}
        dates = sorted(result.date for result in found.values())
        said = ", ".join(f"{name} {version}" for name, version in versions().items())
        span = f"{dates[0]} to {dates[-1]} UTC" if dates else "never"
        lines = [
            f"Run from {span}. {said}.",
            "",
            f"| what holds | {' | '.join(map(_title, SITES))} |",
            f"| --- |{' --- |' * len(SITES)}",
        ]
        for row in ROWS:
            cells = [_cell(row, site, found.get((site, row.name))) for site in SITES]
            lines.append(f"| {row.promise} | {' | '.join(cells)} |")
        failed = [(at, result) for at, result in found.items() if result.problem]
        if failed:
            lines += ["", "What failed says:", ""]
        lines += [
            f"* {_title(site)}, *{row.replace('_', ' ')}*: {_short(result.problem)}"
            for (site, row), result in failed
        ]
        return "\n".join(lines) + "\n"


def _title(site: str) -> str:
    engine, _, scheduler = site.partition("-")
    return f"{NAMES[engine]} {scheduler}"


def _cell(row: Row, site: str, result: Result | None) -> str:
    if site not in row.sites:
        return ""
    if result is None:
        return "not run"
    said = "FAILED" if result.problem else "ok"
    note = f", {result.note}" if result.note else ""
    return f"{said}{note} ({result.seconds:.0f} s, {result.commit})"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_LETTERS else f"{line[:MOST_LETTERS]}…"


def key(row: Row) -> str:
    """Changes with everything that a row shows."""
    digest = hashlib.sha256(environment.REQUIREMENTS.read_bytes())
    digest.update(inspect.getsource(row.check).encode())
    for path in _files(SHOWN):
        digest.update(str(path.relative_to(REPOSITORY)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _files(folders: Iterable[str]) -> list[Path]:
    found = (path for folder in folders for path in (REPOSITORY / folder).rglob("*"))
    return sorted(p for p in found if p.is_file() and "__pycache__" not in p.parts)


def commit() -> str:
    """The working tree's commit, with a + where it is not that commit alone."""
    git = ["git", "-C", REPOSITORY]
    head = run([*git, "rev-parse", "--short", "HEAD"], check=False).stdout.strip() or "unknown"
    changed = run([*git, "status", "--porcelain", "--", *SHOWN, "tests/engines"], check=False)
    return f"{head}+" if changed.stdout.strip() else head


def versions() -> dict[str, str]:
    """What was served, and on what."""
    pins = environment.versions()
    return {"vLLM": pins["vllm"], "SGLang": pins["sglang"], "torch": pins["torch"]} | {
        "Python": ".".join(map(str, environment.PYTHON_VERSION))
    }
