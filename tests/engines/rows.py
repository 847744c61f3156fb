"""The rows of the table: what has to hold for each engine on each scheduler.

The first line of a row's text stands in the table. Rows are written by what a user is promised,
not by what an engine does today; each fails with AssertionError, and what it returns is a word of
what was measured.
"""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from playground.processes import alive, all_processes, command_line, send
from tests.engines import running
from tests.engines.client import Ask, Load, ask
from tests.engines.site import PATIENCE, START, Log, Site, Worker
from tests.real.world import Not, bearer, until

GONE_AT_ONCE = 12.0
"""Seconds for a worker that has never served. An engine that ignores TERM takes minutes; the hook
that waits for metrics nobody sends takes 15."""
LEFT_BEHIND = 30.0
"""Seconds within which nothing of an engine may be left once its main process is dead."""
REPLACED = 2 * START
"""Seconds within which a worker that ended is replaced by one that serves."""
PREFILL = 20.0
"""Seconds that the engine shall read a prompt, at least."""
STREAM = 40.0
"""Seconds that a stream shall take."""
BEFORE = 20
"""Requests answered before something happens, and after it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        check: does it; raises AssertionError.
        sites: `ENGINE-SCHEDULER` of those it is for.
    """

    check: Callable[[Site], str]
    sites: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.check.__name__

    @property
    def promise(self) -> str:
        return (self.check.__doc__ or "").partition("\n")[0]


SITES = ("vllm-job", "sglang-job", "vllm-pod", "sglang-pod")
JOBS = ("vllm-job", "sglang-job")


def ready(site: Site) -> str:
    """A worker that is asked for becomes ready, and nobody tells another story."""
    site.remove_deployment(site.name)
    began = time.monotonic()
    (worker,) = site.serve()
    assert _status(worker.url, "/health") == 200
    return f"ready after {time.monotonic() - began:.0f} s"


def identity(site: Site) -> str:
    """The worker says which attempt it is, in the engine's own words."""
    (worker,) = site.serve()
    attempt = site.world.get("sj", worker.name)["spec"]["attempt"]
    path = "/model_info" if site.engine == "sglang" else "/v1/models"
    answer = httpx.get(
        f"{worker.url}{path}", headers=bearer(site.key), timeout=20, trust_env=False
    ).json()
    if site.engine == "sglang":
        assert answer["weight_version"] == attempt, answer
    else:
        names = [model["id"] for model in answer["data"]]
        assert "llama" in names, names
        assert any(attempt in name for name in names if name != "llama"), names
    return ""


def key(site: Site) -> str:
    """Without the API key 401, with it 200, through the front without one 200; it shows nowhere."""
    (worker,) = site.serve()
    secret = site.key
    assert len(secret) >= 16
    path = "/v1/models"
    assert _status(worker.url, path) == 401
    assert _status(worker.url, path, key="x" * 43) == 401
    assert _status(worker.url, path, key=secret) == 200
    ask(site.front)
    shown = [pid for pid in all_processes() if secret in " ".join(command_line(pid))]
    assert not shown, f"processes {shown} have the key in their arguments"
    if site.scheduler == "job":
        with site.follow(worker) as log:
            assert secret not in log.text(), "the key is in the job's log"
    return ""


def streams(site: Site) -> str:
    """Eight requests at a time through the front, half of them streams, are answered whole."""
    site.serve()
    with Load(site.front, lanes=8, tokens=48) as load:
        load.wait_answered(40, timeout=120 * PATIENCE)
    return load.assert_no_failure()


def drain_in_prefill(site: Site) -> str:
    """A worker that reads a long prompt is not idle: it ends after that answer, which is whole."""
    (worker,) = site.serve()
    length = site.prompt_for(worker, PREFILL)
    with site.follow(worker) as log:
        request = site.direct(worker, prompt_tokens=length, tokens=40)
        time.sleep(2)  # it is being read now
        assert not request.begun.is_set(), f"a prompt of {length} tokens was read in 2 s"
        site.remove(worker)
        request.join()
        assert not request.problem, f"after {request.seconds:.0f} s: {request.problem}"
        assert request.first_token > 12, f"read in {request.first_token:.0f} s: too soon"
        site.wait_gone(worker, timeout=90)
        _assert_waited_for(log, request)
    site.wait_served()
    return f"{length} tokens read in {request.first_token:.0f} s"


def drain_in_streams(site: Site) -> str:
    """A worker that is deleted finishes its streams, and goes soon after the last."""
    (worker,) = site.serve()
    tokens = site.tokens_for(worker, STREAM)
    with site.follow(worker) as log:
        requests = [site.direct(worker, tokens=tokens) for _ in range(4)]
        for request in requests:
            assert request.begun.wait(60 * PATIENCE), "no first token"
        site.remove(worker)
        deleted = time.monotonic()
        for request in requests:
            request.join()
        problems = [request.problem for request in requests if request.problem]
        assert not problems, f"{len(problems)} of 4 streams: {problems[0]}"
        last = max(request.ended for request in requests)
        assert last - deleted > 8, "every stream had ended by then: nothing is shown"
        site.wait_gone(worker, timeout=90)
        seconds = time.monotonic() - last
        _assert_waited_for(log, *requests)
    site.wait_served()
    return f"{last - deleted:.0f} s of streams; gone {seconds:.0f} s after the last"


def _assert_waited_for(log: Log, *requests: Ask) -> None:
    """The engine had its TERM after the last answer, or within the second that a look takes."""
    assert log.told is not None, "its log does not say that it was told to end"
    early = max(request.ended for request in requests) - log.told
    assert early < 1, f"the engine was told to end {early:.0f} s before it had answered"


