"""`isthmus run`: the operator itself, in the cluster or beside it.

Options cover what people set by hand; every setting also has an environment variable
(`ISTHMUS_…`), which is how a pod gets its settings.
"""

from typing import Annotated

import typer

from isthmus.cli.process import EXIT_USAGE, configure_logging, exit_code, pairs
from isthmus.cli.settings_help import describe_settings
from isthmus.errors import SettingsError
from isthmus.settings import Settings

_NO_ID = (
    "there is no installation id: write --installation-id, 8 characters of a-z and 0-9 that no "
    "other installation on the same SLURM account has, and keep them for the life of the "
    "installation. Jobs of releases that ran without one carry isthmus0: write that to go on with "
    "them."
)


def run(
    kubeconfig: Annotated[
        str | None,
        typer.Option(help="Kubeconfig file; default: the pod's service account, else $KUBECONFIG."),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context in the kubeconfig.")] = None,
    namespace: Annotated[
        str | None,
        typer.Option(help="The operator's own namespace [default: isthmus-system]."),
    ] = None,
    watch_namespace: Annotated[
        list[str] | None,
        typer.Option(help="Serve only this namespace; may be repeated [default: all]."),
    ] = None,
    installation_id: Annotated[
        str | None,
        typer.Option(
            help="8 characters a-z and 0-9 in the name of every SLURM job; never change it while "
            "jobs run. There is no default: two installations of one id on one SLURM account end "
            "each other's jobs."
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any setting by name, as --set relist-interval=1m; may be repeated. Names and "
            "meaning: `isthmus run --list-settings`.",
        ),
    ] = None,
    list_settings: Annotated[
        bool, typer.Option("--list-settings", help="Print every setting and exit.")
    ] = False,
) -> None:
    """Run the operator until it is stopped; it ends non-zero on any fatal error.

    Every setting can also be given as an environment variable: ISTHMUS_ and its name in capitals.
    """
    if list_settings:
        typer.echo(describe_settings())
        return
    try:
        settings = Settings.from_environment(
            None,
            **pairs(setting or [])
            | _given(
                kubeconfig=kubeconfig,
                context=context,
                namespace=namespace,
                watch_namespaces=tuple(watch_namespace) if watch_namespace else None,
                installation_id=installation_id,
            ),
        )
        if not settings.installation_id:
            raise SettingsError(_NO_ID)
    except SettingsError as error:
        typer.echo(f"isthmus run: {error}", err=True)
        raise typer.Exit(EXIT_USAGE) from None
    configure_logging(log_format=settings.log_format, log_level=settings.log_level)
    # Imported here, so that `isthmus --help` and `validate` do not load kopf and the client.
    from isthmus.application import run as run_operator

    raise typer.Exit(exit_code(lambda: run_operator(settings), command="isthmus run"))


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}
