"""K10: addresses of both families, wherever one stands, and where engines listen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from isthmus.api.desired import Engine, EngineType
from isthmus.api.ip_family import IpFamily, family_of, host_port, pods_family
from isthmus.backends.kubernetes.observe import probe_url
from isthmus.backends.kubernetes.render import pod_template
from isthmus.backends.slurm.addresses import nodes_family
from isthmus.backends.slurm.frozen import freeze, job_template
from isthmus.backends.slurm.request import listen_address
from isthmus.front import envoy
from isthmus.routing.members import Worker
from isthmus.settings import Settings
from tests.unit.builders import desired, k8s_pool, node, slurm_pool

OPERATOR = Path(__file__).resolve().parents[3] / "operator" / "isthmus"
V4, V6 = IpFamily.IPV4, IpFamily.IPV6


def test_an_address_in_a_url() -> None:
    assert host_port("10.0.0.1", 80) == "10.0.0.1:80"
    assert host_port("fd00::1", 80) == "[fd00::1]:80"
    assert host_port("gpu01.site", 80) == "gpu01.site:80"
    assert str(Worker("fd00::1", 80)) == "[fd00::1]:80"
    assert probe_url({"status": {"podIP": "fd00::1"}}) == "http://[fd00::1]:8000"
    assert (family_of("fd00::1"), family_of("10.0.0.1")) == (V6, V4)


def test_the_rule_stands_in_one_place() -> None:
    """Six modules had it, each for itself; what one forgets is found on IPv6 clusters only."""
    brackets = re.compile(r'f"\[\{[a-z_.]+\}\]" if ":" in')
    found = [p.name for p in OPERATOR.rglob("*.py") if brackets.search(p.read_text())]
    assert found == ["ip_family.py"]
    every = re.compile(r'"[^"]*0\.0\.0\.0')
    listening = [p.name for p in OPERATOR.rglob("*.py") if every.search(p.read_text())]
    # A network that no connection is made to is no address that is listened on.
    assert sorted(listening) == ["allow_list.py", "ip_family.py", "listening.py"]


def test_the_family_of_pods_is_that_of_the_api_server() -> None:
    assert pods_family({"KUBERNETES_SERVICE_HOST": "fd00:96::1"}) is V6
    assert pods_family({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}) is V4
    assert pods_family({}) is V4
    assert Settings(ip_family="ipv6").family is V6
    assert Settings.from_environment({"ISTHMUS_IP_FAMILY": "IPv6"}).family is V6


@pytest.mark.parametrize("engine", list(EngineType))
@pytest.mark.parametrize("family", [V4, V6])
def test_engines_in_pods(engine: EngineType, family: IpFamily) -> None:
    pool = k8s_pool(engine=Engine(type=engine, image="x"))
    made: Any = pod_template(
        desired=desired(pool),
        pool=pool,
        revision="r",
        pre_stop_seconds=5,
        shutdown_seconds=60,
        family=family,
    )
    (container,) = made["spec"]["containers"]
    assert f"--host={family.any_address}" in container["args"]
    assert family.loopback in container["command"], "process 1 asks there"
    hook = container["lifecycle"]["preStop"]["exec"]["command"]
    assert f"http://{host_port(family.loopback, 8000)}/metrics" in hook


@pytest.mark.parametrize(
    ("mode", "family", "listen"),
    [
        ("Direct", V4, "0.0.0.0"),
        ("Direct", V6, "::"),
        ("Tunnel", V6, "::"),
        ("NodeSSH", V6, "127.0.0.1"),
        ("Reverse", V4, "127.0.0.1"),
    ],
)
def test_engines_on_nodes(mode: Any, family: IpFamily, listen: str) -> None:
    pool = slurm_pool()
    frozen = freeze(desired=desired(pool), pool=pool)
    made = job_template(frozen, models={}, listen=listen_address(mode, family=family))
    assert f"--host={listen}" in made.argv


def test_the_family_of_nodes() -> None:
    assert nodes_family([]) is V4
    assert nodes_family([node(address="fd00::1"), node(address="fd00::2")]) is V6
    assert nodes_family([node(address="fd00::1"), node(address="10.0.0.1")]) is V4


def test_envoy_listens_on_both() -> None:
    made: Any = envoy.bootstrap(directory="/run", ports=envoy.Ports(address="::"))
    for listener in made["static_resources"]["listeners"]:
        place = listener["address"]["socket_address"]
        assert (place["address"], place["ipv4_compat"]) == ("::", True)
    plain: Any = envoy.bootstrap(directory="/run", ports=envoy.Ports(address="0.0.0.0"))
    assert "ipv4_compat" not in str(plain)
