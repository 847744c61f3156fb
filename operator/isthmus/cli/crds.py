"""`isthmus crds`: writes the CustomResourceDefinitions."""

from pathlib import Path
from typing import Annotated

import typer

from isthmus.api.crd import KINDS, as_yaml, custom_resource_definition, file_name


def crds(
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory",
            "-d",
            help="Write one file per kind into this folder instead of printing them.",
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Print the CustomResourceDefinitions, for example for `isthmus crds | kubectl apply -f -`."""
    if directory is None:
        typer.echo(
            "---\n".join(as_yaml(custom_resource_definition(kind)) for kind in KINDS), nl=False
        )
        return
    directory.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        path = directory / file_name(kind)
        path.write_text(as_yaml(custom_resource_definition(kind)), encoding="utf-8")
        typer.echo(str(path))
