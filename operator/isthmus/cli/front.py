"""`isthmus front`: the sidecar of the front, and for an Envoy of one's own the file it follows.

Only the door: the options stand in `isthmus.front`, which a sidecar starts without the rest of the
command line.
"""

import typer


def front(context: typer.Context) -> None:
    """Follow the workers of one deployment for an Envoy (`isthmus front --help` lists options)."""
    from isthmus.front.__main__ import main

    raise typer.Exit(main(context.args))
