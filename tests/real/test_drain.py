"""How workers on SLURM end: TERM to the engine's main process alone, and streams are finished."""

import json
import threading

import httpx
import pytest

from tests.real.world import World, deployment, slurm_pool, until

TOKENS = 40


class Stream(threading.Thread):
    """One streamed chat completion that takes some seconds."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
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
            "messages": [{"role": "user", "content": "count"}],
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


def slow_pool() -> dict[str, object]:
    """Engines that take about five seconds for an answer of `TOKENS`."""
    env = {"SIMULATOR_LOAD_SECONDS": "0.3", "SIMULATOR_TOKENS_PER_SECOND": "8"}
    return slurm_pool(engine={"env": [{"name": n, "value": v} for n, v in env.items()]})


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
def test_deleted_slurmjob_is_replaced(world: World) -> None:
    world.apply(deployment("renew", slurm_pool(), replicas=1))
    world.wait_agree("renew", slurm=1)
    (old,) = world.objects("sj", "renew")
    world.kubectl("delete", "sj", old["metadata"]["name"], timeout=60)
    world.wait_agree("renew", slurm=1)
    (new,) = world.objects("sj", "renew")
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
