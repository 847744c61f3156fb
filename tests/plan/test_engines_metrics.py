"""How many requests an engine holds, by its own metrics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.engines import ENGINES
from isthmus.engines.metrics import held_requests
from playground.engines.metrics import Statistics, sglang_page, vllm_page

VLLM = ENGINES["vllm"].load_gauges
SGLANG = ENGINES["sglang"].load_gauges


def test_pages_of_the_engines() -> None:
    held = Statistics(running=3, waiting=4)
    vllm = vllm_page(held, model_name="a b{c}").decode()
    sglang = sglang_page(held, model_name="llama", engine_type="unified").decode()
    assert held_requests(vllm, names=VLLM) == 7
    assert held_requests(sglang, names=SGLANG) == 7
    assert held_requests(vllm, names=SGLANG) is None


def test_all_engines_of_a_server_are_summed() -> None:
    page = """
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 1.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0 1700000000000
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
vllm:num_requests_waiting 4
"""
    assert held_requests(page, names=VLLM) == 7


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
    ],
)
def test_what_cannot_be_read_is_unknown_and_not_idle(page: str) -> None:
    assert held_requests(page, names=VLLM) is None


@given(st.text())
def test_no_page_raises(text: str) -> None:
    held_requests(text, names=VLLM)
    held_requests(f"vllm:num_requests_running{text}", names=VLLM)
