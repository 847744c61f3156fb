"""Values that look like secrets, masked where something is shown to people.

By names alone: of variables, of options, and of what a site's set-up text assigns. A secret under
another name is shown; references to Secrets are what such values are for.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from isthmus.backends.slurm.records import JobTemplate

MASK = "********"

_NAME = r"TOKEN(?!IZER)|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|PRIVATE_?KEY"
_OPTION_NAME = r"token(?!izer|s)|secret|password|passwd|credential|(?:api|private)[-_]?key"
"""`--max-num-batched-tokens` counts, and `--tokenizer` is a path."""
_VARIABLE = re.compile(_NAME, re.IGNORECASE)
_OPTION = re.compile(rf"(--?[\w.-]*(?:{_OPTION_NAME})[\w.-]*)(=.*)?", re.IGNORECASE | re.DOTALL)
_ASSIGNED = re.compile(
    rf"\b(\w*(?:{_NAME})\w*=)('[^']*'|\"(?:\\.|[^\"\\])*\"|[^\s;&|]+)", re.IGNORECASE
)


def masked_variable(name: str, value: str) -> str:
    """The value of a variable as it is shown."""
    return MASK if _VARIABLE.search(name) else value


def masked_arguments(arguments: Iterable[str]) -> tuple[str, ...]:
    """A command line as it is shown: `--name=value`, and `--name` with its value behind it."""
    shown: list[str] = []
    secret_follows = False
    for argument in arguments:
        option = _OPTION.fullmatch(argument)
        if option is not None and option[2] is not None:
            shown.append(f"{option[1]}={MASK}")
        elif secret_follows and not argument.startswith("-"):
            shown.append(MASK)
        else:
            shown.append(argument)
        secret_follows = option is not None and option[2] is None
    return tuple(shown)


def masked_template(template: JobTemplate) -> JobTemplate:
    """What a revision froze, as it is shown."""
    return replace(
        template,
        argv=masked_arguments(template.argv),
        env=tuple((name, masked_variable(name, value)) for name, value in template.env),
    )


def masked_text(text: str) -> str:
    """Shell text as it is shown: what is assigned to a variable with the name of a secret."""
    return _ASSIGNED.sub(rf"\1{MASK}", text)


def masked_object(value: object) -> object:
    """A copy of an object of Kubernetes, as it is shown."""
    if isinstance(value, Mapping):
        copied = {str(key): masked_object(item) for key, item in value.items()}
        name, plain = copied.get("name"), copied.get("value")
        if isinstance(name, str) and isinstance(plain, str):
            copied["value"] = masked_variable(name, plain)
        return copied
    if isinstance(value, list):
        texts = [item for item in value if isinstance(item, str)]
        if len(texts) == len(value):
            return list(masked_arguments(texts))
        return [masked_object(item) for item in value]
    return value
