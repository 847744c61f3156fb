"""What the real tests look and tidy with, against a real API server and a queue that is empty.

Most of it only matters when a real test has failed, and would not be noticed there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from playground.errors import PlaygroundError
from playground.operator_process import NAMESPACE
from tests.bareapi import bare_api
from tests.real.api import Json, Refused, Unavailable
from tests.real.conftest import made_anew
from tests.real.world import World, deployment, kubernetes_pool, slurm_pool, until
from tests.wrong_inputs import GOOD, changed

pytestmark = pytest.mark.timeout(1800)  # the first one may build the API server
_numbers = itertools.count(1)


class Slurm:
    """A queue without jobs."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, ...]] = []

    def command(self, *argv: str, user: str = "") -> str:
        self.commands.append(argv)
        return ""


class StandIn:
    """The operator, which does nothing in these tests."""

    running = False

    def __init__(self, output: str = "") -> None:
        self._output, self.restarts = output, 0

    def output(self) -> str:
        return self._output

    def restart(self) -> None:
        self.restarts += 1


@pytest.fixture
def world() -> Iterator[World]:
    """A world in a namespace of its own."""
    bare = bare_api()
    playground: Any = SimpleNamespace(
        kubernetes=bare.kubernetes, slurm=Slurm(), config=bare.config, kubectl=bare.kubectl
    )
    found = World(playground, namespace=f"world-{next(_numbers)}")
    for name in (found.namespace, NAMESPACE):
        found.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield found
    found.force()


def cluster(name: str) -> Json:
    metadata = {"metadata.name": name, "metadata.namespace": NAMESPACE}
    made: Json = changed(GOOD["SlurmCluster"], metadata)
    return made


def hold(world: World, name: str) -> None:
    """Give a deployment a finalizer that nobody removes."""
    world.patch(name, {"metadata": {"finalizers": ["isthmus.dev/held"]}})


def test_what_is_applied_again_loses_what_is_not_said_any_more(world: World) -> None:
    world.apply(deployment("one", kubernetes_pool(priority=3), slurm_pool(), replicas=2))
    world.apply(deployment("one", kubernetes_pool(), replicas=3))
    spec = world.get("mdep", "one")["spec"]
    assert [(pool["name"], pool["priority"]) for pool in spec["pools"]] == [("k8s", 0)]
    assert spec["replicas"] == 3
    world.scale("one", 5)
    assert world.get("mdep", "one")["spec"]["replicas"] == 5
    assert world.look().agree("one", kubernetes=5, slurm=0).startswith("status.ready None, not 5/5")


def test_a_mistake_is_refused_with_the_servers_words(world: World) -> None:
    with pytest.raises(PlaygroundError, match=r"\.speck: field not declared"):
        world.apply({**deployment("two", kubernetes_pool()), "speck": {}})
    with pytest.raises(Refused, match="less than or equal to 512") as refused:
        world.apply(deployment("two", kubernetes_pool(), replicas=513))
    assert refused.value.status == 422
    assert world.get("mdep", "two") == {}


def test_an_answer_that_may_come_later_is_waited_for() -> None:
    answers = iter([Unavailable("etcd"), Unavailable("etcd"), "there"])

    def look() -> str:
        said = next(answers)
        if isinstance(said, Exception):
            raise said
        return said

    assert until(look, "an answer", every=0.0) == "there"
    with pytest.raises(AssertionError, match=r"no answer.*etcd"):
        until(lambda: (_ for _ in ()).throw(Unavailable("etcd")), "no answer", timeout=0.0)


def test_removed_is_what_was_there_and_not_what_comes_after_it(world: World) -> None:
    world.apply(deployment("again", kubernetes_pool()))
    hold(world, "again")
    with pytest.raises(AssertionError, match="again"):
        world.remove("mdep", "again", timeout=0.3)
    world.patch("again", {"metadata": {"finalizers": None}})
    world.remove("mdep", "again", "never-there", timeout=5)
    assert world.objects("mdep") == []


def test_extra_objects_go_after_the_deployments(world: World) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "extra"}}
    world.apply({**secret, "metadata": {"name": "stays"}}, deployment("last", kubernetes_pool()))
    world.extra(secret, cluster("extra"))
    hold(world, "last")
    assert world.sweep() == ["mdep last"]
    assert world.get("slc", "extra", NAMESPACE), "jobs still end through it"
    world.patch("last", {"metadata": {"finalizers": None}})
    until(lambda: not world.sweep(), "all is gone", timeout=10)
    assert not world.get("slc", "extra", NAMESPACE)
    assert not world.get("secret", "extra")
    assert world.get("secret", "stays")


def test_what_does_not_end_is_cut_off_and_the_second_one_stops_the_rest(world: World) -> None:
    operator: Any = StandIn()
    world.cluster = lambda: cluster("hpc")  # type: ignore[method-assign]
    for number, lost in ((1, False), (2, True)):
        world.require()
        world.apply(deployment(f"stuck-{number}", kubernetes_pool()))
        hold(world, f"stuck-{number}")
        world.delete(f"stuck-{number}", wait=False)
        made_anew(world, operator, after=f"test {number}")
        assert world.objects("mdep") == []
        assert bool(world.lost) is lost
    assert operator.restarts == 2
    assert any("scancel" in command for command in world.playground.slurm.commands)
    with pytest.raises(pytest.fail.Exception, match=r"2 tests in a row .* test 2"):
        world.require()


def test_only_the_lease_of_the_one_that_died_is_ended(world: World) -> None:
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
    metadata = {"name": "isthmus", "namespace": NAMESPACE}
    world.apply({**lease, "metadata": metadata, "spec": {"holderIdentity": "host_1"}})

    def holder() -> object:
        return world.get("lease", "isthmus", NAMESPACE)["spec"].get("holderIdentity")

    another: Any = StandIn("Lease isthmus-system/isthmus is ours (host_2)")
    world.end_lease(another)
    assert holder() == "host_1"
    died: Any = StandIn("Lease isthmus-system/isthmus is ours (host_1)")
    world.end_lease(died)
    assert holder() is None
