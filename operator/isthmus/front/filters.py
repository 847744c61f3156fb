"""Envoy's filters for a request and its answer: clients' keys, workers' keys, names. Pure."""

import re
from collections.abc import Mapping
from importlib.resources import files

from isthmus.api.names import IDENTITY_MODEL_PREFIX
from isthmus.front.routes import MODELS_FILTER
from isthmus.front.typed import TYPE, Json, from_file, typed

METADATA = "isthmus.dev"
CLIENT_KEYS_FILE = "client-keys.json"

_AUTHORIZATION = "authorization"
_OF_CLIENT = "client-authorization"
_CLIENT_KEYS = "client-keys"
_API_KEY_AUTH = f"{TYPE}.extensions.filters.http.api_key_auth.v3.ApiKeyAuth"
_LUA = files(__package__).joinpath("models.lua").read_text(encoding="utf-8")


def downstream_filters(*, directory: str, client_keys: bool) -> list[Json]:
    """Filters of a request as it comes from its client.

    Args:
        directory: holds the file of clients' keys.
        client_keys: whether clients need one.
    """
    guard = [_client_keys(directory)] if client_keys else []
    return [*guard, _saved_authorization(), _models(), router()]


def upstream_filters() -> list[Json]:
    """Filters of a request when its worker is chosen, also on a retry.

    It gets that worker's key; where the worker has none, what its client sent, and never what the
    worker before it got.
    """
    mutations: list[Json] = [
        {"remove": _AUTHORIZATION},
        _overwrite(f"%DYNAMIC_METADATA({METADATA}:{_OF_CLIENT})%"),
        _overwrite(f"%UPSTREAM_METADATA({METADATA}:{_AUTHORIZATION})%"),
    ]
    return [
        typed(
            "envoy.filters.http.header_mutation",
            "extensions.filters.http.header_mutation.v3.HeaderMutation",
            mutations={"request_mutations": mutations},
        ),
        typed(
            "envoy.filters.http.upstream_codec",
            "extensions.filters.http.upstream_codec.v3.UpstreamCodec",
        ),
    ]


def router() -> Json:
    """The last filter of each request."""
    return typed(
        "envoy.filters.http.router",
        "extensions.filters.http.router.v3.Router",
        suppress_envoy_headers=True,
    )


def client_keys(keys: Mapping[str, str]) -> Json:
    """The file of clients' keys: name of a client to its key. Without any nobody gets in."""
    return {
        "resources": [
            {
                "@type": f"{TYPE}.config.core.v3.TypedExtensionConfig",
                "name": _CLIENT_KEYS,
                "typed_config": {
                    "@type": _API_KEY_AUTH,
                    "credentials": [
                        {"client": client, "key": key} for client, key in sorted(keys.items())
                    ],
                    "key_sources": [{"header": _AUTHORIZATION}, {"header": "x-api-key"}],
                    # Workers are told no client's key.
                    "forwarding": {"hide_credentials": True},
                },
            }
        ]
    }


def _client_keys(directory: str) -> Json:
    return {
        "name": _CLIENT_KEYS,
        "config_discovery": {
            "config_source": from_file(directory, CLIENT_KEYS_FILE),
            "type_urls": [_API_KEY_AUTH],
        },
    }


def _saved_authorization() -> Json:
    """Keeps what the client sent, for workers' keys are written over it."""
    saved = {"metadata_namespace": METADATA, "key": _OF_CLIENT, "type": "STRING"}
    return typed(
        "envoy.filters.http.header_to_metadata",
        "extensions.filters.http.header_to_metadata.v3.Config",
        request_rules=[{"header": _AUTHORIZATION, "on_header_present": saved}],
    )


def _models() -> Json:
    """Asleep but for the routes that wake it."""
    code = _LUA.replace("@IDENTITY@", re.sub(r"(\W)", r"%\1", IDENTITY_MODEL_PREFIX))
    lua = typed(
        MODELS_FILTER,
        "extensions.filters.http.lua.v3.Lua",
        source_codes={MODELS_FILTER: {"inline_string": code}},
    )
    return lua | {"disabled": True}


def _overwrite(value: str) -> Json:
    return {
        "append": {
            "header": {"key": _AUTHORIZATION, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    }
