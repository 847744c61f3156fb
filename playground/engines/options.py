"""The command lines of `vllm serve` and `sglang serve`, as their own parsers take them.

The option tables in `data/` are condensed from the engines' parsers (see their headers); this
module turns a table into an argparse parser, so that unknown options, bad numbers, unknown choices
and abbreviations are treated as by the engines, which use argparse too.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data"

_NARGS: dict[str, str | None] = {"one": None, "optional": "?", "many": "+", "any": "*"}
_DECIMAL = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_NUMBER_WITH_SUFFIX = re.compile(r"\b\d+(?:\.\d+)?[kKmMgGtT]\b")


@dataclass(frozen=True, slots=True)
class Option:
    """One row of an option table: names, kind (number of values), type and choices."""

    names: tuple[str, ...]
    kind: str
    type: str
    choices: tuple[str, ...]

    @property
    def dest(self) -> str:
        """Name of the attribute that argparse sets."""
        long = next(name for name in self.names if name.startswith("--"))
        return long.removeprefix("--").replace("-", "_")


def read_table(engine: str) -> tuple[Option, ...]:
    """Read the option table of an engine, `vllm` or `sglang`."""
    options = []
    for line in (DATA / f"{engine}-options.tsv").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            names, kind, value_type, choices = line.split("\t")
            allowed = () if choices == "-" else tuple(choices.split(","))
            options.append(Option(tuple(names.split()), kind, value_type, allowed))
    return tuple(options)


class _FlagPair(argparse.Action):
    """A flag with its negative: the first long name and short names set it, the others clear it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Store whether the positive name was used."""
        longs = [name for name in self.option_strings if name.startswith("--")]
        setattr(namespace, self.dest, option_string not in longs[1:])


def human_readable_int(text: str) -> int:
    """Read 1k, 1K (1024), 25.6k, 2M (of 2**20) as vLLM does."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT])", text.strip())
    if match is None:
        return int(text)
    number, suffix = match.groups()
    if suffix in _BINARY:
        return int(number) * _BINARY[suffix]
    return int(float(number) * _DECIMAL[suffix])


def human_readable_int_or_auto(text: str) -> int:
    """Read also -1 and auto, both -1."""
    return -1 if text.strip().lower() in ("-1", "auto") else human_readable_int(text)


def _sglang_integer(text: str) -> int:
    """Read 1k, 1M (SI) and 1Ki, 1Mi (IEC) as SGLang does."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(Ki|Mi|Gi|Ti|k|M|G|T)", text.strip())
    if match is None:
        try:
            return int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"Invalid integer value: '{text}'.") from None
    number, suffix = match.groups()
    if suffix.endswith("i"):
        return int(number) * _BINARY[suffix[0].upper()]
    return int(float(number) * _DECIMAL[suffix])


def _json(text: str) -> object:
    parts = re.split(r'("(?:[^"\\]|\\.)*")', text)
    parts[::2] = [_NUMBER_WITH_SUFFIX.sub("0", part) for part in parts[::2]]
    try:
        json.loads("".join(parts))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"Value {text} cannot be converted: {error}") from None
    return text


_CONVERTERS: dict[str, dict[str, Callable[[str], object]]] = {
    "vllm": {"human": human_readable_int, "human-auto": human_readable_int_or_auto},
    "sglang": {"human": _sglang_integer},
}
_COMMON: dict[str, Callable[[str], object]] = {
    "str": str,
    "int": int,
    "float": float,
    "json": _json,
}


def build_parser(engine: str, *, prog: str, epilog: str) -> argparse.ArgumentParser:
    """Make the parser of an engine; every option not given is None (flags: False)."""
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} [options]",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    converters = _COMMON | _CONVERTERS[engine]
    for option in read_table(engine):
        if option.kind == "flag":
            parser.add_argument(*option.names, action="store_true", dest=option.dest)
        elif option.kind == "pair":
            parser.add_argument(*option.names, action=_FlagPair, nargs=0, dest=option.dest)
        else:
            choices = [converters[option.type](choice) for choice in option.choices]
            parser.add_argument(
                *option.names,
                dest=option.dest,
                nargs=_NARGS[option.kind],
                type=converters[option.type],
                choices=choices or None,
                metavar=option.dest.upper() if not choices else None,
            )
    return parser


def normalize_vllm(argv: Sequence[str]) -> list[str]:
    """Apply what vLLM's parser does before argparse.

    Underscores in option names become dashes, `-O3` becomes `--optimization-level 3`, and
    `--config.key value` is taken as a JSON object for `--config`. `--model M` becomes the
    positional argument.
    """
    out: list[str] = []
    words = iter(argv)
    for word in words:
        if re.fullmatch(r"-O=?\d", word):
            out += ["--optimization-level", word[-1]]
        elif not word.startswith("--"):
            out.append(word)
        else:
            out += _normalize_long(word, words)
    return out


def _normalize_long(word: str, rest: Iterable[str]) -> list[str]:
    name, equals, value = word.partition("=")
    base, dot, key = name.partition(".")
    base = base.replace("_", "-")
    if not dot:
        return [base + equals + value]
    if not equals:
        value = next(iter(rest), "")
    return [base, json.dumps({key: value})]
