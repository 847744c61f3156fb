"""The front in front of the workers: when it is made, taken away, and what of it may change."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, cast

import pytest

from isthmus.api import names
from isthmus.api.conditions import PendingClass
from isthmus.api.desired import Desired, Endpoint, Router
from isthmus.api.front_pods import read_front_pods
from isthmus.apiserver.client import ApiServer
from isthmus.apiserver.resources import DEPLOYMENTS, PODS, SERVICES
from isthmus.apiserver.store import Store
from isthmus.backends.base import Pending
from isthmus.backends.kubernetes import front, render
from isthmus.errors import SettingsError
from isthmus.front.apiserver import ACCOUNT
from isthmus.front.policy import ENVIRONMENT, MEMORY_ENVIRONMENT, Policy, read_policy
from isthmus.modeldeployment.actions import DeleteFront, EnsureFront
from isthmus.modeldeployment.execute_front import ensure_front, front_state, service_waits
from isthmus.modeldeployment.plan import plan_model_deployment
from isthmus.settings import Settings
from tests.unit.builders import NOW, deployment, desired, group, k8s_pool

MANAGED = desired()
BARE = desired(endpoint=Endpoint(type="Service"))
IMAGE = "isthmus-front:7"


def actions(wanted: Desired, **changes: Any) -> list[object]:
    observed = deployment(wanted, group("ready"), **changes)
    found = plan_model_deployment(observed, now=NOW).actions
    return [action for action in found if isinstance(action, EnsureFront | DeleteFront)]


class TestPlan:
    def test_a_managed_endpoint_has_a_front(self) -> None:
        assert actions(MANAGED, front_ok=False) == [EnsureFront()]
        assert actions(MANAGED, front_ok=True, front_exists=True) == []

    def test_a_bare_service_has_none(self) -> None:
        assert actions(BARE, front_ok=False) == []
        assert actions(BARE, front_exists=True) == [DeleteFront()]

    def test_a_front_stays_until_the_service_has_left_it(self) -> None:
        assert actions(BARE, front_exists=True, service_ok=False) == []

    def test_workers_are_made_before_the_front(self) -> None:
        """A front that cannot be made keeps no worker from starting."""
        observed = deployment(MANAGED, front_ok=False)
        found = plan_model_deployment(observed, now=NOW).actions
        assert len(found) > 1
        assert found[-1] == EnsureFront()


class TestStatus:
    def conditions(self, wanted: Desired, **changes: Any) -> dict[str, tuple[str, str]]:
        observed = deployment(wanted, group("ready"), **changes)
        found = plan_model_deployment(observed, now=NOW).status.conditions
        return {one.type: (one.status, one.reason) for one in found}

    def test_workers_that_nobody_can_reach_are_not_available(self) -> None:
        found = self.conditions(MANAGED, front_available=False)
        assert found["Ready"] == ("False", "FrontNotReady")
        assert found["Available"] == ("False", "FrontNotReady")
        assert found["Progressing"][0] == "True"

    def test_f11_the_pods_own_reason_is_told(self) -> None:
        why = Pending(
            pending_class=PendingClass.UNSCHEDULABLE,
            reason="Unschedulable",
            message="0/2 nodes are available: 2 had untolerated taint",
        )
        observed = deployment(MANAGED, group("ready"), front_available=False, front_problem=why)
        found = plan_model_deployment(observed, now=NOW).status.conditions
        (available,) = [one for one in found if one.type == "Available"]
        assert available.reason == "FrontNotReady"
        assert "Unschedulable: 0/2 nodes are available" in available.message

    def test_a_front_that_is_not_wanted_is_not_missed(self) -> None:
        assert self.conditions(BARE, front_available=False)["Available"][0] == "True"
        assert self.conditions(MANAGED)["Ready"][0] == "True"

    def test_a_router_that_does_not_answer_is_told(self) -> None:
        router = Router(kind="smg", url="http://router:30000")
        external = desired(endpoint=Endpoint(type="External", router=router))
        found = self.conditions(external, router_problem="http://router:30000 does not answer")
        assert found["RouterReachable"] == ("False", "RouterUnreachable")
        assert self.conditions(external, router_problem="")["RouterReachable"][0] == "True"
        assert "RouterReachable" not in self.conditions(BARE)

    def test_without_workers_the_workers_are_the_news(self) -> None:
        observed = deployment(MANAGED, group("starting"), front_available=False)
        found = plan_model_deployment(observed, now=NOW).status.conditions
        reasons = {one.type: one.reason for one in found}
        assert reasons["Ready"] == "WorkersNotReady"
        assert reasons["Available"] == "NoWorkersReady"


class TestMembership:
    @pytest.mark.parametrize(
        ("endpoint", "service"),
        [
            (Endpoint(), "llama-workers"),
            (Endpoint(type="Service"), "llama"),
            (Endpoint(type="External", router=Router(kind="smg", url="http://r")), "llama"),
        ],
    )
    def test_the_service_of_the_workers(self, endpoint: Endpoint, service: str) -> None:
        assert desired(endpoint=endpoint).membership_service == service

    def test_the_users_service_leads_to_the_front_or_to_the_workers(self) -> None:
        """Never to both: a client must not meet workers behind the front's back."""
        pod: dict[str, Any] = front.front_deployment(
            desired=MANAGED, image=IMAGE, drain_seconds=300
        )["spec"]["template"]["metadata"]["labels"]  # type: ignore[index]
        worker = render.pod_labels(desired=MANAGED, pool="k8s", revision="r")
        for wanted, inside, outside in ((MANAGED, pod, worker), (BARE, worker, pod)):
            selector: Any = render.service_spec(desired=wanted)["selector"]
            assert selector.items() <= inside.items()
            assert not selector.items() <= outside.items()
        behind: Any = front.workers_service(desired=MANAGED)["spec"]
        assert behind["selector"].items() <= worker.items()
        assert not behind["selector"].items() <= pod.items()


