"""The fixed text of the batch script, in parts of one subject each.

A part is a file beside this one, and begins with a comment that says what it is for. They are put
together in the order of `PARTS`, with an empty line between them; all run in one shell, so a part
may use the functions and variables of those before it.
"""

from importlib.resources import files
from typing import Final

PARTS: Final = (
    "head",  # exit codes, the constants of this job, what the others share
    "gate",  # the claim of the attempt
    "site",  # modules and set-up
    "port",  # a free port on the node
    "listener",  # whose port it is
    "keys",  # the API key, from its file to the engine
    "publish",  # the port, where the operator looks for it
    "end_watch",  # TERM before the granted end
    "bastion",  # the call of mode Reverse
    "engine",  # signals, helpers, and the end of all that the engine started
    "launch_process",  # the engine as a process of the node
    "main",
)
"""Names without `.sh`. A further way to launch the engine is one more `launch_…`."""

TEXT: Final = "\n".join(
    files(__package__).joinpath(f"{part}.sh").read_text(encoding="utf-8") for part in PARTS
)
"""All of it, with `# @CONSTANTS@` where the constants of a job stand."""
