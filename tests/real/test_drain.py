"""How workers end: out of rotation first, and what is under way is finished, on both schedulers."""

import contextlib
import json
import os
import signal
import threading
from pathlib import Path

import httpx
import pytest

from tests.real.world import World, deployment, kubernetes_pool, slurm_pool, until

TOKENS = 40


class Stream(threading.Thread):
    """One streamed chat completion that takes some seconds."""

    def __init__(self, url: str, *, prompt: str = "count") -> None:
        super().__init__(daemon=True)
        self.url, self.prompt = url, prompt
        self.begun = threading.Event()
        self.text: list[str] = []
        self.finish_reason = ""
        self.error = ""

    def run(self) -> None:
        body = {
            "model": "llama",
            "stream": True,
            "max_tokens": TOKENS,
            "ignore_eos": True,
            "messages": [{"role": "user", "content": self.prompt}],
        }
        try:
            with httpx.stream(
                "POST", f"{self.url}/v1/chat/completions", json=body, timeout=60, trust_env=False
            ) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data: {"):
                        self._take(json.loads(line.removeprefix("data: ")))
        except httpx.HTTPError as error:
            self.error = repr(error)

    def _take(self, event: dict[str, object]) -> None:
        if "error" in event:
            self.error = str(event["error"])
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            self.text.append(str(choice.get("delta", {}).get("content") or ""))
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            self.begun.set()


def slow_pool(*, tokens_per_second: int = 8) -> dict[str, object]:
    """Engines that take about five seconds for an answer of `TOKENS`."""
    return slurm_pool(engine=slow_engine(tokens_per_second))


def slow_pods(*, tokens_per_second: int = 8) -> dict[str, object]:
    return kubernetes_pool(engine=slow_engine(tokens_per_second))


def slow_engine(tokens_per_second: int) -> dict[str, object]:
    rate = str(tokens_per_second)
    env = {"SIMULATOR_LOAD_SECONDS": "0.3", "SIMULATOR_TOKENS_PER_SECOND": rate}
    return {"env": [{"name": n, "value": v} for n, v in env.items()]}


def open_streams(url: str, count: int) -> list[Stream]:
    streams = [Stream(url) for _ in range(count)]
    for stream in streams:
        stream.start()
    for stream in streams:
        assert stream.begun.wait(20), stream.error
    return streams


def assert_finished(streams: list[Stream]) -> None:
    for stream in streams:
        stream.join(60)
        assert not stream.error
        assert stream.finish_reason == "length"


@pytest.mark.timeout(180)
def test_term_reaches_only_the_main_process_and_streams_finish(world: World) -> None:
    """What the operator sends, sent by hand: `scancel --batch -s TERM`."""
    world.apply(deployment("term", slow_pool(), replicas=1))
    world.wait_agree("term", slurm=1)
    (job,) = world.jobs("term")
    (worker,) = world.status("term")["workers"]
    streams = open_streams(worker["url"], 4)
    world.playground.slurm.command(
        "scancel", "--batch", "--signal=TERM", f"--name={job['name']}", job["id"], user="svc"
    )
    assert_finished(streams)
    log = next((world.playground.state / "jobs").glob(f"{job['name']}.*.log"))
    until(lambda: "the engine ended with 0" in log.read_text(), "the engine ended by itself")
    # TERM to its scheduler would have been a crash with exit code 137 (SGLang 0.5.23).
    assert "crashed" not in log.read_text()


@pytest.mark.timeout(180)
def test_scaling_down_finishes_streams(world: World) -> None:
    world.apply(deployment("down", slow_pool(), replicas=1))
    world.wait_agree("down", slurm=1)
    (worker,) = world.status("down")["workers"]
    streams = open_streams(worker["url"], 4)
    world.scale("down", 0)
    until(lambda: not world.members("down"), "out of the membership first")
    assert any(stream.is_alive() for stream in streams)
    assert_finished(streams)
    world.wait_agree("down")


@pytest.mark.timeout(180)
def test_a_worker_in_prefill_is_not_idle(world: World) -> None:
    """Its scheduler tells of no request then; TERM comes only when there is none."""
    engine = {"SIMULATOR_LOAD_SECONDS": "0.3", "SIMULATOR_PREFILL_TOKEN_SECONDS": "1"}
    env = [{"name": n, "value": v} for n, v in engine.items()]
    world.apply(deployment("prefill", slurm_pool(engine={"env": env}), replicas=1))
    world.wait_agree("prefill", slurm=1)
    (job,) = world.jobs("prefill")
    (worker,) = world.status("prefill")["workers"]
    log = next((world.playground.state / "jobs").glob(f"{job['name']}.*.log"))
    stream = Stream(worker["url"], prompt="word " * 16)  # twenty tokens with those of its role
    stream.start()
    world.scale("prefill", 0)
    until(lambda: not world.members("prefill"), "out of the membership first")
    while stream.is_alive():
        told = "SIGTERM received" in log.read_text()
        assert not told or not stream.is_alive(), "told to end in prefill"
        stream.join(0.1)
    assert_finished([stream])
    world.wait_agree("prefill")


@pytest.mark.timeout(180)
def test_nothing_of_a_killed_vllm_outlives_its_job(world: World) -> None:
    """Its processes live on without it, and where SLURM tracks parents it does not find them."""
    engine = {"type": "vllm", "args": []}
    world.apply(deployment("killed", slurm_pool(engine=engine), replicas=1))
    world.wait_agree("killed", slurm=1)
    (job,) = world.jobs("killed")
    found = engine_processes(world, job["id"])
    (main,) = [pid for pid, parent in found.items() if parent not in found]
    assert len(found) == 3, "EngineCore and a worker beside it"
    os.kill(main, signal.SIGKILL)
    until(lambda: not engine_processes(world, job["id"]), "nothing of it is left")
    world.wait_agree("killed", slurm=1)
    world.scale("killed", 0)
    world.wait_agree("killed")


def engine_processes(world: World, job_id: str) -> dict[int, int]:
    """The processes of a job's engine and their parents, as the machine numbers them."""
    configuration = f"SLURM_CONF={world.playground.slurm.configuration}".encode()
    wanted = {f"SLURM_JOB_ID={job_id}".encode(), configuration}
    found: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().split(b"\0")
            environment = set((folder / "environ").read_bytes().split(b"\0"))
            if wanted <= environment and b"serve" in command:
                stat = (folder / "stat").read_text(encoding="ascii")
                found[int(folder.name)] = int(stat.rsplit(")", 1)[1].split()[1])
    return found


@pytest.mark.timeout(180)
def test_deleted_slurmjob_is_replaced(world: World) -> None:
    world.apply(deployment("renew", slurm_pool(), replicas=1))
    world.wait_agree("renew", slurm=1)
    (old,) = world.objects("sj", "renew")
    world.remove("sj", old["metadata"]["name"], timeout=60)
    world.wait_agree("renew", slurm=1)
    (new,) = world.objects("sj", "renew")
    assert new["metadata"]["uid"] != old["metadata"]["uid"]


@pytest.mark.timeout(240)
def test_streams_of_the_pod_that_is_scaled_away_finish(world: World) -> None:
    """The one without requests goes where there is a choice; one that has some is waited for."""
    world.apply(deployment("pods", slow_pods(tokens_per_second=3), replicas=2))
    world.wait_agree("pods", kubernetes=2)
    busy, idle = world.status("pods")["workers"]
    streams = open_streams(busy["url"], 4)
    world.scale("pods", 1)
    until(lambda: world.members("pods") == {_place(busy)}, "the idle one leaves the rotation")
    until(lambda: idle["name"] not in _pods(world, "pods"), "and goes")
    assert_finished(streams)
    streams = open_streams(busy["url"], 4)
    world.scale("pods", 0)
    until(lambda: not world.members("pods"), "out of rotation first")
    assert any(stream.is_alive() for stream in streams)
    assert_finished(streams)
    world.wait_agree("pods")


@pytest.mark.timeout(240)
def test_an_update_of_pods_finishes_streams(world: World) -> None:
    world.apply(deployment("fresh", slow_pods(tokens_per_second=4), replicas=1))
    world.wait_agree("fresh", kubernetes=1)
    (old,) = world.status("fresh")["workers"]
    streams = open_streams(old["url"], 4)
    pool = slow_pods(tokens_per_second=400)
    world.patch("fresh", {"spec": {"pools": [pool]}})
    until(lambda: world.members("fresh") - {_place(old)}, "the new one serves")
    until(lambda: _place(old) not in world.members("fresh"), "the old one leaves the rotation")
    drains = until(lambda: world.status("fresh").get("draining") == 1, "status.draining")
    assert drains
    assert any(stream.is_alive() for stream in streams)
    assert_finished(streams)
    world.wait_agree("fresh", kubernetes=1)


@pytest.mark.timeout(240)
def test_a_deleted_pod_finishes_its_streams_without_any_operator(world: World) -> None:
    world.apply(deployment("alone", slow_pods(), replicas=1))
    world.wait_agree("alone", kubernetes=1)
    (worker,) = world.status("alone")["workers"]
    streams = open_streams(worker["url"], 4)
    for operator in world.operators:
        operator.kill()
        world.end_lease(operator)
    world.remove("pod", worker["name"], wait=False)
    assert_finished(streams)
    until(lambda: worker["name"] not in _pods(world, "alone"), "it goes when it is idle")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("engine", "part", "line"),
    [
        ("vllm", "2", "Initializing a V1 LLM engine"),
        ("sglang", "1", "server_args="),
        ("sglang", "2", "Uvicorn running on"),
    ],
)
def test_a_pod_that_loads_goes_at_once(world: World, engine: str, part: str, line: str) -> None:
    """Its engine hangs, or has no handler for TERM, and its grace is more than ten minutes."""
    env = [{"name": "SIMULATOR_LOAD_SECONDS", "value": "0.3"}]
    env += [{"name": "SIMULATOR_HANG_AT_LOAD", "value": part}]
    image = f"localhost/{engine}-simulator:1"
    pool = kubernetes_pool(engine={"type": engine, "image": image, "args": [], "env": env})
    world.apply(deployment("loads", pool, replicas=1, drain={"timeout": "10m"}))

    def loading() -> str:
        (pod,) = _pods(world, "loads") or {""}
        said = world.kubectl("logs", pod, "--ignore-errors") if pod else ""
        return pod if line in said else ""

    pod = until(loading, f"the engine says {line}")
    assert world.get("pod", pod)["spec"]["terminationGracePeriodSeconds"] > 600
    world.kubectl("delete", "pod", pod, "--wait=false")
    until(lambda: pod not in _pods(world, "loads"), "it is gone")
    # So are those that the operator gives up.
    world.delete("loads", wait=False)
    until(lambda: not world.leftovers("loads"), "all is gone")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("backend", ["kubernetes", "slurm"])
