"""`isthmus validate`: refuses offline what the API server would refuse."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, cast

import typer

from isthmus.api.crd import KINDS, object_schema
from isthmus.api.names import API_VERSION, GROUP
from isthmus.api.texts import cut, one_line, printable
from isthmus.cli.manifest_files import HELP, texts
from isthmus.cli.manifests import Document, ManifestError, documents, path_text
from isthmus.cli.schema_check import Problem, check

_LONGEST: Final = 600
"""Characters of a message, and of a path: what is repeated in one may be anything."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of output: a problem, a note, or that an object is valid."""

    line: int
    text: str
    is_problem: bool = False


def validate(
    files: Annotated[
        list[Path],
        typer.Argument(help=HELP),
    ],
) -> None:
    """Check manifests against the schema and rules of the kinds, without a cluster."""
    problems = 0
    for path in files:
        for name, text in texts(path):
            for finding in findings(text):
                problems += finding.is_problem
                typer.echo(f"{name}:{finding.line}: {finding.text}", err=finding.is_problem)
    if problems:
        typer.echo(f"{problems} problem{'s' if problems > 1 else ''}", err=True)
        raise typer.Exit(1)


def findings(text: str) -> Iterator[Finding]:
    """Yield what there is to say about a file's objects, in the order of its lines."""
    try:
        for document in documents(text):
            yield from _document(document)
    except ManifestError as error:
        yield Finding(error.line, str(error), is_problem=True)


def _document(document: Document) -> Iterator[Finding]:
    value = document.value if isinstance(document.value, dict) else {}
    kind, version = value.get("kind"), value.get("apiVersion")
    metadata = value.get("metadata")
    name = one_line(str(metadata.get("name", ""))) if isinstance(metadata, dict) else None
    title = one_line(str(kind)) if name is None else f'{kind} "{name}"'
    if not (kind and version and isinstance(kind, str) and isinstance(version, str)):
        yield Finding(
            document.line, "an object needs apiVersion and kind, two texts", is_problem=True
        )
    elif version.partition("/")[0] != GROUP:
        yield Finding(document.line, f"note: {title} is not a kind of {GROUP}: skipped")
    elif version != API_VERSION or kind not in _SCHEMAS:
        known = ", ".join(_SCHEMAS)
        yield Finding(
            document.line,
            f"{version} {kind} does not exist: write {API_VERSION} and one of {known}",
            is_problem=True,
        )
    else:
        problems = sorted(_problems(document, kind), key=lambda one: one.line)
        yield from problems or [Finding(document.line, f"{title} is valid")]


def _problems(document: Document, kind: str) -> Iterator[Finding]:
    for path, line in document.repeated.items():
        yield Finding(line, f"{path_text(path)}: this field is written twice", is_problem=True)
    for problem in dict.fromkeys(check(document.value, _SCHEMAS[kind])):
        yield Finding(document.line_of(problem.path), _text(problem), is_problem=True)


def _text(problem: Problem) -> str:
    where = path_text(problem.path)
    message = cut(printable(problem.message), limit=_LONGEST)
    return f"{cut(printable(where), limit=_LONGEST)}: {message}" if where else message


_SCHEMAS: Final = {
    kind.name: cast(Mapping[str, object], object_schema(kind.model)) for kind in KINDS
}
