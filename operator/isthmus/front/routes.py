"""Which requests a front sends to workers, and what it answers to all others. Pure.

A worker's key goes with every request that is sent to it, so only what is for clients is: exact
paths and methods of the engines' tables. The order of Envoy's routes is the rule: administration
stands before all that has a placeholder.
"""

from collections.abc import Sequence

from isthmus.engines.paths import EnginePath, PathClass, path_pattern
from isthmus.front.policy import Policy
from isthmus.front.typed import TYPE, Json, typed

SILENCE = "1800s"
"""The longest that a request may be without a byte: a queue, a long prompt, a long answer."""

KEPT_BODY = 4 * 2**20
"""Bytes of a request's body that are kept so that it can be repeated on another worker."""

MODELS_FILTER = "models"

_RETRY_ON = "connect-failure,refused-stream,reset,reset-before-request,retriable-status-codes"
"""A request is repeated only while its client has seen nothing of an answer. `reset` is what a
worker that was killed looks like (without it 6 of 1772 requests failed), 503 one that is starting
or ending."""

_CHOICES_AGAIN = 300
"""A retry chooses again until it meets a worker that it has not tried: of two workers after 16
choices on average, so 300 are enough for all but one in 10⁸."""

_ADMINISTRATION = (
    "this path changes the engine for everybody or shows its settings, so it is not for clients: "
    "to allow it, set endpoint.administration: true in the ModelDeployment"
)
_UNKNOWN = (
    "no engine of this deployment has this path for clients: correct it, or add it to "
    "endpoint.extraPaths in the ModelDeployment"
)
_METHOD = "this path is there, with another method: see the allow header"


def virtual_host(policy: Policy, *, cluster: str) -> Json:
    """The virtual host of the workers.

    Args:
        policy: what is let through.
        cluster: Envoy's name for the workers.
    """
    return {
        "name": cluster,
        "domains": ["*"],
        "routes": _routes(policy, cluster),
        "retry_policy": _retries(),
        # A larger body is passed on piece by piece, and its request not repeated.
        "request_body_buffer_limit": KEPT_BODY,
    }


def _routes(policy: Policy, cluster: str) -> list[Json]:
    closed = [
        entry
        for entry in policy.paths
        if entry.kind is PathClass.ADMINISTRATION and not policy.administration
    ]
    passed = [entry for entry in policy.paths if entry not in closed]
    exact = [entry for entry in passed if entry.exact]
    patterns = [entry for entry in passed if not entry.exact]
    # The more specific first: what stands below a path of clients may be administration.
    return [
        *(_passed(entry, cluster) for entry in sorted(exact, key=_often)),
        *(_closed(entry) for entry in closed),
        *(_passed(entry, cluster) for entry in patterns),
        *(_extra(path, cluster) for path in policy.extra_paths),
        *(_other_method(entry) for entry in (*exact, *patterns)),
        _refusal({"prefix": "/"}, status=404, sentence=_UNKNOWN, name="unknown"),
    ]


def _often(entry: EnginePath) -> tuple[bool, str]:
    """What is asked most is looked for first."""
    return "completions" not in entry.path, entry.path


def _passed(entry: EnginePath, cluster: str) -> Json:
    route: Json = {
        "name": str(entry.kind),
        "match": _match(entry) | {"headers": [_methods((*entry.methods, "OPTIONS"))]},
        "route": _action(cluster, websocket=entry.websocket),
    }
    if entry.lists_models:
        enabled = {"@type": f"{TYPE}.config.route.v3.FilterConfig", "config": _models_filter()}
        route["typed_per_filter_config"] = {MODELS_FILTER: enabled}
    return route


def _models_filter() -> Json:
    return {"@type": f"{TYPE}.extensions.filters.http.lua.v3.LuaPerRoute", "name": MODELS_FILTER}


def _closed(entry: EnginePath) -> Json:
    return _refusal(_match(entry), status=403, sentence=_ADMINISTRATION, name="administration")


def _extra(path: str, cluster: str) -> Json:
    """A path of the user's: with any method, as a websocket too."""
    below = path.endswith("/*")
    if "{" in path:
        pattern = path_pattern(path.removesuffix("*")) + (".*" if below else "")
        match: Json = {"safe_regex": {"regex": pattern}}
    elif below:
        match = {"prefix": path.removesuffix("*")}
    else:
        match = {"path": path}
    return {"name": "extra", "match": match, "route": _action(cluster, websocket=True)}


def _other_method(entry: EnginePath) -> Json:
    refused = _refusal(_match(entry), status=405, sentence=_METHOD, name="method")
    allow = {"header": {"key": "allow", "value": ", ".join(entry.methods)}}
    return refused | {"response_headers_to_add": [allow]}


def _match(entry: EnginePath) -> Json:
    return {"path": entry.path} if entry.exact else {"safe_regex": {"regex": entry.pattern}}


def _methods(methods: Sequence[str]) -> Json:
    regex = {"regex": "|".join(methods)}
    return {"name": ":method", "string_match": {"safe_regex": regex}}


def _refusal(match: Json, *, status: int, sentence: str, name: str) -> Json:
    return {
        "name": name,
        "match": match,
        "direct_response": {"status": status, "body": {"inline_string": sentence}},
    }


def _action(cluster: str, *, websocket: bool) -> Json:
    upgrades = [{"upgrade_type": "websocket", "enabled": True}] if websocket else []
    return {
        "cluster": cluster,
        "timeout": "0s",  # an answer may stream for as long as it likes
        "idle_timeout": SILENCE,
        "upgrade_configs": upgrades,
    }


def _retries() -> Json:
    predicate = typed(
        "envoy.retry_host_predicates.previous_hosts",
        "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    )
    return {
        "retry_on": _RETRY_ON,
        "retriable_status_codes": [503],
        "num_retries": 3,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "1s"},
        "retry_host_predicate": [predicate],
        "host_selection_retry_max_attempts": _CHOICES_AGAIN,
    }
