"""What a lane found, as records: of each test, of each module, and how it ended."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Module:
    """What was seen of one module."""

    name: str
    expected: int = 0
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    wall: float = 0.0
    cpu: float = 0.0

    @property
    def done(self) -> int:
        return self.passed + self.failed + self.skipped


@dataclass(frozen=True, slots=True)
class Failure:
    """A test that failed, or what ended a lane."""

    id: str
    text: str
    log: Path


@dataclass(frozen=True, slots=True)
class Ran:
    """One test that was run.

    `figures` are what it recorded (pytest's record_property), `reason` is why it was skipped.
    """

    id: str
    outcome: str
    wall: float
    cpu: float
    figures: str
    reason: str = ""


@dataclass(slots=True)
class Result:
    """How a lane ended."""

    lane: str
    modules: dict[str, Module] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    tests: list[Ran] = field(default_factory=list)
    start: float = 0.0  # processor seconds before the first test
    counted: bool = True  # by a control group: with daemons
