"""What a pod does before its engine is told to end, whoever deleted it.

The hook needs no operator: it holds for `kubectl delete pod`, an eviction, a drained node and a
dead operator alike. A pod that loads is not waited for (and `firstprocess` ends it). It runs in the
engine's container, where both engines' images have python3; one that has not still waits the floor.
A constant text with its values as arguments, so that nothing of a user's object is ever read as a
program. It begins with the text of engines/metrics, so that hook and operator read an engine's load
by one rule.
"""

import json
from importlib.resources import files

from isthmus.backends.kubernetes.script_text import script_text
from isthmus.engines.metrics import LoadRule

SILENCE_SECONDS = 15
"""After as many seconds of silent metrics it waits no longer: nothing is known then."""

Json = dict[str, object]

_HOOK = """

import json, sys, time, urllib.error, urllib.request

floor, budget, silence = (float(word) for word in sys.argv[1:4])
url, rule = sys.argv[4], LoadRule(**json.loads(sys.argv[5]))
get = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

def held():
    page, until = LoadReader(rule), time.monotonic() + 5
    with get(url, timeout=3) as answer:
        while time.monotonic() < until:
            piece = answer.read(65536)
            if not piece:
                return None if answer.length else page.reading()
            if not page.feed(piece):
                return None

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
idle = None
while time.monotonic() - begun < budget:
    asked = time.monotonic()
    try:
        load = held()
    except Exception:
        load = None
    now = time.monotonic()
    if load is None or load.requests:
        idle = None
    elif idle is None:
        idle = asked
    if idle is not None and asked - idle >= load.proof:
        break
    if load is None and now - heard >= silence:
        break
    heard = now if load is not None else heard
    time.sleep(0.5)
"""

SCRIPT = script_text(
    files("isthmus.engines").joinpath("metrics.py").read_text(encoding="utf-8") + _HOOK
)
"""Waits the floor, then for an idle engine; ends when that shows, the budget is over, or the
metrics say nothing for a while. Where nobody listens at the engine's port it ends at once: an
engine that loads has no requests, and nobody was sent to it."""

_SHELL = 'python3 -c "$0" "$@" || sleep "$1"'


def pre_stop(*, floor: int, budget: int, metrics: str, rule: LoadRule) -> Json:
    """The hook of one container.

    Args:
        floor: seconds for every node to hear that the pod has left the endpoints.
        budget: most seconds after the floor until the engine is idle.
        metrics: URL of the engine's metrics inside the pod.
        rule: how that page becomes the number of requests that the engine holds.
    """
    says = json.dumps(rule._asdict(), separators=(",", ":"))
    words = [SCRIPT, str(floor), str(budget), str(SILENCE_SECONDS), metrics, says]
    return {"exec": {"command": ["/bin/sh", "-c", _SHELL, *words]}}
