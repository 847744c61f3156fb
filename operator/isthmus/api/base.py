"""What the models of all kinds share: their pydantic configuration and how CEL rules hang on them.

The models say what may stand in an object. They serve three readers: the CRD generator (which
turns them into the API server's schema), `isthmus validate` (which runs that schema), and the
operator itself (which reads objects through them). Rules across fields are CEL, so that the API
server refuses a wrong object with a sentence before anything runs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from isthmus.api.durations import DURATION_PATTERN

VALIDATIONS: Final = "x-kubernetes-validations"


@dataclass(frozen=True, slots=True)
class Rule:
    """One CEL rule of the schema.

    Attributes:
        expression: CEL that must be true; `self` is the value the rule hangs on.
        message: says what is wrong and what to write instead.
    """

    expression: str
    message: str


def rules(*all_rules: Rule, **extensions: str | bool | list[str]) -> JsonDict:
    """Return `json_schema_extra` for a field or model: its CEL rules and other extensions.

    Extensions are written with underscores: `x_kubernetes_list_type="map"`.
    """
    extra: JsonDict = {
        key.replace("_", "-"): list(value) if isinstance(value, list) else value
        for key, value in extensions.items()
    }
    if all_rules:
        extra[VALIDATIONS] = [
            {"rule": rule.expression, "message": rule.message} for rule in all_rules
        ]
    return extra


def cel_string(text: str) -> str:
    """Return `text` as a CEL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def matches(pattern: str, message: str) -> Rule:
    """Return the rule that a string matches `pattern` (RE2), with a sentence of ours.

    A `pattern` of the schema itself would be refused with the bare pattern as the message.
    """
    return Rule(f"self.matches({cel_string(pattern)})", message)


class SpecModel(BaseModel):
    """A part of a `spec`: unknown fields are refused, values cannot be changed."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )


class StatusModel(BaseModel):
    """A part of a `status`: what a newer operator wrote is skipped."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )


def status_text(most: int) -> Any:
    """Return the field of a text in a status, of at most so many characters.

    The bound is the schema's, so `write_status` cuts by it, and not the model's: a text that is
    too long is cut when it is written, and must neither stop a plan nor make what is stored
    unreadable.
    """
    return Field(json_schema_extra={"maxLength": most})


def status_list(most: int, **extensions: str | bool | list[str]) -> Any:
    """Return the field of a list in a status, of at most so many entries; see `status_text`."""
    return Field(json_schema_extra={"maxItems": most, **rules(**extensions)})


class ObjectMeta(StatusModel):
    """The part of an object's metadata that we read; the API server owns its schema."""

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    finalizers: tuple[str, ...] = ()
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)

    @property
    def deleting(self) -> bool:
        """Whether the object is being deleted and only waits for finalizers."""
        return self.deletion_timestamp is not None


class ConditionModel(StatusModel):
    """One aspect of the current state."""

    type: Annotated[str, status_text(64)]
    status: Annotated[str, Field(json_schema_extra={"enum": ["True", "False", "Unknown"]})]
    reason: Annotated[str, status_text(253)] = ""
    message: Annotated[str, status_text(1024)] = ""
    last_transition_time: Annotated[
        str | None, Field(json_schema_extra={"format": "date-time"})
    ] = None
    observed_generation: Annotated[
        int | None, Field(ge=0, json_schema_extra={"format": "int64"})
    ] = None


def named(values: Iterable[str]) -> str:
    """Return `a, b and c` for a sentence."""
    *rest, last = list(values)
    return f"{', '.join(rest)} and {last}" if rest else last


# Strings that stand in several kinds.

SAFE_PATH: Final = r"^(/[A-Za-z0-9._+@=:,-]+)+/?$"
"""An absolute path of characters that no shell and no sbatch directive gives a meaning to."""

SAFE_WORD: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.+@-]*$"
"""A name in SLURM: no leading dash, no white space, quotes or separators."""

DNS_LABEL: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


def absolute_path(what: str) -> Rule:
    """Return the rule that a string is a plain absolute path."""
    return Rule(
        f"self.matches({cel_string(SAFE_PATH)}) && !self.contains('/../') && !self.endsWith('/..')",
        f"{what} must be an absolute path of letters, digits and ._+@=:,- without '..': "
        "write for example /scratch/isthmus",
    )


def slurm_word(what: str) -> Rule:
    """Return the rule that a string is a plain name in SLURM."""
    return matches(
        SAFE_WORD,
        f"{what} must be one plain SLURM name: letters, digits and _.+@- without white space or "
        "quotes, not beginning with '-'; several partitions are several list entries",
    )


def duration_between(low: str, high: str, example: str) -> Rule:
    """Return the rule that a string is a duration in a closed range."""
    return Rule(
        f"self.matches({cel_string(DURATION_PATTERN)}) && duration(self) >= duration('{low}') "
        f"&& duration(self) <= duration('{high}')",
        f'write a duration between {low} and {high}, such as "{example}"',
    )


def time_limit_rule(what: str) -> Rule:
    """Return the rule that a string is a time limit that SLURM can have: whole minutes."""
    return Rule(
        f"self.matches({cel_string(DURATION_PATTERN)}) && duration(self) >= duration('2m') "
        "&& duration(self) <= duration('720h') && duration(self).getSeconds() % 60 == 0",
        f'{what} must be whole minutes between 2m and 720h: write for example "8h" or "90m"',
    )


SlurmName = Annotated[str, Field(min_length=1, max_length=64)]
"""A string that `slurm_word` checks."""

ObjectName = Annotated[
    str, Field(min_length=1, max_length=63, json_schema_extra={"pattern": DNS_LABEL})
]
"""Name of a Kubernetes object in a reference."""
