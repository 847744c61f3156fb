"""`python -m isthmus.front.drain SECONDS`: the preStop of a front's pod.

Envoy itself ends at once on TERM and cuts every stream. Here it is told to say goodbye with each
answer, and waited for until no request is left and none has come for a while: a node that is slow
to hear that the pod is no endpoint any more sends some still, and TERM would cut them. Only the
standard library, because nothing may be slow or missing in the last moments of a pod.
"""

import argparse
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable

FLOOR_SECONDS = 5.0
"""At least so long: every node has to hear that the pod is no endpoint any more."""

QUIET_SECONDS = 2.0
"""So long no request may have come before the pod ends."""

_LOOK_EVERY = 0.2
_CALL_SECONDS = 2.0
_ACTIVE = "http.front.downstream_rq_active"
_ALL = "http.front.downstream_rq_total"


def drain(
    *,
    admin: str,
    budget: float,
    floor: float = FLOOR_SECONDS,
    quiet: float = QUIET_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Make Envoy refuse readiness, close connections after answers, and wait for its requests.

    Args:
        admin: URL of Envoy's administration.
        budget: most seconds to wait.
        floor: least seconds to wait.
        quiet: least seconds without a new request at the end.
        clock: seconds, monotonic.
        sleep: waits that many seconds.

    Returns:
        Whether no request was left; also if Envoy is gone already.
    """
    begin = last = clock()
    before = -1
    try:
        _call(f"{admin}/healthcheck/fail", post=True)
        _call(f"{admin}/drain_listeners?graceful&skip_exit", post=True)
        while clock() - begin < budget:
            requests, came = requests_of(admin)
            if came != before:
                before, last = came, clock()
            if requests == 0 and clock() - begin >= floor and clock() - last >= quiet:
                return True
            sleep(_LOOK_EVERY)
    except (OSError, ValueError):
        return True
    return False


def requests_of(admin: str) -> tuple[int, int]:
    """Requests that Envoy works on now, and all that it ever had.

    Raises:
        OSError: Envoy does not answer.
        ValueError: it answers something else.
    """
    said = _call(f"{admin}/stats?format=json&filter=^http.front.downstream_rq_(active|total)$")
    found = {stat.get("name"): int(stat["value"]) for stat in json.loads(said)["stats"]}
    return found.get(_ACTIVE, 0), found.get(_ALL, 0)


def _call(url: str, *, post: bool = False) -> str:
    request = urllib.request.Request(url, method="POST" if post else "GET")
    try:
        with urllib.request.urlopen(request, timeout=_CALL_SECONDS) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        error.close()
        raise ValueError(f"{url}: {error.code}") from None


def main() -> None:
    """Drain; the end of the process is all that the kubelet waits for."""
    parser = argparse.ArgumentParser(prog="python -m isthmus.front.drain", description=__doc__)
    parser.add_argument("seconds", type=float, help="most seconds to wait for requests")
    parser.add_argument("--admin", default="http://127.0.0.1:9901", help="Envoy's administration")
    parser.add_argument("--floor", type=float, default=FLOOR_SECONDS, help="least seconds to wait")
    arguments = parser.parse_args()
    drain(admin=arguments.admin, budget=arguments.seconds, floor=arguments.floor)


if __name__ == "__main__":
    main()
