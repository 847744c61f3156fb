"""What a site says to the submissions of a namespace that it takes nothing from.

Texts and codes as sbatch, plug-ins and wrappers have them, read by the project's own reader.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from isthmus.backends.slurm import sbatch_answers
from isthmus.backends.slurm.parsing import Section
from isthmus.backends.slurm.records import SubmitOutcome, SubmitRequest, Unclear


@dataclass(frozen=True, slots=True)
class Answer:
    """What the site says to every sbatch of one namespace; no job ever comes of it.

    Attributes:
        takes: seconds.
        code: sbatch ends with it; None where it never ends by itself.
        errors: its standard error; `{n}` is another number each time.
        output: its standard output.
        refused: whether it says that there is no job.
    """

    takes: float = 0.3
    code: int | None = 1
    errors: str = ""
    output: str = ""
    refused: bool = True


_FAILED = "sbatch: error: Batch job submission failed: "
ANSWERS = {
    "plug-in": Answer(errors=f"sbatch: error: Choose a GPU model\n{_FAILED}Unspecified error"),
    "option": Answer(code=255, errors="sbatch: error: Invalid --tmp specification"),
    "wrapper": Answer(output="--> checking allocation (A-1) ... FAILED"),
    "slow": Answer(takes=30.0, errors=f"{_FAILED}I/O error writing script/environment to file"),
    "alike": Answer(errors="portal: request {n} timed out", refused=False),
    "silent": Answer(code=None, refused=False),
}


def namespace_of(request: SubmitRequest) -> str:
    """Of the deployment, as the comment of its job tells."""
    return request.comment.split(":")[3].partition("/")[0]


async def said(answer: Answer, *, limit: float, number: Callable[[], float]) -> SubmitOutcome:
    """Run an sbatch that is answered so.

    Args:
        answer: what is said.
        limit: seconds after which one that says nothing is ended.
        number: draws what differs from answer to answer.
    """
    if answer.code is None:
        await asyncio.sleep(limit)
        return Unclear("no answer in time")
    await asyncio.sleep(answer.takes)
    errors = answer.errors.replace("{n}", f"{number() * 1e6:.0f}")
    section = Section(output=answer.output, returncode=answer.code, clock=0)
    return sbatch_answers.outcome(section, errors)
