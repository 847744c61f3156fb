"""How many requests an engine holds, by its own metrics."""

import ast
import sys
from collections.abc import Iterable
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.backends.kubernetes.prestop import SCRIPT
from isthmus.engines import ENGINES
from isthmus.engines.metrics import (
    MOST_LINE_BYTES,
    MOST_PAGE_BYTES,
    LoadReader,
    LoadRule,
    Reading,
    held_requests,
)
from playground.engines.metrics import Statistics, sglang_page, vllm_page

VLLM = ENGINES["vllm"].load
SGLANG = ENGINES["sglang"].load
IDLE_GAUGES = "sglang:num_running_reqs 0\nsglang:num_queue_reqs 0\n"


def requests(page: str, rule: LoadRule = VLLM) -> int | None:
    found = held_requests(page.encode(), rule=rule)
    return None if found is None else found.requests


def active(**endpoints: int) -> str:
    """A page of an SGLang whose gauges say nothing, as in a prefill."""
    lines = (
        f'sglang:http_requests_active{{endpoint="{path}",method="POST"}} {count}.0\n'
        for path, count in endpoints.items()
    )
    return IDLE_GAUGES + "".join(lines)


def test_pages_of_the_engines() -> None:
    held = Statistics(running=3, waiting=4, shown_running=3, shown_waiting=4)
    vllm = vllm_page(held, model_name="a b{c}").decode()
    sglang = sglang_page(held, model_name="llama", engine_type="unified").decode()
    assert requests(vllm, VLLM) == 7
    assert requests(sglang, SGLANG) == 7
    assert requests(vllm, SGLANG) is None


def test_a_request_in_prefill_is_on_no_gauge_of_sglang_and_counts() -> None:
    assert requests(active(**{"/v1/chat/completions": 1}), SGLANG) == 1
    assert requests(active(**{"/generate": 2, "/v1/completions": 1}), SGLANG) == 3


def test_what_probes_and_scrapers_ask_is_no_work() -> None:
    asked = dict.fromkeys(["/metrics", "/health", "/health_generate", "/v1/models", "/v1/loads"], 1)
    assert requests(active(**asked), SGLANG) == 0


def test_paths_that_nobody_knows_count() -> None:
    """A release to come may serve by them; those that lead nowhere are answered at once."""
    assert requests(active(**{"/v2/chat": 1, "/health/deep": 1}), SGLANG) == 2


def test_a_path_cannot_pass_for_another() -> None:
    # The quotes of the path a",endpoint="/metrics stand escaped in its label.
    assert requests(active(**{r"a\",endpoint=\"/metrics": 1}), SGLANG) == 1
    assert requests(active(**{r"/health\\": 1}), SGLANG) == 1


def test_the_larger_number_of_scheduler_and_server_counts() -> None:
    """Not both: they count the same requests."""
    some = active(**{"/generate": 2}).replace("num_running_reqs 0", "num_running_reqs 5")
    assert requests(some, SGLANG) == 5


def test_idleness_needs_a_longer_proof_where_the_server_does_not_count() -> None:
    counted = held_requests(active(**{"/metrics": 1}).encode(), rule=SGLANG)
    assert counted == Reading(0, SGLANG.proof)
    assert held_requests(IDLE_GAUGES.encode(), rule=SGLANG) == Reading(0, SGLANG.proof_without)
    assert SGLANG.proof < 5 < SGLANG.proof_without


def test_all_engines_of_a_server_are_summed() -> None:
    page = """
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 1.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0 1700000000000
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
vllm:num_requests_waiting 4
"""
    assert requests(page) == 7
    assert requests(page.replace("\n", "\r\n")) == 7


