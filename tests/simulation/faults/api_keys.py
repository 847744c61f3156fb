"""API keys are changed, deleted, or written so that they cannot be used."""

import base64
from random import Random

from isthmus.api import names
from isthmus.api.keys import DEFAULT_SECRET_KEY
from isthmus.apiserver import objects as k8s
from isthmus.apiserver.resources import (
    SECRETS,
)
from tests.canaries import CANARY, SHAPES
from tests.simulation.faults.register import happens, later, some_deployment
from tests.simulation.promises.secrecy import SECRET_MARK
from tests.simulation.world import World

_UNUSABLE = (
    b"too short",
    *(
        value.replace(CANARY.encode(), SECRET_MARK.encode())
        for name, value in SHAPES.items()
        if name != "huge"
    ),
)
"""What is no key, with the mark in it by which it would be found wherever it shows."""


KEYS_NOTICED = 120.0
"""A resync and the memory of Secrets, with jitter."""


@happens(0.8)
def change_key(world: World, random: Random) -> None:
    """By deleting the generated Secret, by writing another key into it, or by another endpoint."""
    found = some_deployment(world, random)
    if found is None:
        return
    place = k8s.namespace(found), names.api_key_secret(k8s.name(found))
    if world.api.get(SECRETS, *place) is None:
        return
    if random.random() < 0.15:
        world.tell("user: another endpoint, with or without a key for each attempt")
        world.keys_apart = not world.keys_apart
        world.keys_noticed_at = world.now + KEYS_NOTICED
        return
    if random.random() < 0.4:
        world.api.delete(SECRETS, *place, by="user")
        world.keys_noticed_at = world.now + KEYS_NOTICED
        return
    if random.random() < 0.2:
        write_key(world, place, random.choice(_UNUSABLE))
        later(world, random.random() * 100, lambda: write_key(world, place, new_key(random)))
    else:
        write_key(world, place, new_key(random))


def new_key(random: Random) -> str:
    return f"{SECRET_MARK}{random.randrange(1 << 60)}"


def write_key(world: World, place: tuple[str, str], key: str | bytes) -> None:
    world.keys_noticed_at = world.now + KEYS_NOTICED
    value = key if isinstance(key, bytes) else key.encode()
    data = {DEFAULT_SECRET_KEY: base64.b64encode(value).decode()}
    with world.may_fail():
        world.api.patch(SECRETS, *place, patch={"data": data}, subresource="", by="user")
