"""Which URLs of routers can be asked; finding B1 of docs/security.md."""

from __future__ import annotations

import pytest

from isthmus.api.defaults import effective
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.api.router_url import router_url_problem

GOOD = [
    "http://router.team-a:30000",
    "https://router.team-a.svc.cluster.local.",
    "http://10.0.0.1",
    "http://[fd00::1]:65535/base/path",
    "http://Router_1:1/",
    "https://xn--bcher-kva.example",
]
BAD = [
    "http://router:port",
    "http://router:0",
    "http://router:00080",
    "http://router:65536",
    "http://router:",
    "http://",
    "http://-a",
    "http://a..b",
    "http://[::1",
    "http://[]:80",
    "http://[::::]",
    "http://[1.2.3.4]",
    "http://a:b:c",
    "http://xn--a",
    "http://a.xn--999999999",
    f"http://{'a' * 64}",
    "http://user@host",
    "http://host?x",
    "http://host\n",
    "ftp://host:21",
    "http://h" + "/a" * 130,
]


@pytest.mark.parametrize("url", GOOD)
def test_what_can_be_asked(url: str) -> None:
    assert router_url_problem(url) == ""


@pytest.mark.parametrize("url", BAD)
def test_what_cannot_be_asked_is_told_with_an_example(url: str) -> None:
    assert "http://router.team-a:30000" in router_url_problem(url)


def test_b1_a_deployment_with_such_a_url_is_read_all_the_same() -> None:
    """Only its router is a problem: its workers are drained and deleted as ever."""
    raw = {
        "metadata": {"name": "llama", "namespace": "team-a"},
        "spec": {
            "model": {"source": "hf://org/model"},
            "pools": [{"name": "hpc", "slurm": {"clusterRef": {"name": "hpc"}}}],
            "endpoint": {
                "type": "External",
                "external": {"kind": "smg", "url": "http://router:port"},
            },
        },
    }
    router = effective(ModelDeployment.model_validate(raw)).endpoint.router
    assert router is not None
    assert "endpoint.external.url must be" in router.problem
