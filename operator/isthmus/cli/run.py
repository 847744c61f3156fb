"""`isthmus run`: the operator itself, in the cluster or beside it.

Options cover what people set by hand; every setting also has an environment variable
(`ISTHMUS_…`), which is how a pod gets its settings.
"""

import asyncio
import json
import logging
import sys
from typing import Annotated

import typer

from isthmus.cli.settings_help import describe_settings
from isthmus.errors import IsthmusError, SettingsError
from isthmus.settings import Settings

_EXIT_FAILURE = 1
_EXIT_USAGE = 2

_log = logging.getLogger("isthmus")


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
            "jobs run [default: isthmus0]."
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
    except SettingsError as error:
        typer.echo(f"isthmus run: {error}", err=True)
        raise typer.Exit(_EXIT_USAGE) from None
    configure_logging(log_format=settings.log_format, log_level=settings.log_level)
    raise typer.Exit(_run(settings))


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def pairs(texts: list[str]) -> dict[str, object]:
    """NAME=VALUE texts as names of fields and values.

    Raises:
        SettingsError: a text has another form.
    """
    pairs: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise SettingsError(f"--set {text}: write --set NAME=VALUE, as relist-interval=1m.")
        pairs[name.replace("-", "_")] = value
    return pairs


def _run(settings: Settings) -> int:
    # Imported here, so that `isthmus --help` and `validate` do not load kopf and the client.
    from isthmus.application import run as run_operator

    try:
        asyncio.run(run_operator(settings))
    except KeyboardInterrupt:
        return 0
    except SettingsError as error:
        typer.echo(f"isthmus run: {error}", err=True)
        return _EXIT_USAGE
    except IsthmusError as error:
        _log.error("Ending: %s", error)
        return _EXIT_FAILURE
    except Exception:
        _log.exception("Ending after an unexpected error; a restart continues")
        return _EXIT_FAILURE
    return 0


class _JsonFormatter(logging.Formatter):
    """One JSON object a line, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
        entry = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure_logging(*, log_format: str, log_level: str) -> None:
    """Log to standard error in the wanted format."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=log_level.upper(), handlers=[handler], force=True)
    # One line per request or per liveness probe would bury what matters.
    for name in ("httpx", "httpcore", "aiohttp.access", "kopf.activities.probe"):
        logging.getLogger(name).setLevel(logging.WARNING)