class TestFront:
    def test_only_its_image_and_its_budget_change_it(self) -> None:
        """An operator that is upgraded, or a user who edits a pool, replaces no front."""
        made = front.front_deployment(desired=MANAGED, image=IMAGE, drain_seconds=300)
        other = replace(MANAGED, pools=(k8s_pool(), k8s_pool("more")), replicas=7, generation=9)
        again = front.front_deployment(desired=other, image=IMAGE, drain_seconds=300)
        assert made == again
        for image, drain in (("isthmus-front:8", 300), (IMAGE, 200)):
            assert front.front_revision(image=image, drain_seconds=drain) != front.front_revision(
                image=IMAGE, drain_seconds=300
            )

    def test_what_it_is_told_of_its_deployment_changes_it(self) -> None:
        """F2: engines, administration, extra paths and clients' keys; an older front goes on."""
        made = {"image": IMAGE, "drain_seconds": 300, "pods": read_front_pods("")}
        older = front.front_revision(**made)
        plain = front.accepted_revisions(desired=MANAGED, **made)
        assert older in plain
        assert len(plain) == 2
        hashes = {front.front_revision(desired=MANAGED, **made)}
        for endpoint in (
            Endpoint(administration=True),
            Endpoint(extra_paths=("/x",)),
            Endpoint(client_keys="clients"),
        ):
            accepted = front.accepted_revisions(desired=desired(endpoint=endpoint), **made)
            assert older not in accepted
            hashes |= accepted
        assert len(hashes) == 4

    def test_an_older_front_minds_no_policy_and_fails_over_keys_of_clients(self) -> None:
        """What it does not know must not stop it, but for a guard that it would not keep."""
        sidecar = self.pod()["initContainers"][0]
        assert not any("client" in word for word in sidecar["command"])
        told = {one["name"]: one.get("value") for one in sidecar["env"]}
        assert read_policy(told[ENVIRONMENT]) == Policy(engines=("vllm",))
        guarded = front.front_deployment(
            desired=desired(endpoint=Endpoint(client_keys="clients")),
            image=IMAGE,
            drain_seconds=300,
        )
        pod = guarded["spec"]["template"]["spec"]  # type: ignore[index]
        assert "--client-keys-secret=clients" in pod["initContainers"][0]["command"]

    def test_m3_its_memory_is_bounded_and_envoy_knows_the_bound(self) -> None:
        pod = self.pod()
        assert pod["containers"][0]["resources"]["limits"] == {"memory": "1Gi"}
        (memory,) = [e for e in pod["initContainers"][0]["env"] if e["name"] == MEMORY_ENVIRONMENT]
        assert memory["valueFrom"]["resourceFieldRef"] == {
            "resource": "limits.memory",
            "containerName": pod["containers"][0]["name"],
        }
        for requests, limit in (("2Gi", "2Gi"), ("256Mi", "1Gi"), ("9" * 20, "9" * 20)):
            given = json.dumps({"resources": {"requests": {"memory": requests}}})
            envoy = self.pod(pods=read_front_pods(given))["containers"][0]
            assert envoy["resources"]["limits"] == {"memory": limit}

    def test_no_pod_goes_before_the_next_one_is_there(self) -> None:
        made: Any = front.front_deployment(desired=MANAGED, image=IMAGE, drain_seconds=300)
        assert made["spec"]["replicas"] >= 2
        assert made["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        pod = made["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] > 300

    def pod(self, **changes: Any) -> Any:
        given = {"image": IMAGE, "drain_seconds": 300, **changes}
        made: Any = front.front_deployment(desired=MANAGED, **given)
        return made["spec"]["template"]["spec"]

    def test_f11_an_administrator_adapts_fronts_to_the_cluster(self) -> None:
        """Pull secrets, tolerations and the rest of the chart's values reach pods that we make."""
        given = {
            "imagePullSecrets": [{"name": "regcred"}],
            "nodeSelector": {"pool": "cpu"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "priorityClassName": "high",
            "resources": {"limits": {"memory": "512Mi"}},
        }
        pod = self.pod(pods=read_front_pods(json.dumps(given)))
        resources = given.pop("resources")
        assert {key: pod[key] for key in given} == given
        (envoy,), plain = pod["containers"], self.pod()["containers"][0]["resources"]
        assert envoy["resources"] == {**plain, **resources}  # type: ignore[dict-item]
        assert pod["automountServiceAccountToken"] is False

    def test_f11_a_change_of_it_replaces_fronts_and_an_upgrade_does_not(self) -> None:
        made = [
            front.front_revision(image=IMAGE, drain_seconds=300, pods=read_front_pods(text))
            for text in ("", "{}", '{"priorityClassName": "high"}')
        ]
        assert made[0] == made[1] == front.front_revision(image=IMAGE, drain_seconds=300)
        assert made[0] == "93b5c4b6b3", "as it was before there was this setting"
        assert made[2] != made[0]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("[]", "front_pods: it:"),
            ("{", "is no JSON object"),
            ('{"tolerations": [{"effect": "Never"}]}', "tolerations.0.effect"),
            ('{"image": "x"}', "front_pods: image:"),
            ('{"resources": {"limits": {"memory": "much"}}}', "resources.limits.memory"),
        ],
    )
    def test_f11_a_wrong_value_is_told_at_the_start(self, text: str, words: str) -> None:
        with pytest.raises(SettingsError, match=re.escape(words)):
            Settings(front_pods=text)

    def test_m9_only_the_sidecar_has_a_token(self) -> None:
        """Envoy reads what strangers send; a token there would read the workers' keys."""
        pod = self.pod()
        assert pod["automountServiceAccountToken"] is False
        (envoy,), (sidecar, contract) = pod["containers"], pod["initContainers"]
        (account,) = [one for one in pod["volumes"] if "projected" in one]
        mounts = {one["name"]: one["mountPath"] for one in sidecar["volumeMounts"]}
        assert mounts[account["name"]] == str(ACCOUNT), "where the sidecar looks for it"
        assert [one["name"] for one in envoy["volumeMounts"]] == ["run"]
        assert contract["volumeMounts"] == []
        sources = {
            kind: one for each in account["projected"]["sources"] for kind, one in each.items()
        }
        assert sources["serviceAccountToken"]["expirationSeconds"] <= 3607
        assert sources["configMap"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]

    def test_it_may_read_the_one_secret_of_its_clients(self) -> None:
        _, role, _ = front.rights(desired=desired(endpoint=Endpoint(client_keys="clients")))
        named = [rule["resourceNames"] for rule in role["rules"] if "resourceNames" in rule]  # type: ignore[attr-defined]
        assert named == [[f"{MANAGED.name}-worker-keys", "clients"]]

    def test_it_may_only_read_slices_and_its_own_keys(self) -> None:
        _, role, _ = front.rights(desired=MANAGED)
        assert role["rules"] == [
            {
                "apiGroups": ["discovery.k8s.io"],
                "resources": ["endpointslices"],
                "verbs": ["list", "watch"],
            },
            {
                "apiGroups": [""],
                "resources": ["secrets"],
                "resourceNames": [f"{MANAGED.name}-worker-keys"],
                "verbs": ["get"],
            },
        ]


