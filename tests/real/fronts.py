"""What the tests of the front share: an operator that makes fronts, and when one is complete."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from playground.front_image import import_front_image
from playground.operator_process import Operator
from tests.real.api import Json
from tests.real.conftest import arguments
from tests.real.world import Not, World, deployment, until


@contextlib.contextmanager
def operator_with_fronts(world: World) -> Iterator[Operator]:
    """In place of the other operator; it gives every deployment with jobs a key, too."""
    image = import_front_image(world.playground)
    before = world.operators[0]
    before.stop()
    operator = Operator(
        world.playground,
        arguments=arguments(
            front_image=image,
            front_drain="60s",
            generate_api_keys="true",
        ),
        installation_id="testtest",
    )
    world.operators[0] = operator
    operator.start()
    try:
        yield operator
    finally:
        operator.stop()
        world.operators[0] = before


def managed(name: str, *pools: Json, replicas: int) -> Json:
    """A deployment behind a front."""
    return deployment(name, *pools, replicas=replicas, endpoint={"type": "Managed"})


def fronts(world: World, name: str) -> list[Json]:
    """The front's pods that are not on their way out."""
    selector = f"isthmus.dev/modeldeployment={name},isthmus.dev/component=front"
    return [pod for pod in world.pods(selector) if not pod["metadata"].get("deletionTimestamp")]


def wait_fronts(world: World, name: str) -> None:
    """Both front pods, and nothing else, are behind the users' Service."""

    def ready() -> Any:
        wanted = {f"{pod['status'].get('podIP')}:8080" for pod in fronts(world, name)}
        members = world.members(name)
        return (len(members) == 2 and members == wanted) or Not(f"{members} of {wanted}")

    until(ready, "two front pods are ready", timeout=150)
