"""The long forms of `test_kill.py`: twenty deployments and many more rounds. `make soak`."""

import pytest

from playground.operator_process import Operator
from tests.real import test_kill
from tests.real.world import World

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

SIZE = 20


def test_operator_killed_often(world: World, operator: Operator) -> None:
    test_kill.operator_killed(world, operator, size=SIZE, kills=20)


def test_leaders_paused_one_after_the_other(world: World, operator: Operator) -> None:
    test_kill.leader_paused(world, operator, size=SIZE, rounds=5)


def test_api_server_restarted_often(world: World, operator: Operator) -> None:
    test_kill.api_server_restarted(world, operator, size=SIZE, rounds=6)


def test_etcd_paused_often(world: World, operator: Operator) -> None:
    test_kill.etcd_paused(world, operator, size=SIZE, rounds=3, seconds=20.0)


def test_controller_killed_at_many_submissions(world: World, operator: Operator) -> None:
    lost = test_kill.controller_killed(world, operator, size=SIZE, rounds=15)
    assert lost, "no acknowledged job was lost: nothing was tried"
