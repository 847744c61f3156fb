"""The pytest plug-in of a lane: tells the runner, line by line, what happens (`tests/run.py`).

Each line is a JSON object with the key `event`: `collected`, `start`, `test` or `broken`.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.account import Account
from tests.lanes import TESTS

EVENTS = "ISTHMUS_TEST_EVENTS"
GROUP = "ISTHMUS_TEST_GROUP"
TEXT = 20_000  # characters of a failure that are told


class Teller:
    """Writes the events of one pytest run."""

    def __init__(self, path: Path, *, account: Account) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._account = account
        self._outcomes: dict[str, tuple[str, str]] = {}
        self._figures: dict[str, str] = {}
        self._used = 0.0

    def tell(self, event: str, **fields: object) -> None:
        self._file.write(json.dumps({"event": event, **fields}) + "\n")

    def _since_last(self) -> float:
        former, self._used = self._used, self._account.seconds()
        return round(self._used - former, 3)

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Iterator[pytest.CollectReport]:
        report: pytest.CollectReport = yield
        if report.failed:
            module, text = _module(collector.path), report.longreprtext[-TEXT:]
            self.tell("broken", id=module, module=module, text=text)
        return report

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        modules = Counter(_module(item.path) for item in session.items)
        self.tell("collected", modules=modules, cpu=self._since_last())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        begin = time.monotonic()
        self.tell("start", id=item.nodeid, module=_module(item.path))
        try:
            return (yield)
        finally:
            outcome, text = self._outcomes.pop(item.nodeid, ("failed", "the run was interrupted"))
            self.tell(
                "test",
                id=item.nodeid,
                module=_module(item.path),
                outcome=outcome,
                text=text,
                figures=self._figures.pop(item.nodeid, ""),
                wall=round(time.monotonic() - begin, 3),
                cpu=self._since_last(),
            )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The worst of setup, call and teardown is the test's outcome; texts are put together."""
        if report.user_properties:
            said = [f"{name} {value}" for name, value in report.user_properties]
            self._figures[report.nodeid] = ", ".join(said)
        former, text = self._outcomes.get(report.nodeid, ("passed", ""))
        if report.failed:
            said = f"{report.when}:\n{report.longreprtext}"
            self._outcomes[report.nodeid] = ("failed", f"{text}\n{said}".strip()[-TEXT:])
        elif report.skipped and former == "passed":
            where = report.longrepr
            reason = where[2] if isinstance(where, tuple) else str(where or "")
            self._outcomes[report.nodeid] = ("skipped", reason[-TEXT:])
        elif report.when != "setup":  # or a test that is interrupted would have passed
            self._outcomes[report.nodeid] = (former, text)


def _module(path: Path) -> str:
    """The name of a module: its path below tests/."""
    return str(path.relative_to(TESTS)) if path.is_relative_to(TESTS) else str(path)


def pytest_configure(config: pytest.Config) -> None:
    if path := os.environ.get(EVENTS):
        group = os.environ.get(GROUP)
        account = Account(Path(group) if group else None)
        config.pluginmanager.register(Teller(Path(path), account=account), "isthmus-teller")
