"""What no test of an edge may leave behind."""

from collections.abc import Iterator

import pytest

from tests.pendingtasks import no_task_is_lost


@pytest.fixture(autouse=True)
def _no_task_is_lost() -> Iterator[None]:
    with no_task_is_lost():
        yield
