"""What takes minutes the first time, before anything is started: `make test` begins here.

A test has a time limit that its fixtures count into, so nothing may be built inside one. Each step
is one that a start of the playground takes as well, and does nothing when its result is there.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from playground import (
    build,
    gotool,
    image,
    images,
    owners,
    packages,
    preflight,
    python_environment,
    routers,
    slurm_releases,
)
from playground.cluster import ensure_accounts
from playground.config import Config
from playground.errors import PlaygroundError
from playground.progress import Progress

BUILDER = {"buildah": "builds the images of the Dockerfile"}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that has to be there.

    Attributes:
        name: what it is, for the line that tells it.
        ensure: makes it unless it is there; tells what it does. Raises PlaygroundError.
    """

    name: str
    ensure: Callable[[Config, Progress], object]


def _packages(config: Config, progress: Progress) -> None:
    wanted = packages.needed(config) | BUILDER
    packages.require(wanted, cache=config.cache, progress=progress)


def _routers(config: Config, progress: Progress) -> None:
    for requirement in (routers.ENVOY, routers.SMG, routers.SGLANG_ROUTER):
        routers.environment(config.cache, requirement, progress)


def _slurm_releases(config: Config, progress: Progress) -> None:
    """What cannot be had is told: all tests but those of that release run without it."""
    for wanted in slurm_releases.SUITES:
        try:
            found = slurm_releases.ensure(wanted, cache=config.cache, progress=progress)
        except PlaygroundError as error:
            progress.say(f"SLURM {wanted} cannot be had, its tests will be skipped: {error}")
        else:
            lock = "" if found.locked else ", which is NOT the locked one"
            progress.say(f"SLURM {wanted} is {found.version}{lock}")


def _kubernetes(config: Config, progress: Progress) -> None:
    build.ensure(build.CLUSTER + build.NODE, cache=config.cache, progress=progress)


STEPS = (
    Step("playgrounds of dead test runs", owners.remove_dead),
    Step("Debian packages", _packages),
    Step("accounts", lambda config, progress: ensure_accounts(config)),
    Step("Go", lambda config, progress: gotool.get(config.cache, progress)),
    Step("Kubernetes and containerd", _kubernetes),
    Step("helm", lambda config, progress: build.ensure_helm(config.cache, progress)),
    Step(
        "Python packages of the operator",
        lambda config, progress: python_environment.ensure_packages(config.cache, progress),
    ),
    Step("images of the engines", lambda config, progress: image.ensure(config.cache, progress)),
    Step("images of Isthmus", lambda config, progress: images.ensure(config.cache, progress)),
    Step("Envoy and other routers", _routers),
    Step("other releases of SLURM", _slurm_releases),
)
"""In this order; the first that fails ends it."""

PROGRAMS = (
    "Debian packages",
    "accounts",
    "Go",
    "Kubernetes and containerd",
    "helm",
    "Envoy and other routers",
)
"""What tests with single processes need."""


def prepare(
    config: Config, progress: Progress, *, only: tuple[str, ...] = (), quiet: bool = False
) -> None:
    """Take every step, and say which one it is and how long it took.

    Args:
        config: what kind of playground is prepared for; none is started.
        progress: where it is said.
        only: names of steps, when not all of them are wanted.
        quiet: say nothing of steps that had nothing to do.

    Raises:
        PlaygroundError: naming everything that is missing on this machine, or the step that failed.
    """
    preflight.check(config)
    begin = time.monotonic()
    steps = [step for step in STEPS if not only or step.name in only]
    for number, step in enumerate(steps, start=1):
        started = time.monotonic()
        # What a step itself says comes sooner; this is for one that waits for another start.
        with progress.heartbeat(lambda name=step.name: name, every=60.0):  # type: ignore[misc]
            step.ensure(config, progress)
        took = time.monotonic() - started
        if not quiet:
            progress.say(f"[{number}/{len(steps)}] {step.name}: there ({took:.1f} s)")
    if not quiet:
        progress.say(f"prepared in {time.monotonic() - begin:.0f} s; kept in {config.cache}")
