"""One playground for the whole layer, with both schedulers, and an operator in it.

The shell's KUBECONFIG and SLURM_CONF are not looked at. Each test begins with a running operator
and must leave nothing of its deployments behind.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from playground import slurm_releases
from playground.cluster import Config, Playground, default_cache
from playground.errors import PlaygroundError
from playground.operator_process import Operator
from playground.progress import Progress
from tests.real.world import Not, World, until

FAST_SETTINGS = {
    "generate-api-keys": "false",
    "slurm-poll-interval": "300ms",
    "slurm-timeout": "15s",
    "slurm-submit-timeout": "15s",
    "submit-unknown-wait": "12s",
    "deregister-delay": "1s",
    "pre-stop-seconds": "1s",
    "termination-grace": "60s",
    "failure-backoff-base": "1s",
    "failure-backoff-cap": "10s",
    "retry-cap": "5s",
    "resync-interval": "10s",
    "secrets-interval": "1s",
    "ssh-reconnect-pause": "2s",
    "orphan-after": "20s",
    "liveness-port": "0",
}


def arguments(**changed: str) -> list[str]:
    """Arguments of `isthmus run` for tests that shall take seconds."""
    settings = FAST_SETTINGS | {name.replace("_", "-"): value for name, value in changed.items()}
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(scope="session")
def playground() -> Iterator[Playground]:
    """A real Kubernetes and a real SLURM, started for this run alone and taken away after it."""
    state = Path(tempfile.mkdtemp(prefix="isthmus-test-", dir="/var/tmp"))
    state.chmod(0o755)
    # Another release for the whole layer, as for `make demo`.
    named = os.environ.get("SLURM_PREFIX", "")
    release = (
        slurm_releases.resolve(named, cache=default_cache(), progress=Progress()) if named else None
    )
    config = Config(state=state, instance=None, slurm_prefix=release)
    with Playground(config) as started:
        yield started


@pytest.fixture(scope="session")
def installed_world(playground: Playground) -> Iterator[World]:
    world = World(playground)
    operator = Operator(playground, arguments=arguments(), installation_id="testtest")
    world.operators.append(operator)
    operator.start()
    world.apply(world.cluster())
    try:
        yield world
    finally:
        for each in world.operators:
            each.stop()


@pytest.fixture
def operator(installed_world: World) -> Operator:
    """The operator, running."""
    operator = installed_world.operators[0]
    if not operator.running:
        operator.start()
    return operator


@pytest.fixture
def world(
    installed_world: World, operator: Operator, request: pytest.FixtureRequest
) -> Iterator[World]:
    """A world without deployments, and without them again after the test."""
    world = installed_world
    world.require()
    yield world
    failed = save_logs(world, request)
    try:
        tidy(world, operator, patience=30 if failed else 90)
    except AssertionError as error:
        made_anew(world, operator, after=request.node.name)
        print(f"Cut off: {error}")
        if not failed:
            raise
    else:
        world.messes = 0


def tidy(world: World, operator: Operator, *, patience: float) -> None:
    """Delete what the test made, and wait until the operator has ended all of it."""

    def gone() -> object:
        operator.start()  # it ends by itself where a test took its lease or its API server away
        left = world.sweep()
        return not left or Not(", ".join(left))

    until(gone, "all that the test made is gone", timeout=patience)


def made_anew(world: World, operator: Operator, *, after: str) -> None:
    """Where a test left what does not end: cut it off. Twice in a row, and no other one begins."""
    world.messes += 1
    try:
        world.force()
        operator.restart()
        world.apply(world.cluster())
        until(lambda: not world.sweep(), "all is gone after it was cut off", timeout=30)
    except (AssertionError, PlaygroundError) as error:
        world.lost = f"What {after} left could not be cut off: {error}"
    if world.messes > 1:
        world.lost = f"{world.messes} tests in a row left what does not end; the last was {after}"


def save_logs(world: World, request: pytest.FixtureRequest) -> bool:
    """Keep what the parts of the playground said, if the test has failed; returns whether."""
    failed = getattr(request.node, "failed", False)
    if failed:
        logs = Path(os.environ.get("TEST_LOGS", tempfile.gettempdir())) / "isthmus-test-logs"
        with contextlib.suppress(PlaygroundError, OSError):
            world.playground.save_logs(logs / request.node.name)
            print(f"logs of the playground: {logs / request.node.name}")
            print(world.kubectl("get", "mdep,sj,slc,deployments,pods", "-A", "-o", "wide"))
    return failed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Remember a failed test, so that its fixture can save the logs."""
    report = yield
    if report.when != "teardown" and report.failed:  # type: ignore[attr-defined]
        item.failed = True  # type: ignore[attr-defined]
    return report  # type: ignore[return-value]
