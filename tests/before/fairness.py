"""Who has his turn when many want something: submissions, events, probes."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from isthmus.api.conditions import Reason
from isthmus.api.desired import ClusterReference
from tests.before.engines import probe_target
from tests.before.findings import any_of, built, finding
from tests.before.memory import key

_REFERENCE = ClusterReference(namespace="isthmus-system", name="hpc")


@finding("M8", "who comes second waits until all of the first namespace have been submitted")
def line_is_first_come_first_served() -> bool:
    woken: list[Any] = []
    line = built(
        "isthmus.slurmcluster.submission_line:SubmissionLine",
        "isthmus.reconcile.submission_line:SubmissionLine",
        wake=woken.append,
        clock=lambda: 0.0,
    )
    for number in range(40):
        line.enter(_REFERENCE, key("SlurmJob", "team-a", f"j-{number}"))
    line.enter(_REFERENCE, key("SlurmJob", "team-b", "j"))
    for number in range(2):
        line.leave(_REFERENCE, key("SlurmJob", "team-a", f"j-{number}"))
    assert len(woken) == 2
    return all(key.namespace == "team-a" for key in woken)


@finding("M8", "one namespace uses up the rate of events of all")
async def events_are_one_rate() -> bool:
    written: list[str] = []

    class Api:
        async def create(self, resource: Any, obj: Any) -> Any:
            written.append(obj["metadata"]["namespace"])
            return obj

    made = any_of("isthmus.telemetry.events:EventRecorder", "isthmus.observe.events:EventRecorder")(
        Api(), instance="a", clock=lambda: 0.0
    )
    for namespace in ["team-a"] * 100 + ["team-b"]:
        obj = {
            "apiVersion": "isthmus.dev/v1alpha1",
            "kind": "SlurmJob",
            "metadata": {"namespace": namespace, "name": "j", "uid": "u", "resourceVersion": "1"},
        }
        made.emit(obj, type="Normal", reason=Reason.DELETING, message="a message")
    running = asyncio.create_task(made.run())
    await asyncio.sleep(0.1)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert "team-a" in written
    return "team-b" not in written


class _Hanging:
    """Engines of one namespace answer nothing; who asks the other one is noted."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def get(self, url: str, *, headers: Mapping[str, str]) -> Any:
        if "hanging" not in url:
            self.asked.set()
        await asyncio.sleep(3600)


@finding("M8", "engines of one namespace that hang take all places of the prober")
async def hanging_engines_take_all_places() -> bool:
    engines = _Hanging()
    prober = any_of("isthmus.probing.prober:Prober", "isthmus.health.prober:Prober")(
        engines, on_change=lambda _: None, concurrency=4
    )
    try:
        for number in range(16):
            target = probe_target(f"http://hanging:{number}", timeout=600.0)
            prober.watch(key("SlurmJob", "team-a", f"j-{number}"), target)
        await asyncio.sleep(0.2)
        prober.watch(key("SlurmJob", "team-b", "j"), probe_target("http://10.0.0.1:1"))
        with suppress(TimeoutError):
            await asyncio.wait_for(engines.asked.wait(), 2.0)
        return not engines.asked.is_set()
    finally:
        await prober.close()
