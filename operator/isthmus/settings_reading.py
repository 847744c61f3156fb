"""Reads a record of settings from the environment and the command line, by the types of its fields.

Apart from the records: the operator and the tunnel supervisor are processes of their own with
settings of their own, and both are read and refused in the same words.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from isthmus.errors import SettingsError

NUMBER: Final = {"unit": "number"}
"""Metadata of a field whose float is not a time."""

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

Record = TypeVar("Record")


def read_settings(
    record: Callable[..., Record],
    *,
    prefix: str,
    environ: Mapping[str, str],
    overrides: Mapping[str, object],
    defaults: Mapping[str, object] | None = None,
) -> Record:
    """Make a record of settings.

    Args:
        record: a frozen dataclass of texts, words (Literal), lists of texts, booleans,
            whole numbers (0 is None where the type has it) and seconds.
        prefix: of the environment variables; the rest is the field's name in capitals.
        environ: the environment; an empty variable is not set.
        overrides: fields from the command line, which come first; None means not given. A text is
            read as the variable would be.
        defaults: in place of those of the record.

    Raises:
        SettingsError: a value is wrong; says which and what to write.
    """
    types = get_type_hints(record)
    fields = {each.name: each for each in dataclasses.fields(record)}  # type: ignore[arg-type]
    unknown = sorted(overrides.keys() - fields.keys())
    if unknown:
        raise SettingsError(f"There is no setting {', '.join(unknown)}.")
    values = dict(defaults or {})
    for name in sorted(fields):
        variable, given = prefix + name.upper(), overrides.get(name)
        number = fields[name].metadata == NUMBER
        if isinstance(given, str):
            where = f"--{name.replace('_', '-')}"
            values[name] = _read(types[name], given, where=where, number=number)
        elif given is not None:
            values[name] = given
        elif text := environ.get(variable):
            values[name] = _read(types[name], text, where=variable, number=number)
    return record(**values)


def read_seconds(text: str, *, where: str) -> float:
    """Read a duration such as 30s, 5m or 1.5h; a bare number is seconds.

    Raises:
        SettingsError: it is none; `where` says which setting.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise SettingsError(f"{where} is {text!r}; write a duration such as 30s, 5m or 1.5h.")
    return float(match[1]) * _UNITS[match[2] or "s"]


def _read(kind: object, text: str, *, where: str, number: bool) -> object:
    text, optional = text.strip(), False
    if get_origin(kind) in (Union, UnionType):
        optional = NoneType in get_args(kind)
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
    if kind is str:
        return text
    if kind is bool:
        return _read_boolean(text, where=where)
    if kind is int:
        return _read_integer(text, where=where) or (None if optional else 0)
    if kind is float:
        return _read_number(text, where=where) if number else read_seconds(text, where=where)
    if get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if get_origin(kind) is Literal:
        return _read_word(text, get_args(kind), where=where)
    raise TypeError(f"{where}: no reader for {kind}")


def _read_boolean(text: str, *, where: str) -> bool:
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise SettingsError(f"{where} is {text!r}; write true or false.")


def _read_integer(text: str, *, where: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise SettingsError(f"{where} is {text!r}; write a whole number.")
    return int(text)


def _read_number(text: str, *, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SettingsError(f"{where} is {text!r}; write a number.") from None


def _read_word(text: str, words: tuple[str, ...], *, where: str) -> str:
    if text.lower() in words:
        return text.lower()
    *others, last = words
    raise SettingsError(f"{where} is {text!r}; write {', '.join(others)} or {last}.")
