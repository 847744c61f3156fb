"""Scripts in pods: short, still to be read, and the same program."""

import ast

import pytest

from isthmus.backends.kubernetes import firstprocess, prestop
from isthmus.backends.kubernetes.script_text import script_text

SOURCE = '''"""What it is for."""

LIMIT: int = 3
"""Of what."""

class Load(tuple):
    """A load."""

    held: int

def add(left: int, *, right: "int" = 1) -> int:
    """Add."""
    # As everybody would.
    if left:
        return left + right  # always
    return right

def nothing() -> None:
    """Do nothing."""
'''


def test_what_only_authors_need_is_left_out() -> None:
    assert script_text(SOURCE).splitlines() == [
        "LIMIT: int = 3",
        "",
        "class Load(tuple):",
        " held: int",
        "",
        "def add(left, *, right=1):",
        " if left:",
        "  return left + right",
        " return right",
        "",
        "def nothing():",
        " pass",
    ]


@pytest.mark.parametrize("script", [prestop.SCRIPT, firstprocess.SCRIPT])
def test_a_pod_carries_little_that_kubernetes_would_not_change(script: str) -> None:
    """The kubelet replaces `$(NAME)` and `$$`; every pod and revision holds the text."""
    ast.parse(script, feature_version=(3, 8))
    assert "$(" not in script
    assert "$$" not in script
    assert len(script) < 4_000
    assert script == script_text(script)
