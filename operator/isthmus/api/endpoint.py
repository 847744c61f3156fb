"""How requests reach the workers: `spec.endpoint` of a ModelDeployment.

Apart from modeldeployment.py, which is long enough.
"""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from isthmus.api.base import ObjectName, Rule, SpecModel, matches, rules
from isthmus.api.keys import ApiKeySecretRef
from isthmus.api.router_url import ROUTER_URL, ROUTER_URL_MESSAGE

SECRET_KEY: Final = "^[-._a-zA-Z0-9]+$"


SecretEntry = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        json_schema_extra=rules(
            matches(SECRET_KEY, "a key of a Secret has only letters, digits and -._")
        ),
    ),
]


class RouterSecretRef(SpecModel):
    """One key of a Secret in the ModelDeployment's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: SecretEntry = "token"
    """Key in the Secret."""


class RouterCaRef(SpecModel):
    """Certificates in a Secret in the ModelDeployment's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: SecretEntry = "ca.crt"
    """Key in the Secret."""


class ExternalSpec(SpecModel):
    """A router that is not ours."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "self.kind == 'envoy' || has(self.url)",
                "endpoint.external.url is missing: write where the router's /workers answers, "
                "for example http://router.team-a:30000",
            ),
            Rule(
                "!has(self.caSecretRef) || (has(self.url) && self.url.startsWith('https://'))",
                "endpoint.external.caSecretRef is for a router over https: write url: https://…, "
                "or remove it",
            ),
            Rule(
                "self.kind != 'envoy' || !has(self.authSecretRef)",
                "endpoint.external.authSecretRef is for sglang-router and smg: an Envoy follows a "
                "file that `isthmus front --eds-only` writes; remove it",
            ),
        )
    )

    kind: Literal["sglang-router", "smg", "envoy"]
    """What kind of router it is."""
    url: Annotated[
        str | None,
        Field(
            min_length=8,
            max_length=256,
            json_schema_extra=rules(matches(ROUTER_URL, ROUTER_URL_MESSAGE)),
        ),
    ] = None
    """Where it answers; workers are registered there by `/workers`."""
    auth_secret_ref: RouterSecretRef | None = None
    """Sent to it as a Bearer token."""
    ca_secret_ref: RouterCaRef | None = None
    """CAs that its https certificate is believed by, in PEM; default: the system's."""


class EndpointSpec(SpecModel):
    """How requests reach the workers."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "(self.type == 'External') == has(self.external)",
                "endpoint.external and endpoint.type External belong together: write "
                "endpoint: {type: External, external: {kind: smg, url: http://…}}, or remove it",
            )
        )
    )

    type: Literal["Managed", "Service", "External"] = "Managed"
    """Managed: a front of ours balances requests. Service: the bare Service, which balances
    connections. External: workers are registered with a router that is there already."""
    external: ExternalSpec | None = None
    """The router of type External."""
    api_key_secret_ref: ApiKeySecretRef | None = None
    """The API key of all workers; default: a generated one where a pool is on SLURM, else none."""
