"""What holds in every layer: how properties run, and that nothing is built inside a test."""

import os

import pytest
from hypothesis import HealthCheck, settings

from playground.config import Config
from playground.errors import PlaygroundError
from playground.prepare import PROGRAMS, prepare
from playground.progress import Progress, warn

# Always the same examples: an unrelated change must not turn red. `make soak` draws others. And no
# time limits, which a busy machine breaks.
TIMELESS = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("fixed", derandomize=True, **TIMELESS)
settings.register_profile("random", **TIMELESS)
settings.load_profile(os.environ.get("ISTHMUS_EXAMPLES", "fixed"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """For `pytest tests/real/test_x.py` alone; `make test` has prepared everything before.

    A test's time limit counts its fixtures, so what takes minutes is built here.
    """
    if session.config.option.collectonly or os.environ.get("ISTHMUS_PREPARED"):
        return
    layers = {item.path.parent.name for item in session.items}
    try:
        if "real" in layers:
            prepare(Config(), Progress(), quiet=True)
        elif "contract" in layers:
            prepare(Config(), Progress(), only=PROGRAMS, quiet=True)
    except PlaygroundError as error:
        warn(f"not everything that tests need is there: {error}")