def test_deleting_the_deployment_finishes_streams(world: World, backend: str) -> None:
    pool = slow_pods() if backend == "kubernetes" else slow_pool()
    world.apply(deployment("leave", pool, replicas=1))
    world.wait_agree("leave", **{backend: 1})
    (worker,) = world.status("leave")["workers"]
    streams = open_streams(worker["url"], 4)
    world.delete("leave", wait=False)
    assert_finished(streams)
    until(lambda: not world.leftovers("leave"), "all is gone")


@pytest.mark.timeout(240)
def test_a_deleted_slurmjob_finishes_streams_also_over_an_operator_restart(world: World) -> None:
    world.apply(deployment("over", slow_pool(tokens_per_second=4), replicas=1))
    world.wait_agree("over", slurm=1)
    (worker,) = world.status("over")["workers"]
    streams = open_streams(worker["url"], 4)
    world.remove("sj", worker["name"], wait=False)
    until(lambda: _place(worker) not in world.members("over"), "out of the membership first")
    since = world.get("sj", worker["name"])["status"].get("drainingSince")
    for operator in world.operators:
        operator.kill()
        world.end_lease(operator)
        operator.start()
    assert_finished(streams)
    after = world.get("sj", worker["name"]).get("status", {}).get("drainingSince", since)
    assert since is None or after == since
    world.wait_agree("over", slurm=1)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("backend", ["kubernetes", "slurm"])
