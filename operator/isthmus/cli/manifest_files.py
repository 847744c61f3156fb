"""What a file argument stands for: a file, a folder of them, or standard input."""

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import typer

T = TypeVar("T")

HELP: Final = "Manifests, folders of manifests, or - for standard input."
_SUFFIXES: Final = (".yaml", ".yml", ".json")


def texts(path: Path) -> Iterator[tuple[str, str]]:
    """Yield name and content of each file that a path stands for.

    Raises:
        typer.BadParameter: it cannot be read; says why.
    """
    if str(path) == "-":
        yield "<stdin>", _read(path, lambda: sys.stdin.buffer.read().decode())
        return
    names = [path]
    if path.is_dir():
        found = _read(path, lambda: list(path.iterdir()))
        names = sorted(one for one in found if one.suffix in _SUFFIXES)
        if not names:
            raise typer.BadParameter(f"{path} holds no {', '.join(_SUFFIXES)} files")
    for name in names:
        yield str(name), _read(name, functools.partial(name.read_text, encoding="utf-8"))


def _read(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except FileNotFoundError:
        raise typer.BadParameter(f"there is no file {path}") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{path} cannot be read: it is no text in UTF-8") from None
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise typer.BadParameter(f"{path} cannot be read: {why}") from None
