"""The `health` part of a ModelDeployment: how long a start may take and what counts as healthy."""

from typing import Annotated

from pydantic import ConfigDict, Field

from isthmus.api.base import Rule, SpecModel, duration_between, matches, rules
from isthmus.api.engine import CONTROL_CHARACTERS, KeyReference


class HeaderSource(SpecModel):
    """Where a header's value comes from."""

    secret_key_ref: KeyReference
    """A key of a Secret in the deployment's namespace."""


class HeaderSpec(SpecModel):
    """One header of the probes."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.value) != has(self.valueFrom)",
                "a header needs exactly one of value and valueFrom: write for example {name: "
                "X-Tenant, value: ops} or valueFrom: {secretKeyRef: {name: probe, key: token}}",
            ),
            Rule(
                "!has(self.value) || !self.name.matches('(?i)(authorization|token|secret|key)')",
                "a secret must not stand in the object: keep it in a Secret and write valueFrom: "
                "{secretKeyRef: {name: …, key: …}}",
            ),
        )
    )

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=128,
            json_schema_extra=rules(
                matches(
                    "^[A-Za-z0-9][A-Za-z0-9-]*$",
                    "a header's name has only letters, digits and '-': write for example X-Tenant",
                ),
                Rule(
                    "!self.matches('(?i)^(host|connection|content-length|transfer-encoding|"
                    "upgrade)$')",
                    "this header belongs to the connection and is set by Isthmus: remove it",
                ),
            ),
        ),
    ]
    """Name of the header."""
    value: Annotated[
        str | None,
        Field(
            max_length=1024,
            json_schema_extra=rules(
                matches(CONTROL_CHARACTERS, "a header's value must be one line")
            ),
        ),
    ] = None
    """Its value."""
    value_from: HeaderSource | None = None
    """Where the value comes from."""


class HealthSpec(SpecModel):
    """How long a start may take and what counts as healthy."""

    startup_timeout: Annotated[
        str,
        Field(
            max_length=16,
            json_schema_extra=rules(duration_between("10s", "24h", "30m")),
        ),
    ] = "30m"
    """Time from a worker's start to its first healthy answer."""
    interval: Annotated[
        str,
        Field(max_length=16, json_schema_extra=rules(duration_between("1s", "5m", "5s"))),
    ] = "5s"
    """Time between two probes."""
    success_threshold: Annotated[int, Field(ge=1, le=10)] = 1
    """Successive good probes until a worker gets requests."""
    failure_threshold: Annotated[int, Field(ge=1, le=100)] = 3
    """Successive bad probes until it gets none."""
    headers: Annotated[
        tuple[HeaderSpec, ...],
        Field(
            max_length=16,
            json_schema_extra=rules(
                x_kubernetes_list_type="map", x_kubernetes_list_map_keys=["name"]
            ),
        ),
    ] = ()
    """Headers of the probes; those from Secrets reach workers on SLURM only, and only with the
    questions for a worker's model and attempt."""
