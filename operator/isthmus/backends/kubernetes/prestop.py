"""What a pod does before its engine is told to end, whoever deleted it.

The hook needs no operator: it holds for `kubectl delete pod`, an eviction, a drained node and a
dead operator alike. A pod that loads is not waited for (and `firstprocess` ends it). It runs in the
engine's container, where both engines' images have python3; one that has not still waits the floor.
A constant text with its values as arguments, so that nothing of a user's object is ever read as a
program.
"""

from collections.abc import Sequence

SILENCE_SECONDS = 15
"""After as many seconds of silent metrics it waits no longer: nothing is known then."""

Json = dict[str, object]

SCRIPT = """\
import sys, time, urllib.error, urllib.request
floor, budget, silence = (float(word) for word in sys.argv[1:4])
url, gauges = sys.argv[4], sys.argv[5:]
get = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
def held():
    page = get(url, timeout=3).read(1000000).decode()
    found = {}
    for line in page.splitlines():
        name = line.partition("{")[0].split(" ")[0]
        if name in gauges:
            rest = line.rpartition("}")[2] if "}" in line else line[len(name) :]
            value = float(rest.split()[0])
            found[name] = found.get(name, 0.0) + value
    return sum(found.values()) if len(found) == len(gauges) else None
def unborn():
    try:
        get(url, timeout=3).close()
    except urllib.error.URLError as error:
        return isinstance(error.reason, ConnectionRefusedError)
    except Exception:
        pass
    return False
if unborn():
    sys.exit()
time.sleep(floor)
heard = begun = time.monotonic()
while time.monotonic() - begun < budget:
    try:
        load = held()
    except Exception:
        load = None
    now = time.monotonic()
    if load == 0 or (load is None and now - heard >= silence):
        break
    heard = now if load is not None else heard
    time.sleep(0.5)
"""
"""Waits the floor, then for an idle engine; ends when that shows, the budget is over, or the
metrics say nothing for a while. Where nobody listens at the engine's port it ends at once: an
engine that loads has no requests, and nobody was sent to it."""

_SHELL = 'python3 -c "$0" "$@" || sleep "$1"'


def pre_stop(*, floor: int, budget: int, metrics: str, gauges: Sequence[str]) -> Json:
    """The hook of one container.

    Args:
        floor: seconds for every node to hear that the pod has left the endpoints.
        budget: most seconds after the floor until the engine is idle.
        metrics: URL of the engine's metrics inside the pod.
        gauges: metrics whose sum is 0 when the engine is idle.
    """
    words = [SCRIPT, str(floor), str(budget), str(SILENCE_SECONDS), metrics, *gauges]
    return {"exec": {"command": ["/bin/sh", "-c", _SHELL, *words]}}
