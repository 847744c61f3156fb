"""What is added to and taken out of a router that is not ours."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from isthmus.routing.external import (
    OWNER_LABEL,
    Changes,
    HttpRouter,
    Registered,
    RouterError,
    changes,
    parse_workers,
)

A, B, C = "http://10.0.0.1:8000", "http://10.0.0.2:8000", "http://10.0.0.3:8000"


def entry(url: str, owner: str = "me") -> Registered:
    return Registered(id=f"id-{url[-6]}", url=url, owner=owner)


def found(*listed: Registered, wanted: tuple[str, ...]) -> Changes:
    return changes(listed=listed, wanted=wanted, owner="me")


class TestChanges:
    def test_what_is_missing_is_added_and_what_is_surplus_removed(self) -> None:
        assert found(entry(A), entry(B), wanted=(B, C)) == Changes(add=(C,), remove=("id-1",))

    def test_nothing_to_do(self) -> None:
        assert found(entry(A), wanted=(A,)) == Changes()

    @pytest.mark.parametrize("owner", ["", "another"])
    def test_only_what_is_ours_is_removed(self, owner: str) -> None:
        assert found(entry(A, owner), wanted=()) == Changes()

    def test_a_wanted_worker_of_somebody_else_stays_theirs(self) -> None:
        assert found(entry(A, ""), wanted=(A,)) == Changes()

    def test_a_slash_makes_no_other_worker(self) -> None:
        assert found(entry(A + "/"), wanted=(A,)) == Changes()


class TestAnswers:
    def test_labels_of_either_router(self) -> None:
        listed = [
            {"id": 1, "url": A, "labels": {OWNER_LABEL: "me"}},
            {"id": 2, "url": B, "metadata": {OWNER_LABEL: "me"}},
            {"id": 3, "url": C},
        ]
        assert [one.owner for one in parse_workers({"workers": listed})] == ["me", "me", ""]

    @pytest.mark.parametrize("answer", [{}, [], None, {"workers": None}, {"error": "no"}])
    def test_what_is_no_list_is_not_an_empty_one(self, answer: Any) -> None:
        with pytest.raises(RouterError):
            parse_workers(answer)

    @pytest.mark.parametrize("status", [200, 201, 202, 409])
    async def test_already_there_is_as_good_as_accepted(self, status: int) -> None:
        await router(status).add(A, model="llama", owner="me")

    @pytest.mark.parametrize("status", [200, 202, 204, 404])
    async def test_already_gone_is_as_good_as_removed(self, status: int) -> None:
        await router(status).remove("id-1")

    async def test_a_refusal_names_the_secret_and_does_not_show_it(self) -> None:
        with pytest.raises(RouterError, match="authSecretRef") as caught:
            await router(401).list()
        assert "s3cret" not in str(caught.value)

    @pytest.mark.parametrize("status", [500, 503, 302])
    async def test_an_error_is_no_list(self, status: int) -> None:
        with pytest.raises(RouterError):
            await router(status).list()


def router(status: int) -> HttpRouter:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == "Bearer s3cret"
        return httpx.Response(status, stream=httpx.ByteStream(b'{"workers": []}'))

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return HttpRouter(client, url="http://router:30000/", token="s3cret")
