"""The list of all settings with their meaning, read from the docstrings of the record's fields.

Apart from `run`, so that the list cannot differ from the record: there is nothing to keep in step.
"""

import ast
import dataclasses
import inspect
import textwrap

from isthmus.settings import PREFIX, Settings

_WIDTH = 96


def describe_settings(record: type = Settings, *, prefix: str = PREFIX) -> str:
    """Every setting: name, variable, default, and what it means.

    Args:
        record: a dataclass with a docstring after each field.
        prefix: of the environment variables.
    """
    meanings = _docstrings(record)
    blocks = []
    for field in dataclasses.fields(record):
        default = "" if field.default is dataclasses.MISSING else f" [default: {field.default}]"
        head = f"{field.name.replace('_', '-')}  ({prefix}{field.name.upper()}){default}"
        body = textwrap.fill(
            meanings.get(field.name, ""), _WIDTH, initial_indent="    ", subsequent_indent="    "
        )
        blocks.append(f"{head}\n{body}")
    return "\n".join(blocks)


def _docstrings(record: type) -> dict[str, str]:
    """Field name to the string literal that follows it in the class body."""
    body = ast.parse(textwrap.dedent(inspect.getsource(record))).body[0]
    if not isinstance(body, ast.ClassDef):
        raise TypeError(f"{record} is a class")
    found = {}
    for statement, after in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            found[statement.target.id] = " ".join(after.value.value.split())
    return found
