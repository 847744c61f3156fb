"""What Envoy is told: its bootstrap, and the endpoints of its one cluster. Pure.

Verified against Envoy 1.40.0; every value that is not Envoy's default says why.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isthmus.front.workers import Worker

Json = dict[str, object]

CLUSTER = "workers"
BOOTSTRAP_FILE = "bootstrap.json"
EDS_FILE = "eds.json"
STAT_PREFIX = "front"

_METADATA = "isthmus.dev"
_TYPE = "type.googleapis.com/envoy"
_UNLIMITED = 1_000_000
_SILENCE = "1800s"
"""The longest that a request may be without a byte: a queue, a long prompt, a long answer."""

_RETRY_ON = "connect-failure,refused-stream,reset,reset-before-request,retriable-status-codes"
"""A request is repeated only while its client has seen nothing of an answer. `reset` is what a
worker that was killed looks like (without it 6 of 1772 requests failed), 503 one that is starting
or ending."""

_CHOICES = 4
_CHOICES_AGAIN = 300
"""Of four workers at random the one with the fewest requests. Looking at all of them shares load a
little better, but then each retry chooses the same dead worker, which has the fewest of all. A
retry chooses again until it meets one that it has not tried: of two workers after 16 choices on
average, so 300 are enough for all but one in 10⁸."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where Envoy listens; all on `address` but the administration, which is on loopback.

    `::` is all addresses of both families.
    """

    address: str
    requests: int = 8080
    health: int = 8081
    admin: int = 9901


def bootstrap(*, directory: str, ports: Ports) -> Json:
    """The configuration of Envoy.

    Args:
        directory: holds the file of endpoints; Envoy watches it.
        ports: where to listen.
    """
    return {
        "node": {"id": "isthmus-front", "cluster": "isthmus-front"},
        "admin": {"address": _address("127.0.0.1", ports.admin)},
        "static_resources": {
            "listeners": [_requests(ports), _health(ports)],
            "clusters": [_workers(directory), _admin(ports)],
        },
    }


def endpoints(
    found: Sequence[Worker], *, keys: Mapping[Worker, str] | None = None, cluster: str = CLUSTER
) -> Json:
    """The file of endpoints (EDS).

    Args:
        found: the workers.
        keys: the API key of a worker, "" or absent for none.
        cluster: Envoy's name for them.
    """
    known = keys or {}
    return {
        "resources": [
            {
                "@type": f"{_TYPE}.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": cluster,
                "endpoints": [
                    {"lb_endpoints": [_endpoint(w, key=known.get(w, "")) for w in found]}
                ],
            }
        ]
    }


def text(document: Json) -> str:
    """A document as it stands in a file; the same content gives the same text."""
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _endpoint(worker: Worker, *, key: str) -> Json:
    """A worker, and in its metadata the header that it wants."""
    endpoint: Json = {"endpoint": {"address": _address(worker.address, worker.port)}}
    if key:
        metadata = {_METADATA: {"authorization": f"Bearer {key}"}}
        endpoint["metadata"] = {"filter_metadata": metadata}
    return endpoint


def _address(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}


def _listening(address: str, port: int) -> Json:
    place: Json = {"address": address, "port_value": port}
    return {"socket_address": place | ({"ipv4_compat": True} if address == "::" else {})}


def _typed(name: str, type_: str, **fields: object) -> Json:
    return {"name": name, "typed_config": {"@type": f"{_TYPE}.{type_}", **fields}}


def _listener(name: str, ports: Ports, port: int, manager: Json) -> Json:
    kind = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    return {
        "name": name,
        "address": _listening(ports.address, port),
        "filter_chains": [
            {"filters": [_typed("envoy.filters.network.http_connection_manager", kind, **manager)]}
        ],
    }


def _requests(ports: Ports) -> Json:
    route = {"match": {"prefix": "/"}, "route": _route()}
    manager: Json = {
        "stat_prefix": STAT_PREFIX,
        "stream_idle_timeout": _SILENCE,
        # The engine's own headers reach the client, and no others.
        "server_header_transformation": "PASS_THROUGH",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": CLUSTER,
                    "domains": ["*"],
                    "routes": [route],
                    # A body beyond this is not kept, and its request not repeated: room for images.
                    "request_body_buffer_limit": 64 * 2**20,
                }
            ]
        },
        "http_filters": [_router()],
        "access_log": [_failures_log()],
    }
    return _listener("requests", ports, ports.requests, manager)


def _route() -> Json:
    predicate = _typed(
        "envoy.retry_host_predicates.previous_hosts",
        "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    )
    return {
        "cluster": CLUSTER,
        "timeout": "0s",  # an answer may stream for as long as it likes
        "idle_timeout": _SILENCE,
        "retry_policy": {
            "retry_on": _RETRY_ON,
            "retriable_status_codes": [503],
            "num_retries": 3,
            "retry_back_off": {"base_interval": "0.025s", "max_interval": "1s"},
            "retry_host_predicate": [predicate],
            "host_selection_retry_max_attempts": _CHOICES_AGAIN,
        },
    }


def _router() -> Json:
    return _typed(
        "envoy.filters.http.router",
        "extensions.filters.http.router.v3.Router",
        suppress_envoy_headers=True,
    )


def _failures_log() -> Json:
    """One short line for each request that failed: successes are counted in the metrics."""
    line = (
        "%START_TIME% %REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% "
        "%UPSTREAM_HOST% attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT% %DURATION%ms\n"
    )
    threshold = {"default_value": 500, "runtime_key": "front.access_log"}
    failed = {"status_code_filter": {"comparison": {"op": "GE", "value": threshold}}}
    log = _typed(
        "envoy.access_loggers.stdout",
        "extensions.access_loggers.stream.v3.StdoutAccessLog",
        log_format={"text_format_source": {"inline_string": line}},
    )
    return log | {"filter": {"or_filter": {"filters": [failed, {"response_flag_filter": {}}]}}}


def _health(ports: Ports) -> Json:
    """/ready turns bad with `POST /healthcheck/fail`; /live does not; /metrics is Prometheus'."""
    ready = _typed(
        "envoy.filters.http.health_check",
        "extensions.filters.http.health_check.v3.HealthCheck",
        pass_through_mode=False,
        headers=[{"name": ":path", "string_match": {"exact": "/ready"}}],
    )
    routes: list[Json] = [
        {
            "match": {"path": "/live"},
            "direct_response": {"status": 200, "body": {"inline_string": "live\n"}},
        },
        {
            "match": {"path": "/metrics"},
            "route": {"cluster": "admin", "prefix_rewrite": "/stats/prometheus"},
        },
    ]
    manager: Json = {
        "stat_prefix": "health",
        "route_config": {"virtual_hosts": [{"name": "health", "domains": ["*"], "routes": routes}]},
        "http_filters": [ready, _router()],
    }
    return _listener("health", ports, ports.health, manager)


