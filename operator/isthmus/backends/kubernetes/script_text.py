"""The text of a script as it stands in a pod: what its interpreter reads, and can still be read.

Every Deployment, ReplicaSet, pod and frozen revision carries the scripts, and every watch of these
delivers them. Without docstrings, comments, annotations and three of four spaces they are 6 kB
instead of 10. Not packed any further: what runs in other people's pods is there to be read, and a
decoded text that is executed is what intrusion detection looks for.
"""

import ast
import re

_INDENT = 4


def script_text(source: str) -> str:
    """A program's text without what only its authors need.

    Args:
        source: Python. Annotations of a class's fields stay, for they make the fields.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [each for each in node.body if not _is_text(each)] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return re.sub(
        "^ +", lambda spaces: " " * (len(spaces[0]) // _INDENT), ast.unparse(tree), flags=re.M
    )


def _is_text(statement: ast.stmt) -> bool:
    """A docstring, of whatever it is."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
