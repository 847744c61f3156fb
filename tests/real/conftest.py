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
    "lease-duration": "6s",
    "renew-interval": "3s",
    "deregister-delay": "1s",
    "pre-stop-seconds": "1s",
    "termination-grace": "60s",
    "failure-backoff-base": "1s",
    "failure-backoff-cap": "10s",
    "retry-cap": "5s",
    "resync-interval": "10s",
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
    prefix = os.environ.get(
        "SLURM_PREFIX"
    )  # another release for the whole layer, as in `make demo`
    release = (
        slurm_releases.resolve(prefix, cache=default_cache(), progress=Progress())
        if prefix
        else None
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
    yield world
    failed = getattr(request.node, "failed_call", False)
    if failed:
        logs = Path(os.environ.get("TEST_LOGS", tempfile.gettempdir())) / "isthmus-test-logs"
        with contextlib.suppress(PlaygroundError, OSError):
            world.playground.save_logs(logs / request.node.name)
            print(f"logs of the playground: {logs / request.node.name}")
            print(world.kubectl("get", "mdep,sj,slc,deployments,pods", "-A", "-o", "wide"))
    world.kubectl("delete", "mdep", "--all", "-n", "default", "--wait=false")

    def gone() -> object:
        operator.start()  # it ends by itself where a test took its lease or its API server away
        left = [*world.objects("mdep"), *world.objects("sj")]
        return not left or Not(", ".join(obj["metadata"]["name"] for obj in left))

    until(gone, "all deployments are gone", timeout=90)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Remember a failed test, so that its fixture can save the logs."""
    report = yield
    if report.when == "call" and report.failed:  # type: ignore[attr-defined]
        item.failed_call = True  # type: ignore[attr-defined]
    return report  # type: ignore[return-value]
