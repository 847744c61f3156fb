"""What Envoy is told: of clients, of paths, of keys, of memory. Its configuration, interpreted."""

import re
from typing import Any

from isthmus.front import envoy
from tests.before.findings import any_of, finding


def _bootstrap() -> Any:
    return envoy.bootstrap(directory="/tmp", ports=envoy.Ports())


def _manager() -> Any:
    """The connection manager of requests."""
    (chain,) = _bootstrap()["static_resources"]["listeners"][0]["filter_chains"]
    return chain["filters"][0]["typed_config"]


def _route(path: str, *, method: str = "GET") -> Any:
    """The route that Envoy takes, which is the first that matches."""
    policy = _policy()
    manager = _manager() if policy is None else _manager_of(policy)
    (host,) = manager["route_config"]["virtual_hosts"]
    return next(one for one in host["routes"] if _matches(one["match"], path, method))


def _policy() -> Any:
    """What a front of SGLang workers lets through; None where a front knows no such thing."""
    try:
        made = any_of("isthmus.front.policy:Policy")
    except LookupError:
        return None
    return made(engines=("sglang",))


def _manager_of(policy: Any) -> Any:
    behaviour = any_of("isthmus.front.envoy:Behaviour")(policy=policy)
    made = any_of("isthmus.front.envoy:bootstrap")(
        directory="/tmp", ports=envoy.Ports(), behaviour=behaviour
    )
    (chain,) = made["static_resources"]["listeners"][0]["filter_chains"]
    return chain["filters"][0]["typed_config"]


def _matches(match: Any, path: str, method: str) -> bool:
    for header in match.get("headers", []):
        regex = header["string_match"]["safe_regex"]["regex"]
        if header["name"] == ":method" and not re.fullmatch(regex, method):
            return False
    if "path" in match:
        return bool(match["path"] == path)
    if "prefix" in match:
        return path.startswith(match["prefix"])
    return re.fullmatch(match["safe_regex"]["regex"], path) is not None


@finding("F1", "HTTP/1.0 is refused with 426, an offer of TLS and a websocket with 403")
def ordinary_clients_are_refused() -> bool:
    manager = _manager()
    protocol = manager.get("http_protocol_options", {})
    upgrades = {one["upgrade_type"] for one in manager.get("upgrade_configs", [])}
    return not (
        protocol.get("accept_http_10")
        and protocol.get("ignore_http_11_upgrade")
        and "websocket" in upgrades
    )


@finding("F2", "a worker's key goes with requests for its settings and its administration")
def administration_gets_the_key() -> bool:
    assert "route" in _route("/v1/chat/completions", method="POST")
    closed = [("/server_info", "GET"), ("/flush_cache", "POST"), ("/abort_request", "POST")]
    return any("route" in _route(path, method=method) for path, method in closed)


@finding("M3", "64 MiB are kept of each of a million requests, without a limit of memory")
def memory_has_no_limit() -> bool:
    (host,) = _manager()["route_config"]["virtual_hosts"]
    kept = host["request_body_buffer_limit"]
    return kept > 8 * 2**20 or "overload_manager" not in _bootstrap()


@finding("M4", "on a retry a worker without a key is sent the key of the one before it")
def keyless_worker_gets_a_key() -> bool:
    """The mutations of a try, of a keyed worker and then of one without."""
    (workers,) = (c for c in _bootstrap()["static_resources"]["clusters"] if c["name"] == "workers")
    protocol = workers["typed_extension_protocol_options"]
    filters = protocol["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]["http_filters"]
    headers = {"authorization": "Bearer clients-own"}
    for key in ("Bearer KEY", ""):
        for one in filters:
            for mutation in one["typed_config"].get("mutations", {}).get("request_mutations", []):
                _mutate(headers, mutation, key=key)
    return headers.get("authorization") == "Bearer KEY"


def _mutate(headers: dict[str, str], mutation: Any, *, key: str) -> None:
    """As Envoy does: what an empty value would add is left as it is."""
    if "remove" in mutation:
        headers.pop(mutation["remove"], None)
        return
    header = mutation["append"]["header"]
    value = key if "UPSTREAM_METADATA" in header["value"] else ""
    if value:
        headers[header["key"]] = value


@finding("L8", "an address that is none is in the file of endpoints, which Envoy refuses whole")
def odd_address_is_an_endpoint() -> bool:
    workers = any_of("isthmus.routing.members:workers", "isthmus.front.workers:workers")
    slices = [_slice("not-an-address"), _slice("10.0.0.1")]
    found = workers(slices)
    assert any(worker.address == "10.0.0.1" for worker in found)
    return any(worker.address == "not-an-address" for worker in found)


def _slice(address: str) -> dict[str, Any]:
    made = any_of("isthmus.routing.slices:worker_slice")
    found: dict[str, Any] = made(
        namespace="team-a",
        deployment="llama",
        service="llama",
        owner={"name": f"j-{address}", "uid": f"uid-{address}"},
        address=address,
        port=8000,
    )
    return found
