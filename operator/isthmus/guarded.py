"""What a task says that failed over somebody's input, and goes on.

Apart, because it is a rule for every such task: only a lost lease ends the process. The text of an
exception is not in it, for a library may quote in it what it was given, and that may be a Secret.
"""

import traceback

from pydantic import ValidationError


def where(error: BaseException) -> str:
    """The kinds of an exception and of its causes, and the lines that it came through, no texts."""
    kinds: list[str] = []
    current = error
    while len(kinds) < 8:
        kinds.append(type(current).__name__)
        cause = current.__cause__ or current.__context__
        if cause is None:
            break
        current = cause
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    lines = "\n".join(f"  {frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    return f"{' from '.join(kinds)}\n{lines}"


def unreadable(error: ValueError) -> str:
    """Why an object cannot be read: which fields, and what they should be; never what they hold."""
    if not isinstance(error, ValidationError):
        return str(error)  # of our own rules, which name fields
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in found[:5])
