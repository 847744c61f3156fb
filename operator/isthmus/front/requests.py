"""Envoy's listener for requests: what it takes of clients, what it says when it refuses. Pure.

Envoy's defaults are those of the edge of the internet; here are the clients of engines, so what
uvicorn lets through is let through.
"""

from isthmus.front.filters import downstream_filters
from isthmus.front.policy import Policy
from isthmus.front.routes import SILENCE, virtual_host
from isthmus.front.typed import Json, listening, typed

STAT_PREFIX = "front"

_HEADERS_SECONDS = "60s"
_WHOLE_REQUEST = "3600s"
"""An upload may take so long; answers and websockets are not concerned, they have begun."""

_LOGGED = (
    "response.code >= 500 || (response.code >= 400 && response.code_details != 'via_upstream')"
)
"""What the front refused itself; an engine's 4xx is between the engine and its client."""

_SENTENCES = (
    (
        "response.code_details == 'upgrade_failed'",
        "an upgrade of the connection is taken for websockets only, at their own paths",
    ),
    (
        "response.code == 401",
        "this deployment wants a key of its clients: send the header authorization: Bearer KEY",
    ),
    ("response.code_details == 'route_not_found'", "there is nothing for such a request"),
    ("response.code == 400", "this is no valid HTTP request"),
    ("response.code == 408", "the request did not arrive as a whole in time"),
    ("response.code == 413", "the request is too large"),
    ("response.code == 431", "the headers of the request are too large"),
)
"""In place of Envoy's own words, which are short or none: condition (CEL) and sentence."""

_MANAGER = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def requests_listener(
    *, policy: Policy, directory: str, host: str, port: int, cluster: str, client_keys: bool
) -> Json:
    """The listener.

    Args:
        policy: what is let through.
        directory: holds Envoy's files.
        host: the address to listen at.
        port: the port to listen at.
        cluster: Envoy's name for the workers.
        client_keys: whether clients need a key.
    """
    manager: Json = {
        "stat_prefix": STAT_PREFIX,
        "stream_idle_timeout": SILENCE,
        "request_headers_timeout": _HEADERS_SECONDS,
        "request_timeout": _WHOLE_REQUEST,
        # The engine's own headers reach the client, and no others.
        "server_header_transformation": "PASS_THROUGH",
        # A path is judged in the form in which the engine gets it.
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
        # Only the routes that have a websocket allow it.
        "upgrade_configs": [{"upgrade_type": "websocket", "enabled": False}],
        "http_protocol_options": {
            "accept_http_10": True,
            "default_host_for_http_10": cluster,
            # An offer to change to TLS that old clients of Apache make; it may be ignored.
            "ignore_http_11_upgrade": [{"prefix": "TLS", "ignore_case": True}],
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 256,
            "initial_stream_window_size": 2**20,
            "initial_connection_window_size": 4 * 2**20,
        },
        "route_config": {"virtual_hosts": [virtual_host(policy, cluster=cluster)]},
        "http_filters": downstream_filters(directory=directory, client_keys=client_keys),
        "local_reply_config": _own_answers(),
        "access_log": [_refusals_log()],
    }
    return listener("requests", host=host, port=port, manager=manager)


def listener(name: str, *, host: str, port: int, manager: Json) -> Json:
    """A listener with one connection manager."""
    chain = [typed("envoy.filters.network.http_connection_manager", _MANAGER, **manager)]
    return {
        "name": name,
        "address": listening(host, port),
        "filter_chains": [{"filters": chain}],
    }


def _own_answers() -> Json:
    """What the front itself answers is JSON in the form of the engines' errors."""
    return {
        "mappers": [
            {"filter": _cel(condition), "body": {"inline_string": sentence}}
            for condition, sentence in _SENTENCES
        ],
        "body_format": {
            "json_format": {
                "error": {
                    "message": "%LOCAL_REPLY_BODY%",
                    "type": "front",
                    "code": "%RESPONSE_CODE%",
                }
            }
        },
    }


def _refusals_log() -> Json:
    """One short line for each request that failed or was refused; successes are in the metrics.

    The query is left out: some clients put keys there.
    """
    line = (
        "%START_TIME% %REQ(:METHOD)% %PATH(NQ:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% "
        "%RESPONSE_CODE_DETAILS% route=%ROUTE_NAME% %UPSTREAM_HOST% "
        "attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT% %DURATION%ms\n"
    )
    log = typed(
        "envoy.access_loggers.stdout",
        "extensions.access_loggers.stream.v3.StdoutAccessLog",
        log_format={"text_format_source": {"inline_string": line}},
    )
    refused = _cel(_LOGGED)
    return log | {"filter": {"or_filter": {"filters": [refused, {"response_flag_filter": {}}]}}}


def _cel(expression: str) -> Json:
    return {
        "extension_filter": typed(
            "envoy.access_loggers.extension_filters.cel",
            "extensions.access_loggers.filters.cel.v3.ExpressionFilter",
            expression=expression,
        )
    }
