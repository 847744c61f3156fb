"""What Envoy is told: its bootstrap, and the endpoints of its one cluster. Pure.

Verified against Envoy 1.40.0; every value that is not Envoy's default says why.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from isthmus.api.ip_family import IpFamily
from isthmus.front import memory
from isthmus.front.filters import METADATA, router, upstream_filters
from isthmus.front.policy import Policy
from isthmus.front.requests import listener, requests_listener
from isthmus.front.typed import TYPE, Json, address, from_file, typed
from isthmus.routing.members import Worker

CLUSTER = "workers"
BOOTSTRAP_FILE = "bootstrap.json"
EDS_FILE = "eds.json"

_CHOICES = 4
"""Of four workers at random the one with the fewest requests. Looking at all of them shares load a
little better, but then each retry chooses the same dead worker, which has the fewest of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where Envoy listens; all on `address` but the administration, which is on loopback.

    `::` is all addresses of both families.
    """

    address: str = IpFamily.IPV4.any_address
    requests: int = 8080
    health: int = 8081
    admin: int = 9901


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What Envoy is to do with requests.

    Attributes:
        policy: what is let through.
        client_keys: whether clients need a key; then `filters.CLIENT_KEYS_FILE` has to be there.
        memory: bytes that it may use.
    """

    policy: Policy = field(default_factory=Policy)
    client_keys: bool = False
    memory: int = memory.DEFAULT_BYTES


def bootstrap(*, directory: str, ports: Ports, behaviour: Behaviour | None = None) -> Json:
    """The configuration of Envoy.

    Args:
        directory: holds the file of endpoints; Envoy watches it.
        ports: where to listen.
        behaviour: what to do with requests; by default what lets the least through.
    """
    behaviour = behaviour or Behaviour()
    requests = requests_listener(
        policy=behaviour.policy,
        directory=directory,
        host=ports.address,
        port=ports.requests,
        cluster=CLUSTER,
        client_keys=behaviour.client_keys,
    )
    return {
        "node": {"id": "isthmus-front", "cluster": "isthmus-front"},
        "admin": {"address": address("127.0.0.1", ports.admin)},
        "overload_manager": memory.overload_manager(behaviour.memory),
        "static_resources": {
            "listeners": [requests, _health(ports)],
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
                "@type": f"{TYPE}.config.endpoint.v3.ClusterLoadAssignment",
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
    endpoint: Json = {"endpoint": {"address": address(worker.address, worker.port)}}
    if key:
        metadata = {METADATA: {"authorization": f"Bearer {key}"}}
        endpoint["metadata"] = {"filter_metadata": metadata}
    return endpoint


def _health(ports: Ports) -> Json:
    """/ready turns bad with `POST /healthcheck/fail`; /live does not; /metrics is Prometheus'."""
    ready = typed(
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
        "http_filters": [ready, router()],
    }
    health = listener("health", host=ports.address, port=ports.health, manager=manager)
    # Who is overloaded must still be able to say that it lives.
    return health | {"ignore_global_conn_limit": True, "bypass_overload_manager": True}


def _workers(directory: str) -> Json:
    least_request = typed(
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
            "eds_config": from_file(directory, EDS_FILE),
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
                    "max_connections": memory.MOST_REQUESTS,
                    "max_pending_requests": memory.MOST_REQUESTS,
                    "max_requests": memory.MOST_REQUESTS,
                    "max_retries": 1024,
                }
            ]
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                # vLLM and SGLang close idle connections after 5 s: be first.
                "common_http_protocol_options": {"idle_timeout": "4s"},
                "explicit_http_config": {"http_protocol_options": {}},
                "http_filters": upstream_filters(),
            }
        },
    }


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
    admin = {"endpoint": {"address": address("127.0.0.1", ports.admin)}}
    return {
        "name": "admin",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "admin",
            "endpoints": [{"lb_endpoints": [admin]}],
        },
    }
