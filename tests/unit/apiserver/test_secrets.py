"""Values of Secrets: decoded, remembered for a while, and told precisely where they are missing."""

import base64
from typing import Any

import pytest

from isthmus.apiserver.secrets import SecretRef, Secrets
from isthmus.errors import SecretMissingError


class Api:
    def __init__(self, obj: Any) -> None:
        self.obj, self.reads = obj, 0

    async def get(self, resource: Any, *, namespace: str, name: str) -> Any:
        self.reads += 1
        return self.obj


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


REF = SecretRef(namespace="isthmus-system", name="ssh", key="id")


def secret(**data: bytes) -> dict[str, object]:
    return {"data": {key: base64.b64encode(value).decode() for key, value in data.items()}}


def make(obj: Any) -> tuple[Secrets, Api, Clock]:
    api, clock = Api(obj), Clock()
    return Secrets(api, clock=clock, max_age=30.0), api, clock  # type: ignore[arg-type]


async def test_a_value_is_decoded_and_remembered_for_a_while() -> None:
    secrets, api, clock = make(secret(id=b"one"))
    assert await secrets.value(REF) == b"one"
    api.obj = secret(id=b"two")
    clock.now = 29.0
    assert await secrets.value(REF) == b"one"
    clock.now = 31.0
    assert await secrets.value(REF) == b"two"
    assert api.reads == 2


async def test_forgetting_reads_anew() -> None:
    secrets, api, _ = make(secret(id=b"one"))
    await secrets.value(REF)
    api.obj = secret(id=b"two")
    secrets.forget()
    assert await secrets.value(REF) == b"two"


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        (None, "does not exist: create it with `kubectl create secret generic ssh"),
        (secret(other=b"x"), "has no key 'id'"),
        ({"data": {"id": "%%%"}}, "is not base64"),
    ],
)
async def test_what_is_missing_is_told_with_what_to_do(obj: Any, words: str) -> None:
    secrets, _, _ = make(obj)
    with pytest.raises(SecretMissingError) as caught:
        await secrets.value(REF)
    assert words in str(caught.value)


async def test_text_is_one_line_without_the_white_space_around_it() -> None:
    secrets, api, _ = make(secret(id=b"  key\n"))
    assert await secrets.text(REF) == "key"
    for wrong in (b"two\nlines", b"\xff", b"  \n"):
        api.obj = secret(id=wrong)
        secrets.forget()
        with pytest.raises(SecretMissingError):
            await secrets.text(REF)
