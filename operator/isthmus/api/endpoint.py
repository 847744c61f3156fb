"""How requests reach the workers: `spec.endpoint` of a ModelDeployment.

Apart from modeldeployment.py, which is long enough.
"""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from isthmus.api.base import ObjectName, Rule, SpecModel, matches, rules
from isthmus.api.client_keys import ClientKeysSecretRef
from isthmus.api.keys import ApiKeySecretRef
from isthmus.api.router_url import ROUTER_URL, ROUTER_URL_MESSAGE

SECRET_KEY: Final = "^[-._a-zA-Z0-9]+$"
_SEGMENT: Final = r"([A-Za-z0-9_~@:+=,-][A-Za-z0-9._~@:+=,-]*|\{[a-z_]+\})"
_EXTRA_PATH: Final = rf"^(/|(/{_SEGMENT})*(/\*)?)$"


class RouterSecretRef(SpecModel):
    """One key of a Secret in the ModelDeployment's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: Annotated[
        str,
        Field(
            min_length=1,
            max_length=253,
            json_schema_extra=rules(
                matches(SECRET_KEY, "a key of a Secret has only letters, digits and -._")
            ),
        ),
    ] = "token"
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


class EndpointSpec(SpecModel):
    """How requests reach the workers."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "(self.type == 'External') == has(self.external)",
                "endpoint.external and endpoint.type External belong together: write "
                "endpoint: {type: External, external: {kind: smg, url: http://…}}, or remove it",
            ),
            Rule(
                "self.type == 'Managed' || !(self.administration || has(self.extraPaths) "
                "|| has(self.clientKeysSecretRef))",
                "endpoint.administration, extraPaths and clientKeysSecretRef are for the front of "
                "type Managed: remove them, or the type",
            ),
        )
    )

    type: Literal["Managed", "Service", "External"] = "Managed"
    """Managed: a front of ours balances requests. Service: the bare Service, which balances
    connections. External: workers are registered with a router that is there already."""
    external: ExternalSpec | None = None
    """The router of type External."""
    api_key_secret_ref: ApiKeySecretRef | None = None
    """The API key of all workers; default: a generated one where a pool is on SLURM, else none."""
    administration: bool = False
    """Whether clients of the front may call what changes the engines for all or shows their
    settings, such as /v1/load_lora_adapter, /flush_cache and /server_info."""
    extra_paths: Annotated[
        tuple[
            Annotated[
                str,
                Field(
                    min_length=1,
                    max_length=128,
                    json_schema_extra=rules(
                        matches(
                            _EXTRA_PATH,
                            "write a path such as /my/plugin, /jobs/{id} with a placeholder for "
                            "one segment, or /tools/* for all below it; no query, no percent "
                            "signs, no segment that begins with a dot",
                        )
                    ),
                ),
            ],
            ...,
        ],
        Field(max_length=32, json_schema_extra=rules(x_kubernetes_list_type="set")),
    ] = ()
    """Further paths that clients of the front may call, with any method. What an engine's table
    calls administration stays refused."""
    client_keys_secret_ref: ClientKeysSecretRef | None = None
    """Each entry of this Secret is the API key of one client, and the front answers nobody else;
    default: it answers everybody."""
