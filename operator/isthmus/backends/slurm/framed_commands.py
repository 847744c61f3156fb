"""Commands in one framed bash call, and what is said of those that gave no answer.

Apart from what is asked of SLURM (`commands.py`) and of the work directory (`work_folder.py`):
complete means that all end marks are seen; whatever else came says nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from isthmus.api.reasons import Reason
from isthmus.api.texts import one_line
from isthmus.backends.slurm import parsing, reasons
from isthmus.backends.slurm.executor import CommandExecutor
from isthmus.backends.slurm.parsing import OutputError, Section
from isthmus.errors import SlurmUnavailableError
from isthmus.processes import TIMED_OUT_CODE, CommandResult

KILL_AFTER = 5.0
"""Seconds between TERM and KILL of a command at its limit, as in `parsing.framed`."""


def new_marker() -> str:
    """A word that nobody can guess, for the marks in and around an output."""
    return secrets.token_hex(8)


class FramedCommands:
    """Runs commands that only look, or that may be repeated."""

    def __init__(
        self,
        executor: CommandExecutor,
        *,
        timeout: float,
        marker: Callable[[], str] = new_marker,
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            executor: where the commands run.
            timeout: seconds for each command.
            marker: makes the unguessable word of the marks.
        """
        self._executor, self._timeout, self._marker = executor, timeout, marker

    async def run(
        self,
        commands: Sequence[Sequence[str]],
        *,
        check: bool = True,
        limit: float | None = None,
        stdin: str = "",
        marker: str = "",
    ) -> tuple[tuple[Section, ...], CommandResult]:
        """Run them in order, until one fails.

        Args:
            commands: argument vectors.
            check: whether a return code that is not 0 is an error.
            limit: seconds for each command, None for the usual ones.
            stdin: for the first command.
            marker: the word of the marks, "" for a new one.

        Raises:
            SlurmUnavailableError: an end mark is missing, or (with `check`) a return code is not 0.
        """
        marker = marker or self._marker()
        seconds = self._timeout if limit is None else limit
        try:
            result = await self._executor.run(
                parsing.framed(commands, marker=marker, limit=seconds),
                stdin=stdin,
                timeout=len(commands) * (seconds + KILL_AFTER) + KILL_AFTER,
            )
        except OSError as error:
            raise unavailable(Reason.COMMAND_NOT_FOUND, str(error)) from error
        if result.timed_out or result.returncode == TIMED_OUT_CODE:
            raise unavailable(Reason.COMMAND_TIMEOUT, "the commands were ended from outside")
        try:
            found = parsing.sections(result.stdout, marker=marker, count=len(commands))
        except OutputError as error:
            word = reasons.outage(result.stderr) or Reason.INCOMPLETE_OUTPUT
            text = f"{error} {one_line(result.stderr)}".strip()
            raise unavailable(word, text) from error
        for section in found:
            if check and section.returncode != 0:
                raise command_failed(section, result)
        return found, result


_NO_WORDS = {124: "no answer in time", 137: "no answer in time"}


def command_failed(section: Section, result: CommandResult) -> SlurmUnavailableError:
    """What is said of a command that ended with another code than 0."""
    text = one_line(result.stderr) or _NO_WORDS.get(
        section.returncode, f"return code {section.returncode}"
    )
    word = reasons.outage(result.stderr)
    if word is None:
        codes = {124: Reason.COMMAND_TIMEOUT, 137: Reason.COMMAND_TIMEOUT}
        codes |= {126: Reason.COMMAND_NOT_FOUND, 127: Reason.COMMAND_NOT_FOUND}
        word = codes.get(section.returncode, Reason.COMMAND_FAILED)
    return unavailable(word, text)


def unavailable(reason: Reason, text: str) -> SlurmUnavailableError:
    """An error that says what to do beside what was said."""
    return SlurmUnavailableError(f"{text} ({reasons.OUTAGE_ADVICE[reason]})", reason=reason)