@pytest.mark.parametrize(
    "page",
    [
        "",
        "not found",
        "vllm:num_requests_running 1",  # nothing about those that wait
        "vllm:num_requests_running 1\nvllm:num_requests_waiting NaN",
        "vllm:num_requests_running 1\nvllm:num_requests_waiting",
        "vllm:num_requests_running 1\nvllm:num_requests_waiting -1",
        'vllm:num_requests_running 1\nvllm:num_requests_waiting{engine="0"',
        'vllm:num_requests_running 1\nvllm:num_requests_waiting{engine="0 5',
    ],
)
def test_what_cannot_be_read_is_unknown_and_not_idle(page: str) -> None:
    assert requests(page) is None


def pieces(page: bytes, sizes: Iterable[int]) -> Iterable[bytes]:
    at = 0
    for size in sizes:
        yield page[at : at + size]
        at += size
    yield page[at:]


@given(sizes=st.lists(st.integers(0, 200), max_size=30))
def test_it_does_not_matter_in_which_pieces_a_page_comes(sizes: list[int]) -> None:
    held = Statistics(running=3, waiting=4, shown_running=3, shown_waiting=4)
    for page, rule in (
        (vllm_page(held, model_name="m")[-3000:] + vllm_page(held, model_name="m")[:2000], VLLM),
        (active(**{"/generate": 7, "/metrics": 1}).encode(), SGLANG),
    ):
        reader = LoadReader(rule)
        for piece in pieces(page, sizes):
            reader.feed(piece)
        assert reader.reading() == held_requests(page, rule=rule) == Reading(7, 0.5)


def test_a_page_of_any_size_is_read_and_a_bottomless_one_given_up() -> None:
    line = b'sglang:http_requests_total{endpoint="/%s",method="GET"} 1.0\n'
    page = active(**{"/generate": 1}).encode()
    many = b"".join(line % str(number).encode() for number in range(100_000))
    assert len(many) > 5_000_000
    assert held_requests(many + page, rule=SGLANG) == Reading(1, SGLANG.proof)
    reader = LoadReader(SGLANG)
    assert reader.feed(page)
    fed = 0
    while reader.feed(many):
        fed += len(many)
        assert fed <= MOST_PAGE_BYTES
    assert reader.reading() is None
    endless = LoadReader(SGLANG)
    assert endless.feed(page)
    assert not endless.feed(b"x" * (MOST_LINE_BYTES + 1))
    assert endless.reading() is None


@given(st.text())
def test_no_page_raises(text: str) -> None:
    requests(text)
    requests(f"vllm:num_requests_running{text}")
    requests(f"sglang:http_requests_active{text}", SGLANG)


def _of_the_hook() -> ModuleType:
    """The module that stands in front of a pod's hook, without the hook."""
    module = ModuleType("hook")
    sys.modules[module.__name__] = module
    exec(SCRIPT.partition("\nimport json")[0], module.__dict__)
    return module


HOOK = _of_the_hook()
NUMBERS = st.sampled_from(["0", "1.0", "3", "NaN", "-1", "", "2.0 1700000000000"])
LINES = st.builds(
    lambda name, labels, value: f"{name}{labels} {value}",
    name=st.sampled_from([*VLLM.gauges, *SGLANG.gauges, str(SGLANG.active), "# HELP x", "x:y"]),
    labels=st.sampled_from(
        ["", '{rank="0"}', '{endpoint="/metrics"}', '{endpoint="/generate",method="POST"}', '{a="}']
    ),
    value=NUMBERS,
)


def test_the_hook_is_a_program_for_the_python_of_older_images_too() -> None:
    ast.parse(SCRIPT, feature_version=(3, 8))


@given(st.lists(LINES, max_size=8))
def test_hook_and_operator_read_a_page_alike(lines: list[str]) -> None:
    page = "\n".join(lines).encode()
    for rule in (VLLM, SGLANG):
        theirs = HOOK.held_requests(page, rule=HOOK.LoadRule(**rule._asdict()))
        ours = held_requests(page, rule=rule)
        assert (theirs is None) == (ours is None)
        assert ours is None or tuple(theirs) == tuple(ours)
