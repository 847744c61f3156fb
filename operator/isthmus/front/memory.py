"""How much memory a front takes, and what it gives up first when it has no more. Pure.

Without a bound ten requests that never end took 687 MiB (finding M3), and a node that is out of
memory ends whom it likes.
"""

from isthmus.front.typed import TYPE, Json, typed

DEFAULT_BYTES = 2**30
"""What Envoy's container may use where nobody says otherwise."""

MOST_CONNECTIONS = 8192
MOST_REQUESTS = 16384

_LEAST_SILENCE = "30s"

_HEAP_SHARE = 0.9
"""The rest is for what is no heap: stacks, code, the access log."""


def overload_manager(memory: int) -> Json:
    """Envoy's overload manager.

    Args:
        memory: bytes that Envoy's container may use.
    """
    heap = "envoy.resource_monitors.fixed_heap"
    connections = "envoy.resource_monitors.global_downstream_max_connections"
    return {
        "refresh_interval": "0.25s",
        # From 2 MiB on it is known which stream holds how much.
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": 21},
        "resource_monitors": [
            typed(
                heap,
                "extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                max_heap_size_bytes=int(memory * _HEAP_SHARE),
            ),
            typed(
                connections,
                "extensions.resource_monitors.downstream_connections.v3."
                "DownstreamConnectionsConfig",
                max_active_downstream_connections=MOST_CONNECTIONS,
            ),
        ],
        "actions": [
            _action("shrink_heap", heap, at=0.75),
            _shorter_silence(heap),
            # Known of HTTP/2 only; the largest first.
            _scaled("reset_high_memory_stream", heap),
            _action("disable_http_keepalive", heap, at=0.92),
            _action("stop_accepting_requests", heap, at=0.95),
            # Not `stop_accepting_connections`: who waits unheard does not ask another front.
            _action("reject_incoming_connections", heap, at=0.98),
        ],
    }


def _shorter_silence(heap: str) -> Json:
    """Requests in silence go sooner the less memory is left, so those that never end do not stay.

    Also those that wait for their engine, but without memory all would go.
    """
    timeouts = [
        {"timer": "HTTP_DOWNSTREAM_STREAM_IDLE", "min_timeout": _LEAST_SILENCE},
        {"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "1s"},
    ]
    kind = f"{TYPE}.config.overload.v3.ScaleTimersOverloadActionConfig"
    scaled = {"typed_config": {"@type": kind, "timer_scale_factors": timeouts}}
    return _scaled("reduce_timeouts", heap) | scaled


def _scaled(name: str, monitor: str) -> Json:
    scaled = {"scaling_threshold": 0.85, "saturation_threshold": 0.95}
    trigger = {"name": monitor, "scaled": scaled}
    return {"name": f"envoy.overload_actions.{name}", "triggers": [trigger]}


def _action(name: str, monitor: str, *, at: float) -> Json:
    trigger = {"name": monitor, "threshold": {"value": at}}
    return {"name": f"envoy.overload_actions.{name}", "triggers": [trigger]}
