"""`isthmus`: the command line, also installed as a kubectl plugin (`kubectl isthmus`)."""

import typer

from isthmus import __version__
from isthmus.cli.crds import crds
from isthmus.cli.front import front
from isthmus.cli.reasons import reasons
from isthmus.cli.render import render
from isthmus.cli.run import run
from isthmus.cli.tunnels import tunnels
from isthmus.cli.validate import validate

app = typer.Typer(
    name="isthmus",
    help="Serve one ModelDeployment as vLLM pods on Kubernetes and as SGLang jobs on SLURM.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"isthmus {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Serve one ModelDeployment as vLLM pods on Kubernetes and as SGLang jobs on SLURM."""


app.command()(run)
app.command()(tunnels)
app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)(front)
app.command()(validate)
app.command()(render)
app.command()(crds)
app.command()(reasons)
