"""FrontOutdated: a front of an older release is told, and goes on serving."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from isthmus.api import contract
from isthmus.api.front_version import OLDEST, VERSION
from isthmus.apiserver.resources import DEPLOYMENTS, PODS
from isthmus.apiserver.store import Store
from isthmus.backends.kubernetes import front, front_version
from isthmus.modeldeployment.execute_front import front_state
from isthmus.modeldeployment.plan import plan_model_deployment
from isthmus.settings import Settings
from isthmus.telemetry.transitions import transitions
from tests.unit.builders import NOW, deployment, desired, group

IMAGE = "isthmus-front:7"
MANAGED = desired()
TEMPLATE: Any = front.front_deployment(desired=MANAGED, image=IMAGE, drain_seconds=300)
OLDER: Any = {
    **TEMPLATE,
    "spec": {"template": {"spec": {"initContainers": [{"name": "membership"}]}}},
}
"""As an operator made it that did not ask."""


def pod(message: str | None, *, made_from: Any = TEMPLATE, **metadata: Any) -> dict[str, Any]:
    """One whose container has left this behind; None for one that has not ended."""
    template = made_from["spec"]["template"]
    state = {"waiting": {}} if message is None else {"terminated": {"message": message}}
    said = [
        {"name": "membership", "state": {"terminated": {"message": "contract 99"}}},
        {"name": front_version.CONTAINER, "state": state},
    ]
    labels = TEMPLATE["spec"]["template"]["metadata"]["labels"]
    return {
        "metadata": {"namespace": MANAGED.namespace, "labels": labels, **metadata},
        "spec": template["spec"],
        "status": {"initContainerStatuses": said},
    }


def understood(*pods: dict[str, Any], made: Any = TEMPLATE) -> int | None:
    return front_version.understood(deployment=made, pods=pods)


def test_the_oldest_pod_counts() -> None:
    now = f"contract {VERSION}"
    assert understood(pod(now), pod(now)) == VERSION
    assert understood(pod("contract 2"), pod("contract 3")) == 2
    assert understood(pod(now), pod(None, made_from=OLDER)) == OLDEST
    gone = pod("contract 0", deletionTimestamp="2026-01-01T00:00:00Z")
    assert understood(pod(now), gone) == VERSION


def test_who_does_not_say_is_the_oldest() -> None:
    assert understood(made=OLDER) == OLDEST
    assert understood(pod("contract 7"), made=OLDER) == OLDEST, "its Deployment is of before"


@pytest.mark.parametrize(
    "message", [None, "", "Unable to get init container status", "contract 1\ncontract 2"]
)
def test_what_is_not_known_is_not_told(message: str | None) -> None:
    """A pod that starts, and one whose message the kubelet has lost: neither is called old."""
    assert understood(pod(message)) is None
    assert understood(pod(message), pod("contract 5")) == 5


def test_workers_and_deployments_that_are_not_there_say_nothing() -> None:
    worker = pod("contract 0", labels={"isthmus.dev/modeldeployment": "llama"})
    assert understood(worker) is None
    assert front_version.understood(deployment=None, pods=[pod("contract 0")]) is None


def test_an_image_says_its_version_and_one_of_before_that_it_has_none(tmp_path: Path) -> None:
    """The program stands in the pod, so that an image without our module ends in order too."""
    for path, version in ((str(Path(contract.__file__).parents[2]), VERSION), ("", OLDEST)):
        said = tmp_path / "said"
        command = [sys.executable, *front_version.command()[1:-1], str(said)]
        subprocess.run(command, env={"PYTHONPATH": path}, check=True, timeout=60)
        assert understood(pod(said.read_text(encoding="utf-8"))) == version
    nowhere = [sys.executable, *front_version.command()[1:-1], str(tmp_path / "none" / "said")]
    subprocess.run(nowhere, env={}, check=True, timeout=60)
    assert "$" not in " ".join(front_version.command()), "the kubelet would replace it"


def test_the_operator_reads_it_from_what_it_watches() -> None:
    store = Store(watched=(DEPLOYMENTS, PODS))
    found = pod("contract 5", name="llama-front-x", uid="u1", resourceVersion="1")
    made = {**TEMPLATE, "metadata": {**TEMPLATE["metadata"], "uid": "u2", "resourceVersion": "2"}}
    store.put(PODS, found)
    store.put(DEPLOYMENTS, made)
    settings = Settings(front_image=IMAGE)
    assert front_state(store, desired=MANAGED, settings=settings).understands == 5


def test_an_outdated_front_is_told_once_and_disturbs_nothing() -> None:
    """Condition and event; Ready, Available, the workers and the front stay as they are."""
    before = deployment(MANAGED, group("ready"), front_understands=VERSION)
    after = deployment(MANAGED, group("ready"), front_understands=OLDEST)
    good = plan_model_deployment(before, now=NOW)
    told = plan_model_deployment(after, now=NOW)
    assert told.actions == good.actions
    conditions = {one.type: one for one in told.status.conditions}
    found = conditions.pop("FrontUpToDate")
    assert (found.status, found.reason) == ("False", "FrontOutdated")
    assert "set the operator's setting front-image" in found.message
    same = {one.type: one for one in good.status.conditions}
    assert same.pop("FrontUpToDate").status == "True"
    assert conditions == same
    assert told.status.summary == good.status.summary
    (event,) = transitions(good.status, told.status)
    assert (event.reason, event.warning) == ("FrontOutdated", True)
    assert not transitions(told.status, told.status)
    assert not transitions(told.status, good.status)


def test_a_newer_front_is_none_that_is_outdated() -> None:
    observed = deployment(MANAGED, group("ready"), front_understands=VERSION + 1)
    found = plan_model_deployment(observed, now=NOW).status.conditions
    assert [one.status for one in found if one.type == "FrontUpToDate"] == ["True"]


def test_nothing_is_told_without_a_front_or_before_its_pods_have_said() -> None:
    bare = desired(endpoint=type(MANAGED.endpoint)(type="Service"))
    for observed in (
        deployment(bare, group("ready"), front_understands=OLDEST),
        deployment(MANAGED, group("ready"), front_understands=None),
    ):
        found = plan_model_deployment(observed, now=NOW).status.conditions
        assert not [one for one in found if one.type == "FrontUpToDate"]


def test_the_pod_asks_after_its_sidecar_and_without_a_token() -> None:
    """The sidecar's image is pulled first, by the container whose failures are told."""
    spec = TEMPLATE["spec"]["template"]["spec"]
    sidecar, asks = spec["initContainers"]
    assert sidecar["name"] == "membership"
    assert asks["image"] == IMAGE
    assert asks["volumeMounts"] == []
    assert asks["securityContext"] == sidecar["securityContext"]