def delete_while_loading(site: Site) -> str:
    """A worker that loads and is deleted is gone at once."""
    name = f"{site.name}-late"
    site.world.apply(site.deployment(name))
    kind = "pods" if site.scheduler == "pod" else "sj"

    def loading() -> Any:
        for obj in site.world.objects(kind, name):
            if obj["metadata"].get("labels", {}).get("isthmus.dev/component") == "front":
                continue
            found = site.processes(obj["metadata"]["name"])
            main = running.main_process(found)
            # With its first child it has read its arguments and begun to load.
            if main is not None and len(running.descendants(main)) > 1:
                return obj["metadata"]["name"], found
        return Not(f"{name} does not load yet")

    worker, found = until(loading, f"{name} loads", timeout=180 * PATIENCE)
    assert site.world.status(name).get("ready") == "0/1", "it served already"
    began = time.monotonic()
    site.world.delete(name, wait=False)

    def gone() -> Any:
        left = [running.title(process) for process in found if alive(process)]
        there = site.world.get("pod" if site.scheduler == "pod" else "sj", worker)
        return not (left or there) or Not(f"{worker}: {left or 'object'}")

    try:
        until(gone, "it is gone", timeout=GONE_AT_ONCE * PATIENCE)
    finally:
        site.remove_deployment(name)
    return f"gone after {time.monotonic() - began:.0f} s"


def kill_main(site: Site) -> str:
    """After kill -9 of its main process nothing of an engine is left, and another one serves."""
    (worker,) = site.serve()
    return _kill(site, worker, worker.processes[0].pid)


def kill_child(site: Site) -> str:
    """After kill -9 of a process that computes the whole engine ends, and another one serves."""
    (worker,) = site.serve()
    titles = {process: running.title(process) for process in worker.processes[1:]}
    mark = "EngineCore" if site.engine == "vllm" else "scheduler"
    chosen = [process for process, title in titles.items() if mark in title]
    assert chosen, f"no {mark} among {sorted(titles.values())}"
    return _kill(site, worker, chosen[0].pid)


def _kill(site: Site, worker: Worker, pid: int) -> str:
    (victim,) = [process for process in worker.processes if process.pid == pid]
    send(victim, signal.SIGKILL)
    began = time.monotonic()

    def ended() -> Any:
        left = [running.title(process) for process in worker.processes if alive(process)]
        return not left or Not(f"still there: {left}")

    try:
        until(ended, "nothing of the engine is left", timeout=LEFT_BEHIND * PATIENCE)
    finally:
        seconds = time.monotonic() - began
        for process in worker.processes:
            send(process, signal.SIGKILL)
    until(
        lambda: _replaced(site, worker),
        "another one serves",
        timeout=REPLACED * PATIENCE,
        every=1.0,
    )
    site.wait_served()
    ask(site.front)
    return f"nothing left after {seconds:.0f} s"


def _replaced(site: Site, worker: Worker) -> Any:
    """Another worker is ready: of pods it may be the same one with another container."""
    status = site.world.status(site.name)
    if status.get("ready") != "1/1":
        return Not("not ready")
    # Until the next probe the status says what held before: look once, the caller comes again.
    (main, *_) = site.engine_of(status["workers"][0]["name"]) or (None,)
    return main not in (None, worker.processes[0]) or Not(f"its main process: {main}")


def update_under_load(site: Site) -> str:
    """Other arguments reach every worker, and no request fails meanwhile."""
    (old,) = site.serve()
    with Load(site.front) as load:
        load.wait_answered(BEFORE, timeout=120 * PATIENCE)
        site.world.apply(site.deployment(site.name, batch=6))
        until(
            lambda: old.name not in _names(site) or Not(str(_names(site))),
            "the old one is replaced",
            timeout=REPLACED * PATIENCE,
            every=1.0,
        )
        site.wait_gone(old, timeout=120)
        site.wait_served()
        load.wait_answered(BEFORE, timeout=120 * PATIENCE)
    return load.assert_no_failure()


def scale_down_under_load(site: Site) -> str:
    """From two workers to one, and no request fails."""
    both = site.serve(replicas=2)
    with Load(site.front) as load:
        load.wait_answered(BEFORE, timeout=120 * PATIENCE)
        site.world.scale(site.name, 1)
        (left,) = site.wait_served()
        (gone,) = [worker for worker in both if worker.name != left.name]
        site.wait_gone(gone, timeout=120)
        load.wait_answered(BEFORE, timeout=120 * PATIENCE)
    return load.assert_no_failure()


def two_gpus(site: Site) -> str:
    """A pod with two GPUs, whose processes share memory, becomes ready and answers."""
    site.remove_deployment(site.name)
    site.world.apply(site.deployment(site.name, gpus=2))
    site.wait_served()
    ask(site.front)
    site.remove_deployment(site.name)
    return ""


ROWS = (
    Row(ready, SITES),
    Row(identity, JOBS),
    Row(key, SITES),
    Row(streams, SITES),
    Row(drain_in_prefill, SITES),
    Row(drain_in_streams, SITES),
    Row(kill_main, SITES),
    Row(kill_child, SITES),
    Row(delete_while_loading, SITES),
    Row(update_under_load, SITES),
    Row(scale_down_under_load, SITES),
    Row(two_gpus, ("vllm-pod",)),
)


def _names(site: Site) -> set[str]:
    """The workers that the status tells of."""
    return {worker["name"] for worker in site.world.status(site.name).get("workers", [])}


def _status(url: str, path: str, *, key: str = "") -> int:
    return httpx.get(f"{url}{path}", headers=bearer(key), timeout=30, trust_env=False).status_code
