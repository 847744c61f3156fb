"""One step of scaling and updating: tables."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from isthmus.backends.base import WorkerGroup
from isthmus.modeldeployment.policy.rollout import PoolState, Strategy, next_step
from tests.unit.builders import NOW, asked, group, slurm_group


def pool(
    target: int,
    *current: str,
    name: str = "k8s",
    old: tuple[str, ...] = (),
    older: tuple[str, ...] = (),
    frozen: bool = False,
    startable: bool = True,
) -> PoolState:
    others = [
        group(*states, pool=name, revision=revision)
        for revision, states in (("older", older), ("old", old))
        if states
    ]
    return PoolState(
        name=name,
        target=target,
        current=group(*current, pool=name),
        others=tuple(others),
        frozen=frozen,
        startable=startable,
    )


def step(*pools: PoolState) -> Mapping[tuple[str, str], int]:
    return asked(pools, next_step(pools, strategy=Strategy(), now=NOW))


R3 = ("ready",) * 3


@pytest.mark.parametrize(
    ("state", "new", "old"),
    [
        pytest.param(pool(3), 3, None, id="from nothing: all at once"),
        pytest.param(pool(4, "ready"), 4, None, id="scale up"),
        pytest.param(pool(1, *R3), 1, None, id="scale down"),
        pytest.param(pool(0, *R3), 0, None, id="to zero"),
        pytest.param(pool(0, "starting", "degraded"), 0, None, id="to zero, whatever their state"),
        pytest.param(pool(3, old=R3), 1, 3, id="update: one new one first"),
        pytest.param(pool(3, "starting", old=R3), 1, 3, id="update: wait for it"),
        pytest.param(pool(3, "joining", old=R3), 1, 3, id="update: ready is not yet reachable"),
        pytest.param(pool(3, "ready", old=R3), 2, 2, id="update: then an old one goes"),
        pytest.param(pool(3, *R3, old=("ready",)), 3, 0, id="update: the last old one"),
        pytest.param(pool(3, "crashing", old=R3), 1, 3, id="a bad revision stops after one"),
        pytest.param(pool(2, old=("crashing",) * 2), 2, 0, id="a broken old one goes at once"),
        pytest.param(pool(2, old=("pending",) * 2), 2, 0, id="an old one without a place too"),
        pytest.param(pool(2, old=("ready", "crashing")), 2, 1, id="only its broken part goes"),
        pytest.param(pool(1, old=("degraded",)), 1, 1, id="a degraded one stays without a better"),
        pytest.param(pool(1, "ready", old=("degraded",)), 1, 0, id="and goes for a better one"),
        pytest.param(
            pool(1, "joining", old=("degraded",)), 1, 1, id="that can be reached: seed 1022"
        ),
        pytest.param(pool(1, "joining", old=("ejected",)), 1, 0, id="one out of rotation need not"),
        pytest.param(pool(1, *R3, startable=False), 1, None, id="back-off stops no scaling down"),
        pytest.param(pool(3, startable=False), 0, None, id="back-off stops scaling up"),
        pytest.param(pool(3, frozen=True), 0, None, id="unseen: nothing is added"),
        pytest.param(pool(0, *R3, old=R3, frozen=True), 3, 3, id="unseen: nothing is taken"),
        pytest.param(pool(2, "pending", old=("ready",) * 2), 2, 2, id="waiting for a place"),
        pytest.param(pool(0, old=("ready",)), 0, 0, id="an old one at zero"),
    ],
)
def test_one_pool(state: PoolState, new: int, old: int | None) -> None:
    counts = dict(step(state))
    assert counts.pop(("k8s", "new")) == new
    assert counts == ({} if old is None else {("k8s", "old"): old})


def test_of_several_old_revisions_the_oldest_goes_first() -> None:
    counts = step(pool(2, "ready", old=("ready",), older=("ready",)))
    assert counts["k8s", "older"] == 0
    assert counts["k8s", "old"] == 1


class TestTwoPools:
    def test_moved_replicas_are_replaced_first(self) -> None:
        there, here = pool(0, "ready", "ready", name="a"), pool(2, name="b")
        assert step(there, here) == {("a", "new"): 2, ("b", "new"): 1}
        here = pool(2, "starting", name="b")
        assert step(there, here) == {("a", "new"): 2, ("b", "new"): 1}
        here = pool(2, "ready", name="b")
        assert step(there, here) == {("a", "new"): 1, ("b", "new"): 2}

    def test_a_removed_pool_goes_when_the_other_serves(self) -> None:
        gone = PoolState(
            name="hpc",
            target=0,
            current=WorkerGroup(pool="hpc", backend="slurm", revision="", wanted=0, exists=False),
            others=(slurm_group("ready", "pending"),),
        )
        counts = step(pool(1), gone)
        assert counts["hpc", "new"] == 1
        assert counts["k8s", "new"] == 1
        assert step(pool(1, "ready"), gone)["hpc", "new"] == 0

    def test_a_pool_that_waits_for_its_places_does_not_stop_the_update_of_another(self) -> None:
        full = pool(1, "pending", old=("ready",), name="a")
        assert step(full, pool(1, old=("ready",), name="b"))["b", "new"] == 1

    def test_a_failing_surplus_worker_stops_the_update_of_the_others(self) -> None:
        bad = pool(1, "crashing", old=("ready",), name="a")
        assert step(bad, pool(1, old=("ready",), name="b"))["b", "new"] == 0

    def test_workers_that_cannot_be_taken_away_do_not_hold_up_their_replacement(self) -> None:
        """Replicas that leave a cluster out of sight must come up on the other pool."""
        unseen = pool(0, "ready", "ready", "ready", name="hpc", frozen=True)
        assert step(unseen, pool(3, name="k8s")) == {("hpc", "new"): 3, ("k8s", "new"): 3}

    def test_a_cluster_out_of_sight_does_not_stop_the_update_of_the_other_pool(self) -> None:
        unseen = pool(2, old=("ready", "ready"), name="hpc", frozen=True)
        counts = step(unseen, pool(1, old=("ready",), name="k8s"))
        assert counts["k8s", "new"] == 1
        counts = step(unseen, pool(1, "ready", old=("ready",), name="k8s"))
        assert counts["k8s", "old"] == 0
        assert counts["hpc", "old"] == 2


def test_pods_beyond_the_wanted_number_are_no_capacity() -> None:
    """A Deployment just scaled down still shows its third pod: that one is about to go."""
    old = group(*R3, wanted=1, revision="old")
    assert (old.available, old.serving) == (1, 1)
    state = PoolState(name="k8s", target=2, current=group("ready"), others=(old,))
    assert step(state) == {("k8s", "new"): 2, ("k8s", "old"): 1}