def _workers(directory: str) -> Json:
    least_request = _typed(
        "envoy.load_balancing_policies.least_request",
        "extensions.load_balancing_policies.least_request.v3.LeastRequest",
        choice_count=_CHOICES,
    )
    return {
        "name": CLUSTER,
        "type": "EDS",
        "connect_timeout": "2s",
        "eds_cluster_config": {
            "service_name": CLUSTER,
            "eds_config": {
                "resource_api_version": "V3",
                "path_config_source": {
                    "path": f"{directory}/{EDS_FILE}",
                    "watched_directory": {"path": directory},
                },
            },
        },
        "load_balancing_policy": {"policies": [{"typed_extension_config": least_request}]},
        # The membership says who is healthy. Envoy must not think again and send to the dead …
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        # … but a worker that refuses or resets connections is left alone for a while.
        "outlier_detection": _outliers(),
        "ignore_health_on_host_removal": True,
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": _UNLIMITED,
                    "max_pending_requests": _UNLIMITED,
                    "max_requests": _UNLIMITED,
                    "max_retries": 1024,
                }
            ]
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                # vLLM and SGLang close idle connections after 5 s: be first.
                "common_http_protocol_options": {"idle_timeout": "4s"},
                "explicit_http_config": {"http_protocol_options": {}},
                "http_filters": _upstream_filters(),
            }
        },
    }


def _upstream_filters() -> list[Json]:
    """Filters of a request when its worker is chosen: it gets that worker's key, also on a retry.

    A worker without one gets what the client sent, or on a retry the key of the worker before it.
    """
    value = f"%UPSTREAM_METADATA({_METADATA}:authorization)%"
    key = {
        "append": {
            "header": {"key": "authorization", "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    }
    return [
        _typed(
            "envoy.filters.http.header_mutation",
            "extensions.filters.http.header_mutation.v3.HeaderMutation",
            mutations={"request_mutations": [key]},
        ),
        _typed(
            "envoy.filters.http.upstream_codec",
            "extensions.filters.http.upstream_codec.v3.UpstreamCodec",
        ),
    ]


def _outliers() -> Json:
    """Only failures of the connection count, never an engine's answers, and half may go at most.

    A request that makes every engine answer 500 must not take the engines away from all others.
    """
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 3,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "interval": "1s",
        "base_ejection_time": "5s",
        "max_ejection_time": "30s",
        "max_ejection_percent": 50,
        "always_eject_one_host": False,
    }


def _admin(ports: Ports) -> Json:
    admin = {"endpoint": {"address": _address("127.0.0.1", ports.admin)}}
    return {
        "name": "admin",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "admin",
            "endpoints": [{"lb_endpoints": [admin]}],
        },
    }
