"""What the commands that run until they are stopped share: their settings, log and exit code.

Apart from the commands, of which one is the operator and one is the tunnel supervisor.
"""

import asyncio
import gc
import json
import logging
import sys
from collections.abc import Callable, Coroutine
from typing import Final

import typer

from isthmus.errors import IsthmusError, SettingsError

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2

_log = logging.getLogger("isthmus")


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


def exit_code(run: Callable[[], Coroutine[None, None, None]], *, command: str) -> int:
    """Run until it ends; 0, or 2 for settings that cannot be, or 1 for any other end."""
    try:
        return _outcome(run, command=command)
    finally:
        # Python looks through all objects once more at its exit: a second or two for nothing.
        gc.freeze()


def _outcome(run: Callable[[], Coroutine[None, None, None]], *, command: str) -> int:
    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        return 0
    except SettingsError as error:
        typer.echo(f"{command}: {error}", err=True)
        return EXIT_USAGE
    except IsthmusError as error:
        _log.error("Ending: %s", error)
        return EXIT_FAILURE
    except Exception:
        _log.exception("Ending after an unexpected error; a restart continues")
        return EXIT_FAILURE
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
