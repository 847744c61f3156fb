"""What a probe asks an engine and how answers are judged: the shapes, and the rules engines share.

Pure. Which questions an engine is asked, and how it tells its attempt, stands in its own module.
"""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from isthmus.api.texts import listed, one_line

ProbeReason = Literal[
    "Healthy", "Refused", "NotReady", "Timeout", "WrongModel", "WrongAttempt", "HttpError"
]

STRANGER: Final[frozenset[str]] = frozenset({"WrongModel", "WrongAttempt"})
"""Reasons for which somebody else listens there: no worker of ours that is slow."""

ANSWERED: Final[frozenset[str]] = STRANGER | {"NotReady"}
"""Reasons of failures for which something at the address has answered."""


@dataclass(frozen=True, slots=True)
class Question:
    """One GET.

    Attributes:
        path: of the engine's server.
        guarded: answered only to who has the engine's API key. So the key and headers out of
            Secrets go with it, and with no other: who listens is not known before it.
    """

    path: str
    guarded: bool = False


METRICS: Final = Question("/metrics")
MODELS: Final = Question("/v1/models", guarded=True)
"""The list of models of OpenAI's API."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: HTTP status and body, which a stranger may have written."""

    question: Question
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class ProbeVerdict:
    """What answers mean.

    Attributes:
        reason: one word.
        message: why, "" if healthy; one bounded line, whatever it quotes: it is cut as it is made.
    """

    reason: ProbeReason
    message: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", one_line(self.message))

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return self.reason == "Healthy"


HEALTHY: Final = ProbeVerdict("Healthy")
NOTHING_ASKED: Final = ProbeVerdict("HttpError", "nothing was asked")


def first_failure(
    answers: Sequence[Answer], *, identity: Callable[[Answer], ProbeVerdict]
) -> ProbeVerdict:
    """What is wrong by the first answer that says so; no answers are no health.

    Args:
        answers: in the order in which they were asked for.
        identity: judges the answer to a guarded question that was answered with 200.
    """
    found = NOTHING_ASKED
    for answer in answers:
        guarded, status = answer.question.guarded, answer.status
        if status == 200:
            found = identity(answer) if guarded else HEALTHY
        elif status == 503 and not guarded:
            message = f"{answer.question.path} answers 503: starting, draining or dead"
            found = ProbeVerdict("NotReady", message)
        else:
            found = ProbeVerdict("HttpError", f"{answer.question.path} answers {status}")
        if not found.healthy:
            return found
    return found


def model_listed(names: Collection[str], *, model: str) -> ProbeVerdict:
    """Whether the served names have the one that is wanted."""
    if model in names:
        return HEALTHY
    return ProbeVerdict("WrongModel", f"serves {listed(names) or 'nothing'} instead of {model}")


def served_models(body: bytes) -> frozenset[str]:
    """The names in a list of models in the form of OpenAI's API, none if it is malformed."""
    models = json_field(body, "data")
    named = [each for each in models if isinstance(each, dict)] if isinstance(models, list) else []
    return frozenset(each["id"] for each in named if isinstance(each.get("id"), str))


def json_field(body: bytes, name: str) -> object:
    """A field of a JSON object, None where there is none or it is malformed."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):  # the latter of brackets within brackets
        return None
    return found.get(name) if isinstance(found, dict) else None