class TestState:
    """What the operator concludes from the objects that it watches."""

    settings = Settings(front_image=IMAGE)

    def store(self, *objects: tuple[Any, dict[str, Any]]) -> Store:
        store = Store(watched=(SERVICES, DEPLOYMENTS, PODS))
        for number, (resource, obj) in enumerate(objects):
            meta = {**obj["metadata"], "uid": f"uid-{number}", "resourceVersion": str(number + 1)}
            store.put(resource, {**obj, "metadata": meta})
        return store

    def made(self, image: str = IMAGE, **status: int) -> tuple[Any, dict[str, Any]]:
        obj = front.front_deployment(desired=MANAGED, image=image, drain_seconds=300)
        return DEPLOYMENTS, {**obj, "status": status}

    def state(self, *objects: tuple[Any, dict[str, Any]]) -> tuple[bool, bool, bool]:
        found = front_state(self.store(*objects), desired=MANAGED, settings=self.settings)
        return found.ok, found.exists, found.available

    def test_what_is_missing_or_old_is_made(self) -> None:
        workers = (SERVICES, front.workers_service(desired=MANAGED))
        assert self.state() == (False, False, False)
        assert self.state(workers) == (False, True, False)
        assert self.state(self.made()) == (False, True, False)
        assert self.state(workers, self.made()) == (True, True, False)
        assert self.state(workers, self.made(availableReplicas=1)) == (True, True, True)
        assert self.state(workers, self.made(image="isthmus-front:6")) == (False, True, False)

    def test_it_is_rolled_out_once_every_pod_is_new(self) -> None:
        """So that nobody is told of keys that an old pod does not ask for."""
        workers = (SERVICES, front.workers_service(desired=MANAGED))
        for status, done in (
            ({"replicas": 3, "updatedReplicas": 1}, False),
            ({"replicas": 2, "updatedReplicas": 2}, True),
            ({}, False),
        ):
            store = self.store(workers, self.made(**status))
            found = front_state(store, desired=MANAGED, settings=self.settings)
            assert found.rolled_out is done

    async def test_f11_the_setting_reaches_the_front_that_is_made(self) -> None:
        """And a front that was made before it was set is made anew."""
        settings = Settings(front_image=IMAGE, front_pods='{"priorityClassName": "high"}')
        made: dict[str, Any] = {}

        class Api:
            async def create(self, resource: Any, obj: dict[str, Any]) -> None:
                made[obj["kind"]] = obj

        await ensure_front(cast(ApiServer, Api()), desired=MANAGED, settings=settings)
        pod = made["Deployment"]["spec"]["template"]["spec"]
        assert pod["priorityClassName"] == "high"
        workers = (SERVICES, front.workers_service(desired=MANAGED))
        for one, ok in (((DEPLOYMENTS, made["Deployment"]), True), (self.made(), False)):
            store = self.store(workers, one)
            assert front_state(store, desired=MANAGED, settings=settings).ok is ok

    def test_f11_why_no_pod_of_a_front_is_ready(self) -> None:
        """What the scheduler, the kubelet or an admission says; workers' pods say nothing here."""
        deployment = self.made()
        labelled = deployment[1]["spec"]["template"]["metadata"]["labels"]
        assert labelled["app.kubernetes.io/managed-by"] == "isthmus", "or no watch shows them"
        waiting = {"reason": "ImagePullBackOff", "message": "no such host"}
        status = {"name": "envoy", "image": IMAGE, "state": {"waiting": waiting}}
        unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        crashed = {"name": "membership", "state": {"terminated": {"exitCode": 2}}}
        injected = {"name": "istio-init", "state": {"terminated": {"exitCode": 0}}}
        for said, reason, words in (
            ({"containerStatuses": [status]}, "ImagePullBackOff", f"{IMAGE} cannot be pulled"),
            ({"conditions": [unscheduled]}, "Unschedulable", "front-pods"),
            ({"initContainerStatuses": [crashed]}, "Crashed", "the front ended with exit code 2"),
            ({"initContainerStatuses": [injected]}, "Starting", "the front is starting"),
        ):
            starting = self.pod("a", labelled, {})
            found = self.problem(deployment, starting, self.pod("b", labelled, said))
            assert found is not None
            assert found.reason == reason
            assert words in found.message
        worker = self.pod("w", render.pod_labels(desired=MANAGED, pool="k8s", revision="r"), {})
        assert self.problem(deployment, worker) is None
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        assert self.problem(deployment, self.pod("r", labelled, ready)) is None
        assert self.problem(self.made(availableReplicas=1), self.pod("a", labelled, {})) is None

    def test_f11_a_front_that_pod_security_refuses(self) -> None:
        refusal = {
            "type": "ReplicaFailure",
            "status": "True",
            "reason": "FailedCreate",
            "message": 'pods "x" is forbidden: violates PodSecurity "restricted:latest"',
        }
        resource, obj = self.made()
        found = self.problem((resource, {**obj, "status": {"conditions": [refusal]}}))
        assert found is not None
        assert found.reason == "PodSecurityRefused"

    def problem(self, *objects: tuple[Any, dict[str, Any]]) -> Pending | None:
        store = self.store(*objects)
        return front_state(store, desired=MANAGED, settings=self.settings).problem

    def pod(
        self, name: str, labels: dict[str, str], status: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        meta = {"name": name, "namespace": MANAGED.namespace, "labels": labels}
        return PODS, {"metadata": meta, "status": status}

    def test_what_is_not_ours_is_not_a_front(self) -> None:
        resource, obj = self.made(availableReplicas=2)
        foreign = {**obj, "metadata": {**obj["metadata"], "ownerReferences": []}}
        assert self.state((resource, foreign)) == (False, False, False)

    def test_a_service_with_workers_waits_for_the_first_pod_of_its_front(self) -> None:
        direct = self.store((SERVICES, render.service(desired=BARE)))
        assert service_waits(direct, desired=MANAGED, front_available=False)
        assert not service_waits(direct, desired=MANAGED, front_available=True)
        assert not service_waits(direct, desired=BARE, front_available=False)
        assert not service_waits(self.store(), desired=MANAGED, front_available=False)


def test_workers_are_told_apart_from_fronts_by_an_autoscaler() -> None:
    assert names.LABEL_COMPONENT in render.front_labels(MANAGED)
    assert names.LABEL_COMPONENT not in render.pod_labels(desired=MANAGED, pool="k8s", revision="r")
