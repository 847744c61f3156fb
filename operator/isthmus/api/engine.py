"""The `engine` part of a pool: which engine, its arguments and its environment.

Apart from modeldeployment.py because almost all rules against harmful input stand here.
"""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from isthmus.api.base import Rule, SpecModel, matches, named, rules
from isthmus.api.desired import EngineType
from isthmus.api.reserved_options import (
    ENGINE_RESERVED,
    ENGINE_RESERVED_SHORT,
    RESERVED_ENVIRONMENT,
    RESERVED_ENVIRONMENT_PREFIXES,
    SHELL_ENVIRONMENT,
    SHELL_ENVIRONMENT_PREFIX,
    with_abbreviations,
)

MAX_ARGUMENTS: Final = 112
MAX_ARGUMENT: Final = 4096
"""Characters: --hf-overrides of a long context has 2000. The API server bounds what a rule may cost
by the product of both, and with more it refuses the CRD."""

CONTROL_CHARACTERS: Final = r"^[^\x00-\x1f\x7f]*$"

_RESERVED: Final = (
    "this engine option (or its abbreviation) is set by Isthmus: remove it. Use model.source, "
    "model.revision, model.servedNames and worker instead; host, port, keys, metrics, multi-node, "
    "TLS and config-file options are not the user's; a token comes by engine.env, {name: HF_TOKEN, "
    "valueFrom: …}"
)

ARGUMENT_RULES: Final = (
    matches(
        CONTROL_CHARACTERS,
        "an engine argument must be one line without control characters: put each argument into "
        "its own list entry, and JSON into one line (in YAML write >- instead of |, and indent its "
        "lines alike)",
    ),
    matches(
        r"\S",
        "an engine argument must not be empty or only white space: remove the entry",
    ),
    # The engine would take all of it for the name of an option, and so would the rule below.
    matches(
        r"^([^-]|-[^=\s]*(=|$))",
        "an engine option and its value in one list entry need a '=' between them: write "
        '"--name=value", or two entries, "--name" and "value"',
    ),
    # `--port`, `--port=1`, `--por`, `--served_model_name` and `--config.x` all name an option of
    # ours: vLLM's parser reads `_` as `-` and cuts names at a dot.
    Rule(
        "!self.startsWith('-') || !(self.split('=')[0].split('.')[0].replace('_', '-') in ["
        + ", ".join(f"'{name}'" for name in with_abbreviations(ENGINE_RESERVED))
        + "])",
        _RESERVED,
    ),
    Rule(f"!self.matches('^-[{ENGINE_RESERVED_SHORT}]')", _RESERVED),
)

_ENVIRONMENT_NAMES: Final = (
    matches(
        "^[A-Za-z_][A-Za-z0-9_]*$",
        "an environment variable's name must be letters, digits and '_', not beginning with a "
        "digit: write for example HF_HOME",
    ),
    Rule(
        "!["
        + ", ".join(f"'{name}'" for name in sorted(RESERVED_ENVIRONMENT))
        + "].exists(name, self == name)"
        + "".join(f" && !self.startsWith('{prefix}')" for prefix in RESERVED_ENVIRONMENT_PREFIXES),
        "this environment variable is set by Isthmus or the scheduler: remove it (reserved are "
        + named(
            [
                *(f"{prefix}*" for prefix in RESERVED_ENVIRONMENT_PREFIXES),
                *sorted(RESERVED_ENVIRONMENT),
            ]
        )
        + ")",
    ),
    Rule(
        f"!self.startsWith('{SHELL_ENVIRONMENT_PREFIX}') && !["
        + ", ".join(f"'{name}'" for name in sorted(SHELL_ENVIRONMENT))
        + "].exists(name, self == name)",
        "bash gives this environment variable a meaning of its own, so on SLURM it would not reach "
        "the engine as it is: remove it (these are "
        + named([f"{SHELL_ENVIRONMENT_PREFIX}*", *sorted(SHELL_ENVIRONMENT)])
        + ")",
    ),
)


class KeyReference(SpecModel):
    """One key of a Secret or ConfigMap in the deployment's namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the Secret or ConfigMap."""
    key: Annotated[str, Field(min_length=1, max_length=253)]
    """Key in it."""
    optional: bool | None = None
    """Whether the worker starts without it when it is missing."""


class ValueSource(SpecModel):
    """Where a variable's value comes from."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.secretKeyRef) != has(self.configMapKeyRef)",
                "valueFrom needs exactly one of secretKeyRef and configMapKeyRef: write for "
                "example {secretKeyRef: {name: hf-token, key: token}}",
            )
        )
    )

    secret_key_ref: KeyReference | None = None
    """A key of a Secret."""
    config_map_key_ref: KeyReference | None = None
    """A key of a ConfigMap."""


class EnvironmentVariableSpec(SpecModel):
    """One variable of the engine's environment."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.value) != has(self.valueFrom)",
                "an environment variable needs exactly one of value and valueFrom: write for "
                'example {name: HF_HOME, value: /models} (an empty value is "")',
            ),
            Rule(
                "!has(self.value) || !self.name.matches("
                "'(^|_)(TOKEN|PASSWORD|SECRET|SECRET_ACCESS_KEY|API_KEY)$')",
                "a secret must not stand in the object: keep it in a Secret and write valueFrom: "
                "{secretKeyRef: {name: …, key: …}}",
            ),
        )
    )

    name: Annotated[
        str,
        Field(min_length=1, max_length=128, json_schema_extra=rules(*_ENVIRONMENT_NAMES)),
    ]
    """Name of the variable."""
    value: Annotated[
        str | None,
        Field(
            max_length=4096,
            json_schema_extra=rules(
                matches(
                    CONTROL_CHARACTERS,
                    "an environment variable's value must be one line without control characters",
                )
            ),
        ),
    ] = None
    """Its value."""
    value_from: ValueSource | None = None
    """Where the value comes from; Kubernetes pools only."""


class EngineSpec(SpecModel):
    """The inference engine of a pool."""

    type: EngineType | None = None
    """vllm or sglang; default vllm on Kubernetes, sglang on SLURM."""
    image: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=512,
            json_schema_extra=rules(
                matches(
                    "^[A-Za-z0-9][A-Za-z0-9._:/@-]*$",
                    "image must be a container image reference: write for example "
                    "vllm/vllm-openai:v0.33.0",
                )
            ),
        ),
    ] = None
    """Container image; Kubernetes pools only, default by engine type."""
    args: Annotated[
        tuple[
            Annotated[
                str, Field(max_length=MAX_ARGUMENT, json_schema_extra=rules(*ARGUMENT_RULES))
            ],
            ...,
        ],
        Field(max_length=MAX_ARGUMENTS, json_schema_extra=rules(x_kubernetes_list_type="atomic")),
    ] = ()
    """The engine's own arguments as on its manual page, for example ["--max-model-len=8192"]."""
    env: Annotated[
        tuple[EnvironmentVariableSpec, ...],
        Field(
            max_length=64,
            json_schema_extra=rules(
                x_kubernetes_list_type="map", x_kubernetes_list_map_keys=["name"]
            ),
        ),
    ] = ()
    """Variables of the engine's environment."""


def value_source(source: ValueSource) -> Mapping[str, object]:
    """Return `valueFrom` as it stands in a pod."""
    return source.model_dump(by_alias=True, exclude_none=True)
