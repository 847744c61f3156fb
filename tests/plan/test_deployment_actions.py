"""What executing an action makes, through the simulated API server."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from isthmus.api import names
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.objects import Object
from isthmus.apiserver.resources import CONTROLLER_REVISIONS, DEPLOYMENTS, Resource
from isthmus.errors import ApiNotFoundError, NameTakenError
from isthmus.plan.actions import CreateDeployment, DeploymentAction, FreezeDeployment
from isthmus.reconcile.deployment_actions import DeploymentActions
from isthmus.reconcile.store import Store
from isthmus.settings import Settings
from tests.plan.builders import desired
from tests.simulation.apiserver import ApiSimulator

NAME = names.revision_object_name(deployment="llama", pool="k8s", revision="new")
CREATE = CreateDeployment(pool="k8s", revision="new", replicas=2)
FREEZE = FreezeDeployment(pool="k8s", revision="new")


class Api:
    """The simulated API server as a client whose answers go into the store."""

    def __init__(self) -> None:
        self.store = Store(watched=[DEPLOYMENTS, CONTROLLER_REVISIONS])
        self.server = ApiSimulator(clock=lambda: 1.8e9)

    async def get(self, resource: Resource, *, namespace: str, name: str) -> Any:
        return self.server.get(resource, namespace, name)

    async def create(self, resource: Resource, obj: Any) -> Any:
        made = self.server.create(resource, obj, by="op")
        self.store.on_written(resource, made)
        return made

    def execute(self, *actions: DeploymentAction, **settings: Any) -> None:
        executor = DeploymentActions(
            store=self.store,
            api=cast(ApiServer, self),
            settings=Settings(**settings),
            new_attempt=lambda: "aaaaaa",
        )

        async def run() -> None:
            for action in actions:
                await executor.execute(action, raw={}, desired=desired())

        asyncio.run(run())

    def template(self, resource: Resource) -> Any:
        found = self.server.get(resource, "team-a", NAME)
        assert found is not None
        return (
            found["spec"]["template"] if resource == DEPLOYMENTS else found["data"]["podTemplate"]
        )

    def foreign(self, resource: Resource) -> None:
        obj: Object = {"metadata": {"namespace": "team-a", "name": NAME, "uid": "u"}}
        self.server.create(resource, obj, by="user")


def test_an_upgrade_between_deployment_and_freezing_freezes_what_runs() -> None:
    api = Api()
    api.execute(CREATE, termination_grace=60.0)
    api.execute(FREEZE, termination_grace=90.0)
    assert api.template(CONTROLLER_REVISIONS) == api.template(DEPLOYMENTS)


def test_a_lost_deployment_comes_back_as_it_was_frozen() -> None:
    api = Api()
    api.execute(CREATE, FREEZE, termination_grace=60.0)
    before = api.template(DEPLOYMENTS)
    api.server.delete(DEPLOYMENTS, "team-a", NAME, by="user")
    api.execute(CREATE, termination_grace=90.0)
    assert api.template(DEPLOYMENTS) == before


def test_what_is_gone_is_not_frozen() -> None:
    with pytest.raises(ApiNotFoundError, match="gone"):
        Api().execute(FREEZE)


@pytest.mark.parametrize("resource", [DEPLOYMENTS, CONTROLLER_REVISIONS])
def test_what_is_not_ours_is_told_and_kept(resource: Resource) -> None:
    api = Api()
    api.foreign(resource)
    before = api.server.get(resource, "team-a", NAME)
    with pytest.raises(NameTakenError, match=f"{resource.kind} team-a/{NAME} exists"):
        api.execute(CREATE, FREEZE)
    assert api.server.get(resource, "team-a", NAME) == before
