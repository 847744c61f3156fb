"""Two processes and one Lease on a real API server: never do both write, whatever happens."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from isthmus.apiserver.election import uptime
from isthmus.apiserver.objects import dig
from isthmus.apiserver.resources import LEASES
from tests.bareapi import bare_api, connect, new_namespace
from tests.real.leader_process import LOOKS

DURATION = 4.0
PROGRAM = "tests.real.leader_process"


class Candidate:
    """One process of `leader_process.py`."""

    def __init__(self, namespace: str, identity: str, folder: Path) -> None:
        root = Path(__file__).parents[2]
        self.log = folder / f"{identity}.log"
        kubeconfig = str(bare_api().kubernetes.kubeconfig)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", PROGRAM, kubeconfig, namespace, identity, str(DURATION)],
                cwd=root,
                env=os.environ | {"PYTHONPATH": f"{root / 'operator'}:{root}"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def times(self, what: str) -> list[float]:
        """Return when it said `what`, by the clock of all processes."""
        lines = self.log.read_text().splitlines()
        words = [line.split() for line in lines if len(line.split()) == 2]
        return [float(word[1]) for word in words if word[0] == what]

    def wait_for(self, what: str, *, after: float = 0.0) -> float:
        """Wait until it says `what` after a time, and return when."""
        found: list[float] = []

        def said() -> bool:
            found[:] = [at for at in self.times(what) if at > after]
            return bool(found)

        until(said, what=f"{self.log.name} says {what}; it says: {self.log.read_text()[-500:]}")
        return found[0]

    def looks(self, *, since: float, until: float) -> int:
        """Count how often it looked at the Lease between two moments, and had to wait."""
        return sum(since < at < until for at in self.times("look"))

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait(timeout=10)


def until(condition: Callable[[], bool], *, what: str) -> None:
    end = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < end, f"in 40 s it did not come true that {what}"
        time.sleep(0.02)


@pytest.fixture
async def namespace() -> AsyncIterator[str]:
    api = await connect()
    yield await new_namespace(api)
    await api.close()


@pytest.fixture
def pair(namespace: str, tmp_path: Path) -> Iterator[tuple[Candidate, Candidate]]:
    """A leader and one that waits."""
    with candidate(namespace, "one", tmp_path) as one:
        one.wait_for("write")
        with candidate(namespace, "two", tmp_path) as two:
            two.wait_for("candidate")
            yield one, two


@contextmanager
def candidate(namespace: str, identity: str, folder: Path) -> Iterator[Candidate]:
    started = Candidate(namespace, identity, folder)
    try:
        yield started
    finally:
        started.end()


def assert_apart(one: Candidate, two: Candidate) -> None:
    """One's last write is before two's first one."""
    assert max(one.times("write")) < min(two.times("write"))


def test_killed_leader_is_replaced(pair: tuple[Candidate, Candidate]) -> None:
    one, two = pair
    one.send(signal.SIGKILL)
    killed = uptime()
    took_over = two.wait_for("write")
    looks = two.looks(since=killed, until=took_over)
    assert LOOKS / 2 < looks < LOOKS * 1.5, "as long as one lease, counted in looks"
    assert_apart(one, two)


def test_stopped_leader_never_writes_again(pair: tuple[Candidate, Candidate]) -> None:
    """Stopped past its lease, it must not write a single time when it goes on."""
    one, two = pair
    one.send(signal.SIGSTOP)
    two.wait_for("write")
    one.send(signal.SIGCONT)
    one.wait_for("refused")
    assert_apart(one, two)


def test_shortly_stopped_leader_goes_on(pair: tuple[Candidate, Candidate]) -> None:
    one, two = pair
    one.send(signal.SIGSTOP)
    stopped = uptime()
    until(lambda: uptime() - stopped > DURATION / 3, what="time passes")
    one.send(signal.SIGCONT)
    one.wait_for("write", after=uptime() + DURATION)
    assert two.times("write") == []


def test_released_lease_is_taken_without_waiting_for_its_end(
    pair: tuple[Candidate, Candidate],
) -> None:
    one, two = pair
    assert one.process.stdin
    one.process.stdin.write(b"\n")
    one.process.stdin.flush()
    released = one.wait_for("released")
    took_over = two.wait_for("write")
    assert two.looks(since=released, until=took_over) <= 1, "one that had begun before"
    assert_apart(one, two)


def test_leader_without_an_api_server_stops_writing(pair: tuple[Candidate, Candidate]) -> None:
    """A frozen API server accepts connections and never answers."""
    one, _ = pair
    process = bare_api().components.process("kube-apiserver")
    assert process
    os.kill(process.pid, signal.SIGSTOP)
    frozen = uptime()
    try:
        one.wait_for("refused")
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert max(one.times("write")) < frozen + DURATION, "before another could lead"


async def test_lease_is_readable_by_people(pair: tuple[Candidate, Candidate]) -> None:
    one, _ = pair
    api = await connect()
    namespace = one.process.args[4]  # type: ignore[index]
    lease = await api.get(LEASES, namespace=str(namespace), name="isthmus")
    await api.close()
    assert dig(lease, "spec", "holderIdentity") == "one"
    assert dig(lease, "spec", "leaseDurationSeconds") == DURATION
    assert str(dig(lease, "spec", "renewTime")).endswith("Z")
    assert dig(lease, "spec", "leaseTransitions") == 0
