"""What a front lets through, as tables and as the routes that Envoy is given."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from isthmus.api.client_keys import MOST_CLIENTS, client_keys
from isthmus.apiserver.objects import Object
from isthmus.engines import ENGINES
from isthmus.engines.paths import EnginePath, PathClass, path_pattern, union
from isthmus.front import envoy
from isthmus.front.clients import ClientKeysFollower
from isthmus.front.policy import Policy, policy_text, read_policy
from isthmus.front.routes import virtual_host

GOOD, OTHER = "0123456789abcdef", "fedcba9876543210"


def answer(policy: Policy, method: str, path: str) -> str:
    """Name of the first route that matches, as Envoy chooses it."""
    routes: Any = virtual_host(policy, cluster="workers")["routes"]
    for route in routes:
        match = route["match"]
        fits = (
            path == match["path"]
            if "path" in match
            else path.startswith(match["prefix"])
            if "prefix" in match
            else re.fullmatch(match["safe_regex"]["regex"], path) is not None
        )
        methods = [one["string_match"]["safe_regex"]["regex"] for one in match.get("headers", [])]
        if fits and all(re.fullmatch(regex, method) for regex in methods):
            return str(route["name"])
    raise AssertionError(path)


class TestTables:
    """F2: one table per engine; the front knows engines by these alone."""

    @pytest.mark.parametrize("name", ENGINES)
    def test_each_path_stands_once(self, name: str) -> None:
        paths = [entry.path for entry in ENGINES[name].paths]
        assert len(paths) == len(set(paths))
        assert all(path.startswith("/") and "//" not in path for path in paths)

    @pytest.mark.parametrize("name", ENGINES)
    def test_what_a_probe_or_a_client_needs_is_not_administration(self, name: str) -> None:
        kinds = {entry.path: entry.kind for entry in ENGINES[name].paths}
        profile = ENGINES[name]
        for path in (profile.health_path, profile.readiness_path, "/v1/models", "/metrics"):
            assert kinds[path] is PathClass.INFORMATION
        assert kinds["/v1/chat/completions"] is PathClass.INFERENCE

    @pytest.mark.parametrize(
        "word",
        ["lora", "weight", "flush", "profile", "sleep", "wake", "scale", "scaling", "abort",
         "server_info", "pause", "resume", "cache", "rpc", "internal_state"],
    )  # fmt: skip
    def test_no_path_that_changes_an_engine_is_for_clients(self, word: str) -> None:
        for profile in ENGINES.values():
            for entry in profile.paths:
                if word in entry.path:
                    assert entry.kind is PathClass.ADMINISTRATION, entry

    def test_administration_of_one_engine_is_administration_of_both(self) -> None:
        one = EnginePath("/a", ("GET",), PathClass.INFERENCE)
        other = EnginePath("/a", ("POST",), PathClass.ADMINISTRATION)
        for tables in ([[one], [other]], [[other], [one]]):
            assert union(tables) == (EnginePath("/a", ("GET", "POST"), PathClass.ADMINISTRATION),)

    def test_a_placeholder_is_one_segment_without_tricks(self) -> None:
        pattern = path_pattern("/v1/a.b/{id}/cancel")
        assert re.fullmatch(pattern, "/v1/a.b/x-1/cancel")
        for path in ("/v1/aXb/x/cancel", "/v1/a.b/x/y/cancel", "/v1/a.b/%2f/cancel"):
            assert not re.fullmatch(pattern, path)


class TestRoutes:
    def test_the_rule(self) -> None:
        both = Policy(engines=("vllm", "sglang"))
        for method, path, name in (
            ("POST", "/v1/chat/completions", "inference"),
            ("OPTIONS", "/v1/chat/completions", "inference"),
            ("GET", "/v1/chat/completions", "method"),
            ("GET", "/v1/responses/resp_1", "inference"),
            ("GET", "/v1/models/org/llama", "information"),
            ("POST", "/v1/load_lora_adapter", "administration"),
            ("GET", "/v1/load_lora_adapter", "administration"),
            ("GET", "/dumper/x", "administration"),
            ("GET", "/v1/", "unknown"),
            ("GET", "/v1/chat/completions/", "unknown"),
        ):
            assert answer(both, method, path) == name, path

    def test_users_add_paths_and_open_no_administration(self) -> None:
        policy = Policy(engines=("vllm",), extra_paths=("/*", "/a/{b}/*"))
        assert answer(policy, "PUT", "/anything") == "extra"
        assert answer(policy, "GET", "/v1/load_lora_adapter") == "administration"
        assert answer(policy, "POST", "/v1/completions") == "inference"

    def test_by_a_setting_administration_passes_with_its_methods(self) -> None:
        policy = Policy(engines=("sglang",), administration=True)
        assert answer(policy, "POST", "/load_lora_adapter") == "administration"
        assert answer(policy, "GET", "/load_lora_adapter") == "method"

    def test_websockets_at_their_paths_only(self) -> None:
        routes: Any = virtual_host(Policy(), cluster="workers")["routes"]
        able = {
            route["match"].get("path")
            for route in routes
            if route.get("route", {}).get("upgrade_configs")
        }
        assert able == {"/v1/realtime"}


class TestWhatTheSidecarIsTold:
    def test_it_reads_what_the_operator_writes(self) -> None:
        policy = Policy(engines=("sglang",), administration=True, extra_paths=("/a", "/b/*"))
        assert read_policy(policy_text(policy)) == policy

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "7", "[" * 100_000, '{"administration": "yes", "engines": 7}']
    )
    def test_what_it_cannot_read_opens_nothing(self, text: str) -> None:
        """Also what an older operator says, which is nothing."""
        assert read_policy(text) == Policy()

    def test_an_engine_that_it_does_not_know_is_every_engine(self) -> None:
        assert Policy(engines=("newer",)).paths == Policy().paths
        assert read_policy('{"engines": ["vllm"], "newer": 1}').engines == ("vllm",)


def encoded(**entries: str) -> dict[str, str]:
    return {name: base64.b64encode(value.encode()).decode() for name, value in entries.items()}


class TestClientKeys:
    def test_each_entry_is_a_client(self) -> None:
        found = client_keys(encoded(alice=GOOD + "\n", bob=OTHER))
        assert found.keys == {"alice": GOOD, "bob": OTHER}
        assert found.problems == ()
        assert GOOD not in repr(found)

    def test_an_entry_that_is_no_key_drops_itself_only_and_is_not_shown(self) -> None:
        """Envoy would refuse the file as a whole, for two clients of one key too."""
        wrong = {"short": "k3y", "lines": f"{GOOD}\n{OTHER}", "twin": GOOD, "pem": "-----BEGIN"}
        found = client_keys(encoded(alice=GOOD, **wrong) | {"odd": "%%%"})
        assert found.keys == {"alice": GOOD}
        assert len(found.problems) == 5
        assert not any(value in problem for problem in found.problems for value in wrong.values())

    @pytest.mark.parametrize("data", [None, [], "text", 7])
    def test_no_data_is_no_client(self, data: object) -> None:
        assert client_keys(data).keys == {}

    def test_there_is_a_bound(self) -> None:
        many = encoded(**{f"c{n:05}": f"{n:032}" for n in range(MOST_CLIENTS + 2)})
        found = client_keys(many)
        assert (len(found.keys), len(found.problems)) == (MOST_CLIENTS, 2)


class Source:
    """Answers with what it is given, in order, the last one again and again."""

    def __init__(self, *answers: Object | Exception | None) -> None:
        self.answers = list(answers)

    async def secret(self, name: str) -> Object | None:
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        return found


def test_the_file_of_clients_follows_its_secret(caplog: pytest.LogCaptureFixture) -> None:
    """What is known stays while the API server is away; a Secret that is gone is believed."""
    caplog.set_level("INFO")
    secret = {"data": encoded(alice=GOOD, bob="short")}
    written: list[Mapping[str, str]] = []
    follower = ClientKeysFollower(
        source=Source(secret, httpx.ConnectError(GOOD), None),
        secret="clients",
        publish=written.append,
    )
    looks = [asyncio.run(follower.look()) for _ in range(3)]
    assert looks == [True, False, True]
    assert written == [{"alice": GOOD}, {}]
    assert GOOD not in caplog.text
    assert "entry bob" in caplog.text


def test_the_text_of_a_document_is_stable() -> None:
    for policy in (Policy(), Policy(administration=True)):
        made = [
            envoy.text(
                envoy.bootstrap(
                    directory="/x", ports=envoy.Ports(), behaviour=envoy.Behaviour(policy=policy)
                )
            )
            for _ in range(2)
        ]
        assert made[0] == made[1]
