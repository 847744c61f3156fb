"""`isthmus tunnels`: the tunnel supervisor, in the cluster or beside it.

Its settings are its own (`ISTHMUS_TUNNELS_…`): it is a process of its own, which an upgrade of the
operator leaves alone.
"""

from typing import Annotated

import typer

from isthmus.cli.process import EXIT_USAGE, configure_logging, exit_code, pairs
from isthmus.cli.settings_help import describe_settings
from isthmus.errors import SettingsError
from isthmus.tunnels.settings import PREFIX, TunnelSettings


def tunnels(
    kubeconfig: Annotated[
        str | None,
        typer.Option(help="Kubeconfig file; default: the pod's service account, else $KUBECONFIG."),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context in the kubeconfig.")] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Address to listen on, which pods can reach [default: $POD_IP]."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any setting by name, as --set check-interval=2s; may be repeated. Names and "
            "meaning: `isthmus tunnels --list-settings`.",
        ),
    ] = None,
    list_settings: Annotated[
        bool, typer.Option("--list-settings", help="Print every setting and exit.")
    ] = False,
) -> None:
    """Hold the forwards to workers that pods cannot reach, until it is stopped.

    Told to end, it waits for a successor and for open connections first.
    """
    if list_settings:
        typer.echo(describe_settings(TunnelSettings, prefix=PREFIX))
        return
    given = {"kubeconfig": kubeconfig, "context": context, "address": address}
    try:
        settings = TunnelSettings.from_environment(
            None,
            **pairs(setting or []) | {name: v for name, v in given.items() if v is not None},
        )
    except SettingsError as error:
        typer.echo(f"isthmus tunnels: {error}", err=True)
        raise typer.Exit(EXIT_USAGE) from None
    configure_logging(log_format=settings.log_format, log_level=settings.log_level)
    # Imported here, so that `isthmus --help` does not load kopf and the client.
    from isthmus.tunnels.application import run

    raise typer.Exit(exit_code(lambda: run(settings), command="isthmus tunnels"))
