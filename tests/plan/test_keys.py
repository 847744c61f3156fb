"""API keys: which deployments have one, what may be one, where they are kept and how long."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from isthmus.api import names
from isthmus.api.defaults import effective
from isthmus.api.desired import ApiKey, Desired, Engine, EngineType
from isthmus.api.keys import key_digest, unusable
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.api.revision import revision_hash
from isthmus.apiserver.resources import DEPLOYMENTS, PODS, SECRETS, Resource
from isthmus.apiserver.secrets import Secrets
from isthmus.backends.kubernetes.render import deployment, pod_template
from isthmus.backends.slurm.frozen import freeze, from_json, to_json
from isthmus.errors import ApiAlreadyExistsError, NameTakenError, SecretMissingError
from isthmus.reconcile.keys import DeploymentKeys
from isthmus.reconcile.store import Store
from tests.plan.builders import desired, k8s_pool, slurm_pool
from tests.simulation.apiserver import ApiSimulator

KEY = "isthmus-0123456789abcdef"
GENERATED = ApiKey(secret="llama-api-key", key="api-key", generated=True)
USERS = ApiKey(secret="mine", key="token", generated=False)


def meant(*pools: dict[str, Any], **spec: Any) -> Desired:
    obj = {
        "metadata": {"name": "llama", "namespace": "team-a", "uid": "u1"},
        "spec": {"model": {"source": "hf://a/b"}, "pools": list(pools), **spec},
    }
    return effective(ModelDeployment.model_validate(obj), generate_api_keys=True)


ON_SLURM = {"name": "hpc", "slurm": {"clusterRef": {"name": "hpc"}}}
ON_KUBERNETES = {"name": "k8s", "kubernetes": {}}


def test_a_pool_on_slurm_gives_all_workers_a_generated_key() -> None:
    assert meant(ON_SLURM).api_key == GENERATED
    assert meant(ON_KUBERNETES, ON_SLURM).api_key == GENERATED
    assert meant(ON_KUBERNETES).api_key is None


def test_the_users_key_is_for_any_deployment() -> None:
    for pool in (ON_SLURM, ON_KUBERNETES):
        made = meant(pool, endpoint={"apiKeySecretRef": {"name": "mine", "key": "token"}})
        assert made.api_key == USERS
    default = meant(ON_SLURM, endpoint={"apiKeySecretRef": {"name": "mine"}}).api_key
    assert default is not None
    assert default.key == "api-key"


@pytest.mark.parametrize("key", ["", "short", "x" * 513, "-" + "x" * 20, 'a"' * 20, "a b " * 9])
def test_what_cannot_be_a_key_is_said_without_saying_it(key: str) -> None:
    assert "openssl rand" in unusable(key)
    assert not key or key not in unusable(key)


def test_a_digest_tells_keys_and_deployments_apart() -> None:
    found = {key_digest(key, uid=uid) for key in (KEY, KEY + "x") for uid in ("u1", "u2")}
    assert len(found) == 4
    assert all(len(digest) == 10 and digest.isalnum() for digest in found)


def test_another_key_is_another_revision_and_no_key_is_none() -> None:
    pool = slurm_pool()
    plain = desired(pool)
    keyed = [
        replace(plain, api_key=replace(GENERATED, digest=digest))
        for digest in (None, "aaaaaaaaaa", "bbbbbbbbbb")
    ]
    hashes = [revision_hash(desired=each, pool=pool) for each in (plain, *keyed)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


# ---- how engines are given it


def keyed(*pools: Any) -> Desired:
    return desired(*pools, api_key=replace(GENERATED, digest="aaaaaaaaaa"))


def template(engine: EngineType) -> dict[str, Any]:
    pool = k8s_pool(engine=Engine(type=engine, image="x"))
    return pod_template(
        desired=keyed(pool), pool=pool, revision="r", pre_stop_seconds=5, shutdown_seconds=60
    )


def test_vllm_pods_get_it_by_a_variable_of_their_own_revision() -> None:
    made = template(EngineType.VLLM)
    (container,) = made["spec"]["containers"]
    source = {"secretKeyRef": {"name": "llama-worker-keys", "key": "aaaaaaaaaa"}}
    assert container["env"] == [{"name": "VLLM_API_KEY", "valueFrom": source}]
    assert "volumes" not in made["spec"]
    assert made["metadata"]["labels"][names.LABEL_KEY] == "aaaaaaaaaa"
    obj = deployment(desired=keyed(), pool="k8s", revision="r", template=made, replicas=1)
    assert obj["metadata"]["labels"][names.LABEL_KEY] == "aaaaaaaaaa"  # type: ignore[index]
    assert names.LABEL_KEY not in obj["spec"]["selector"]["matchLabels"]  # type: ignore[index]


def test_sglang_pods_get_it_by_a_configuration_file() -> None:
    made = template(EngineType.SGLANG)
    (container,) = made["spec"]["containers"]
    (volume,) = made["spec"]["volumes"]
    (mount,) = container["volumeMounts"]
    (item,) = volume["secret"]["items"]
    assert item["key"] == "aaaaaaaaaa.yaml"
    assert container["args"][-2:] == ["--config", f"{mount['mountPath']}/{item['path']}"]
    assert "env" not in container


@pytest.mark.parametrize(
    ("engine", "variable"), [(EngineType.VLLM, "VLLM_API_KEY"), (EngineType.SGLANG, None)]
)
def test_jobs_freeze_which_key_and_by_which_way(engine: EngineType, variable: str | None) -> None:
    pool = slurm_pool(engine=Engine(type=engine))
    frozen = freeze(desired=keyed(pool), pool=pool)
    assert (frozen.template.key, frozen.template.key_variable) == ("aaaaaaaaaa", variable)
    assert ("@KEYFILE@" in frozen.template.argv) == (variable is None)
    assert from_json(json.loads(json.dumps(to_json(frozen)))) == frozen
    old = to_json(freeze(desired=desired(pool), pool=pool))
    for name in ("key", "key_variable"):  # a revision frozen by an older release
        del old["template"][name]  # type: ignore[attr-defined]
    assert from_json(old).template.key is None


# ---- the two Secrets


class Api:
    """The simulated API server as the client that reconcilers have."""

    def __init__(self) -> None:
        self.server = ApiSimulator(clock=lambda: 1.8e9)
        self.writes = 0

    async def get(self, resource: Resource, *, namespace: str, name: str) -> Any:
        return self.server.get(resource, namespace, name)

    async def create(self, resource: Resource, obj: Any) -> Any:
        self.writes += 1
        return self.server.create(resource, obj, by="op")

    async def patch(self, resource: Resource, *, namespace: str, name: str, patch: Any) -> Any:
        self.writes += 1
        return self.server.patch(resource, namespace, name, patch=patch, subresource="", by="op")

    def data(self, name: str) -> dict[str, str]:
        found = self.server.get(SECRETS, "team-a", name)
        data = {} if found is None else found["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def put(self, name: str, **data: str) -> None:
        encoded = {key: base64.b64encode(v.encode()).decode() for key, v in data.items()}
        obj = {"metadata": {"namespace": "team-a", "name": name}, "data": encoded}
        if self.server.get(SECRETS, "team-a", name) is None:
            self.server.create(SECRETS, obj, by="user")
        else:
            self.server.patch(SECRETS, "team-a", name, patch=obj, subresource="", by="user")

    def delete(self, name: str) -> None:
        self.server.delete(SECRETS, "team-a", name, by="user")


class Lab:
    """Keys of one deployment, every pass as it would be after the memory of Secrets has faded."""

    def __init__(self, api_key: ApiKey = GENERATED) -> None:
        self.api = Api()
        self.store = Store(watched=[DEPLOYMENTS, PODS])
        self.desired = desired(slurm_pool(), api_key=api_key)
        self.drawn, self.had_key = 0, False

    def _new_key(self) -> str:
        self.drawn += 1
        return f"isthmus-generated-{self.drawn}"

    async def settle(self) -> tuple[str, str]:
        """The digest and what is wrong; then what no worker has is forgotten."""
        secrets = Secrets(self.api, clock=lambda: 0.0)  # type: ignore[arg-type]
        keys = DeploymentKeys(
            store=self.store,
            api=self.api,  # type: ignore[arg-type]
            secrets=secrets,
            new_key=self._new_key,
        )
        made, wrong = await keys.settled(self.desired, had_key=self.had_key)
        self.had_key = made.api_key is not None
        await keys.forget_unused(made)
        return (made.api_key.digest or "" if made.api_key else ""), wrong

    def told_front(self) -> dict[str, str]:
        """What the front reads about Deployments."""
        held = self.api.server.get(SECRETS, "team-a", "llama-worker-keys")
        assert held is not None
        found: dict[str, str] = json.loads(
            held["metadata"]["annotations"][names.ANNOTATION_DEPLOYMENT_KEYS]
        )
        return found

    def deployment_with(self, digest: str, *, name: str) -> None:
        labels = {names.LABEL_DEPLOYMENT: "llama"} | ({names.LABEL_KEY: digest} if digest else {})
        metadata = {"namespace": "team-a", "name": name, "uid": name, "labels": labels}
        self.store.put(DEPLOYMENTS, {"metadata": {**metadata, "resourceVersion": "5"}})

    def pod_with(self, digest: str) -> None:
        labels = {names.LABEL_DEPLOYMENT: "llama", names.LABEL_KEY: digest}
        metadata = {"namespace": "team-a", "name": f"pod-{digest}", "uid": digest, "labels": labels}
        self.store.put(PODS, {"metadata": {**metadata, "resourceVersion": "5"}})


async def test_a_key_is_made_once_and_kept_for_workers() -> None:
    lab = Lab()
    digest, wrong = await lab.settle()
    assert wrong == ""
    assert lab.api.data("llama-api-key") == {"api-key": "isthmus-generated-1"}
    assert lab.api.data("llama-worker-keys") == {
        digest: "isthmus-generated-1",
        f"{digest}.yaml": 'api-key: "isthmus-generated-1"\n',
    }
    writes = lab.api.writes
    assert await lab.settle() == (digest, "")
    assert (lab.api.writes, lab.drawn) == (writes, 1)


async def test_both_secrets_go_with_the_deployment() -> None:
    lab = Lab()
    await lab.settle()
    for name in ("llama-api-key", "llama-worker-keys"):
        obj = lab.api.server.get(SECRETS, "team-a", name)
        assert obj is not None
        (owner,) = obj["metadata"]["ownerReferences"]
        assert owner["uid"] == "uid-llama"


async def test_a_changed_key_is_kept_beside_the_old_one_while_a_worker_has_that() -> None:
    lab = Lab()
    first, _ = await lab.settle()
    lab.pod_with(first)
    lab.api.delete("llama-api-key")
    second, _ = await lab.settle()
    assert second != first
    assert {first, second} <= lab.api.data("llama-worker-keys").keys()
    lab.store.remove(PODS, "team-a", f"pod-{first}", first)
    assert (await lab.settle())[0] == second
    assert lab.api.data("llama-worker-keys").keys() == {second, f"{second}.yaml"}


async def test_a_users_key_that_is_lost_leaves_the_last_one_in_use() -> None:
    lab = Lab(USERS)
    with pytest.raises(SecretMissingError, match="team-a/mine does not exist"):
        await lab.settle()
    lab.api.put("mine", token="short")
    with pytest.raises(SecretMissingError, match="openssl rand"):
        await lab.settle()
    lab.api.put("mine", token=KEY)
    digest, wrong = await lab.settle()
    assert (digest, wrong) == (key_digest(KEY, uid="uid-llama"), "")
    lab.api.delete("mine")
    again, wrong = await lab.settle()
    assert again == digest
    assert "does not exist" in wrong
    assert "keep the key that they have" in wrong
    assert lab.drawn == 0


async def test_the_front_hears_of_deployments_made_while_the_users_key_is_lost() -> None:
    lab = Lab(USERS)
    lab.api.put("mine", token=KEY)
    digest, _ = await lab.settle()
    lab.api.delete("mine")
    lab.deployment_with(digest, name="llama-k8s-new")
    await lab.settle()
    assert lab.told_front() == {"llama-k8s-new": digest}


async def test_the_front_hears_first_that_new_workers_have_no_key_any_more() -> None:
    lab = Lab(USERS)
    lab.api.put("mine", token=KEY)
    digest, _ = await lab.settle()
    lab.deployment_with(digest, name="llama-k8s-old")
    lab.desired = replace(lab.desired, api_key=None)
    assert await lab.settle() == ("", "")
    assert lab.told_front() == {"llama-k8s-old": digest, "*": ""}
    lab.deployment_with("", name="llama-k8s-new")
    lab.store.remove(DEPLOYMENTS, "team-a", "llama-k8s-old", "llama-k8s-old")
    writes = lab.api.writes
    await lab.settle()
    assert lab.api.writes == writes  # and what is said of all others goes on holding


async def test_without_workers_the_front_hears_of_it_too() -> None:
    lab = Lab()
    await lab.settle()
    lab.desired = replace(lab.desired, api_key=None)
    await lab.settle()
    assert lab.told_front() == {"*": ""}


@pytest.mark.parametrize("name", ["llama-api-key", "llama-worker-keys"])
async def test_a_foreign_secret_is_a_conflict_and_stays_as_it_is(name: str) -> None:
    lab = Lab()
    lab.api.put(name, **{"api-key": "theirs"})
    with pytest.raises(NameTakenError, match=name):
        await lab.settle()
    assert lab.api.data(name) == {"api-key": "theirs"}


async def test_a_create_that_was_committed_unheard_is_taken_as_it_is() -> None:
    """The Secret turns up between our look and our write."""
    lab = Lab()
    await lab.settle()
    create, look = lab.api.create, lab.api.get
    seen: list[str] = []

    async def late(resource: Resource, *, namespace: str, name: str) -> Any:
        seen.append(name)
        return (
            None if seen.count(name) == 1 else await look(resource, namespace=namespace, name=name)
        )

    async def refused(resource: Resource, obj: Any) -> Any:
        with pytest.raises(ApiAlreadyExistsError):
            await create(resource, obj)
        raise ApiAlreadyExistsError("exists", status=409, reason="AlreadyExists")

    lab.api.get, lab.api.create = late, refused  # type: ignore[method-assign]
    _, wrong = await lab.settle()
    assert wrong == ""
    assert lab.api.data("llama-api-key") == {"api-key": "isthmus-generated-1"}


def test_a_store_keeps_no_secret() -> None:
    store = Store(watched=[PODS])
    obj = {"metadata": {"namespace": "a", "name": "b", "uid": "u", "resourceVersion": "1"}}
    store.on_written(SECRETS, obj)
    assert store.count(SECRETS) == 0
