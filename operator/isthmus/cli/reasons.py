"""`isthmus reasons`: what each reason means, and what to do."""

from typing import Annotated

import typer

from isthmus.api.reason_texts import PARTS, Text
from isthmus.api.reasons import Reason

_HEAD = """\
# Reasons

Every word that Isthmus gives as the reason of a condition, of a SlurmJob's phase or of an event,
what it means, and what to do about it. There are no others: write alerts from this page. Words of
SLURM, of Kubernetes and of engines are not among them: they stand in messages, and in
`pending.reason` of a pool. The same in a terminal: `isthmus reasons PendingNever`.

This page is made by `isthmus reasons > docs/reasons.md`.
"""


def reasons(
    word: Annotated[
        str | None, typer.Argument(help="One reason, e.g. PendingNever; all without it.")
    ] = None,
) -> None:
    """Print what reasons mean and what to do, as a page in Markdown or of one in a few lines."""
    if word is None:
        typer.echo(page(), nl=False)
        return
    texts = {str(reason): text for part in PARTS.values() for reason, text in part.items()}
    found = next((text for known, text in texts.items() if known.lower() == word.lower()), None)
    if found is None:
        near = sorted(known for known in texts if word.lower() in known.lower())
        hint = f" Did you mean {', '.join(near[:5])}?" if near else ""
        typer.echo(f"{word!r} is not a reason of Isthmus; run `isthmus reasons`.{hint}", err=True)
        raise typer.Exit(2)
    typer.echo("\n".join(filter(None, found)))


def page() -> str:
    """The page `docs/reasons.md`."""
    parts = [_HEAD]
    for title, texts in PARTS.items():
        rows = "\n".join(_row(reason, text) for reason, text in texts.items())
        parts.append(f"## {title}\n\n| Reason | Meaning | What to do |\n|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def _row(reason: Reason, text: Text) -> str:
    cells = (f"`{reason}`", text.meaning, text.remedy)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