def test_a_drain_cut_by_its_budget_is_told(world: World, backend: str) -> None:
    make = slow_pods if backend == "kubernetes" else slow_pool
    pool = make(tokens_per_second=1)
    world.apply(deployment("short", pool, replicas=1, drain={"timeout": "3s"}))
    world.wait_agree("short", **{backend: 1})
    (worker,) = world.status("short")["workers"]
    streams = open_streams(worker["url"], 3)
    job_name = "".join(job["name"] for job in world.jobs("short"))
    world.scale("short", 0)

    def told() -> object:
        for one in world.status("short").get("workers", []):
            reason = one.get("draining", {}).get("reason", "")
            if reason == "3 requests interrupted after drain.timeout 3s":
                return reason
        return None

    until(told, "the status says what was cut", every=0.05)
    until(
        lambda: (
            "3 requests interrupted after drain.timeout"
            in str([event.get("message") for event in world.objects("events")])
        ),
        "and so does an event",
    )
    assert any(stream.is_alive() for stream in streams)
    # All is told; who waits for it to end, waits for the rest of forty tokens.
    if backend == "kubernetes":
        world.kubectl("delete", "pod", worker["name"], "--force", "--grace-period=0")
    else:
        world.playground.slurm.command("scancel", f"--name={job_name}", user="svc")


def _place(worker: dict[str, str]) -> str:
    return worker["url"].removeprefix("http://")


def _pods(world: World, name: str) -> set[str]:
    return {pod["metadata"]["name"] for pod in world.objects("pods", name)}
