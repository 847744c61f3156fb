"""API keys: which deployments have one, what may be one, where they are kept and how long."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from isthmus.api import names
from isthmus.api.defaults import effective
from isthmus.api.desired import ApiKey, Desired, Endpoint, Engine, EngineType, Router
from isthmus.api.keys import attempt_key, key_digest, unusable
from isthmus.api.modeldeployment import ModelDeployment
from isthmus.api.revision import revision_hash
from isthmus.api.slurmjob import SlurmJob
from isthmus.apiserver.resources import DEPLOYMENTS, PODS, SECRETS, SLURM_JOBS, Resource
from isthmus.apiserver.secrets import Secrets
from isthmus.apiserver.store import Store
from isthmus.backends.kubernetes.render import deployment, pod_template
from isthmus.backends.slurm.frozen import freeze, from_json, to_json
from isthmus.errors import ApiAlreadyExistsError, NameTakenError, SecretMissingError
from isthmus.modeldeployment.keys import DeploymentKeys
from isthmus.slurmjob.attempt_keys import AttemptKeys, InstallationSeed
from tests.simulation.apiserver import ApiSimulator
from tests.unit.builders import desired, k8s_pool, slurm_pool

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
        self.store = Store(watched=[DEPLOYMENTS, PODS, SLURM_JOBS])
        self.desired = desired(slurm_pool(), api_key=api_key)
        self.drawn, self.had_key = 0, False
        self.seed = "isthmus-seed"

    def _new_key(self) -> str:
        self.drawn += 1
        return f"isthmus-generated-{self.drawn}"

    def keys(self) -> tuple[DeploymentKeys, AttemptKeys]:
        """Those of an operator that has just started."""
        api: Any = self.api
        secrets = Secrets(api, clock=lambda: 0.0)
        seed = InstallationSeed(
            api=api,
            secrets=secrets,
            namespace="isthmus-system",
            draw=lambda: self.seed,
        )
        attempts = AttemptKeys(store=self.store, api=api, secrets=secrets, seed=seed)
        keys = DeploymentKeys(
            store=self.store,
            api=api,
            secrets=secrets,
            attempts=attempts,
            seed=seed,
            new_key=self._new_key,
        )
        return keys, attempts

    async def settle(self) -> tuple[str, str]:
        """The digest and what is wrong; then what no worker has is forgotten."""
        keys, _ = self.keys()
        made, wrong = await keys.settled(self.desired, had_key=self.had_key)
        self.settled = made
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

    def job_with(self, digest: str, *, name: str, source: str | None) -> SlurmJob:
        """An attempt as it was made; one without a source has the deployment's key."""
        annotations = {} if source is None else {names.ANNOTATION_KEY_SOURCE: source}
        obj: dict[str, Any] = {
            "metadata": {
                "namespace": "team-a",
                "name": name,
                "uid": f"uid-{name}",
                "resourceVersion": "5",
                "labels": {names.LABEL_DEPLOYMENT: "llama", names.LABEL_KEY: digest},
                "annotations": annotations,
                "ownerReferences": [{"kind": "ModelDeployment", "uid": "uid-llama"}],
            },
            "spec": {
                "clusterRef": {"namespace": "team-a", "name": "hpc"},
                "deployment": "llama",
                "pool": "hpc",
                "slot": 0,
                "attempt": "x7k2qp",
                "revision": "new",
                "jobName": f"job-{name}",
            },
        }
        self.store.put(SLURM_JOBS, obj)
        return SlurmJob.model_validate(obj)

    async def attempt(self, name: str) -> SlurmJob:
        """A new attempt with a key of its own."""
        _, attempts = self.keys()
        digest = await attempts.digest(self.settled, job_name=f"job-{name}")
        assert digest is not None
        source = self.settled.api_key
        assert source is not None
        return self.job_with(digest, name=name, source=source.digest)

    async def key(self, job: SlurmJob) -> str | None:
        """What is staged for it."""
        frozen = freeze(desired=self.settled, pool=self.settled.pools[0])
        return await self.keys()[1].key(job, frozen)

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


async def test_a_key_that_is_not_wanted_any_more_is_forgotten_with_its_last_worker() -> None:
    """Found by the differential oracle: the keys of workers that are gone stayed for ever."""
    lab = Lab()
    digest, _ = await lab.settle()
    lab.pod_with(digest)
    lab.desired = replace(lab.desired, api_key=None)
    await lab.settle()
    assert digest in lab.api.data("llama-worker-keys")
    assert lab.keys()[0].in_use(lab.desired)
    lab.store.remove(PODS, "team-a", f"pod-{digest}", digest)
    assert not lab.keys()[0].in_use(lab.desired)
    lab.had_key = True  # as the status said as long as a worker had it
    await lab.settle()
    assert lab.api.data("llama-worker-keys") == {}


async def test_an_attempt_keeps_its_key_when_its_annotations_are_taken() -> None:
    """Found by rough hands: its probes were answered 401 from then on."""
    lab = Lab()
    await lab.settle()
    job = await lab.attempt("one")
    before = await lab.key(job)
    bare = lab.job_with(job.metadata.labels[names.LABEL_KEY], name="one", source=None)
    assert await lab.key(bare) == before


async def test_a_key_that_no_worker_ever_had_is_forgotten_by_the_operator_that_kept_it() -> None:
    lab = Lab()
    keys, _ = lab.keys()
    await keys.settled(lab.desired)
    await keys.settled(replace(lab.desired, api_key=None))
    assert lab.api.data("llama-worker-keys") == {}


async def test_a_users_key_that_is_lost_leaves_the_last_one_in_use() -> None:
    lab = Lab(USERS)
    with pytest.raises(SecretMissingError, match="team-a/mine does not exist"):
        await lab.settle()
    lab.api.put("mine", token="short")
    with pytest.raises(SecretMissingError, match="openssl rand"):
        await lab.settle()
    lab.api.put("mine", token=KEY)
    digest, wrong = await lab.settle()
    assert (digest, wrong) == (key_digest(KEY, uid="uid-llama", seed="isthmus-seed"), "")
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


# ---- keys of attempts


async def test_h1_each_attempt_has_a_key_of_its_own_written_down_before_it_is_staged() -> None:
    lab = Lab()
    source, _ = await lab.settle()
    jobs = [await lab.attempt(name) for name in ("one", "two")]
    keys = [await lab.key(job) for job in jobs]
    digests = [job.metadata.labels[names.LABEL_KEY] for job in jobs]
    held = lab.api.data("llama-worker-keys")
    assert [held[digest] for digest in digests] == keys
    assert len({*keys, held[source]}) == 3
    assert not any(unusable(key or "") for key in keys)
    assert all(f"{digest}.yaml" not in held for digest in digests)  # that is for pods


async def test_h1_the_keys_of_many_attempts_are_one_write_and_fit_into_the_secret() -> None:
    """512 workers, and as many again that drain or are replaced; a Secret has 1 MiB."""
    lab = Lab()
    await lab.settle()
    jobs = [await lab.attempt(f"job-{number}") for number in range(1024)]
    frozen = freeze(desired=lab.settled, pool=lab.settled.pools[0])
    _, attempts = lab.keys()
    writes = lab.api.writes
    found = await asyncio.gather(*(attempts.key(job, frozen) for job in jobs))
    assert lab.api.writes == writes + 1
    assert len(set(found)) == 1024
    stored = json.dumps(lab.api.server.get(SECRETS, "team-a", "llama-worker-keys"))
    assert len(stored) < 120_000
    await lab.settle()
    assert lab.api.writes == writes + 1


async def test_a_key_of_an_attempt_that_is_lost_is_derived_again_as_it_was() -> None:
    lab = Lab()
    await lab.settle()
    job = await lab.attempt("one")
    key = await lab.key(job)
    lab.api.delete("llama-worker-keys")
    await lab.settle()
    assert lab.api.data("llama-worker-keys")[job.metadata.labels[names.LABEL_KEY]] == key


async def test_a_key_that_cannot_be_derived_again_is_told_and_never_another_one() -> None:
    """The seed of the installation is lost together with what was written down."""
    lab = Lab()
    await lab.settle()
    job = await lab.attempt("one")
    lab.api.server.delete(SECRETS, "isthmus-system", names.KEY_SEED_SECRET, by="user")
    lab.seed = "isthmus-another-seed"
    with pytest.raises(SecretMissingError):
        await lab.key(job)
    assert job.metadata.labels[names.LABEL_KEY] not in lab.api.data("llama-worker-keys")


async def test_keys_go_with_their_attempts_and_the_source_with_the_last_of_them() -> None:
    lab = Lab()
    first, _ = await lab.settle()
    job = await lab.attempt("one")
    key = await lab.key(job)
    lab.api.delete("llama-api-key")
    second, _ = await lab.settle()
    held = lab.api.data("llama-worker-keys")
    digest = job.metadata.labels[names.LABEL_KEY]
    assert {first, second, digest} <= held.keys()  # from the first it could be derived again
    assert held[digest] == key
    lab.store.remove(SLURM_JOBS, "team-a", "one", "uid-one")
    await lab.settle()
    assert lab.api.data("llama-worker-keys").keys() == {second, f"{second}.yaml"}


async def test_an_attempt_of_a_release_before_goes_on_with_the_deployments_key() -> None:
    """An upgrade meets running jobs, whose label says which key they have."""
    lab = Lab()
    digest, _ = await lab.settle()
    old = lab.job_with(digest, name="old", source=None)
    assert await lab.key(old) == "isthmus-generated-1"
    young = await lab.attempt("young")
    assert await lab.key(young) not in {None, "isthmus-generated-1"}


@pytest.mark.parametrize(
    ("endpoint", "own"),
    [
        (Endpoint(), True),
        (Endpoint(type="External", router=Router(kind="smg", url="http://r:1")), True),
        (Endpoint(type="External", router=Router(kind="sglang-router", url="http://r:1")), True),
        (Endpoint(type="External", router=Router(kind="envoy")), False),
        (Endpoint(type="Service"), False),
    ],
)
async def test_who_sends_requests_decides_whether_attempts_share_a_key(
    endpoint: Endpoint, own: bool
) -> None:
    lab = Lab()
    lab.desired = replace(lab.desired, endpoint=endpoint)
    await lab.settle()
    digest = await lab.keys()[1].digest(lab.settled, job_name="job-one")
    assert (digest is not None) is own


async def test_attempts_that_have_to_share_a_key_are_another_revision_than_those_that_did_not() -> (
    None
):
    """Clients of the bare Service would be refused by a worker with a key of its own."""
    pool, pods = slurm_pool(), k8s_pool()
    lab = Lab()
    lab.desired = desired(pool, pods, api_key=GENERATED)
    service = replace(lab.desired, endpoint=Endpoint(type="Service"))
    managed = lab.desired

    async def revisions(wanted: Desired) -> list[str]:
        lab.desired = wanted
        await lab.settle()
        return [revision_hash(desired=lab.settled, pool=each) for each in (pool, pods)]

    before = await revisions(service)
    assert await revisions(managed) == before  # nothing restarts for a key of its own
    await lab.attempt("one")
    after = await revisions(service)
    assert after[0] != before[0]
    assert after[1] == before[1]
    lab.store.remove(SLURM_JOBS, "team-a", "one", "uid-one")
    assert await revisions(service) == after  # and not back again once the last one has gone


# ---- digests


async def test_l7_a_digest_says_nothing_to_who_guesses_keys() -> None:
    """A user's key may be guessable; digests stand on pods, slices and jobs, uids everywhere."""
    lab = Lab(USERS)
    lab.api.put("mine", token="a-common-password")
    digest, _ = await lab.settle()
    job = await lab.attempt("one")
    shown = {digest, job.metadata.labels[names.LABEL_KEY]}
    own = await lab.key(job) or ""
    for seed in ("", "uid-llama"):
        guess = attempt_key("a-common-password", job_name="job-one", seed=seed)
        assert guess != own  # nor does an attempt's own key
        for key in ("a-common-password", guess):
            assert key_digest(key, uid="uid-llama", seed=seed) not in shown


@pytest.mark.parametrize("lost", ["", "llama-worker-keys"])
async def test_l7_digests_of_a_release_before_go_on_while_their_key_is_in_use(lost: str) -> None:
    """Else an upgrade would be a rollout; also where the Secret of worker keys was lost."""
    old = key_digest(KEY, uid="uid-llama")
    lab = Lab(USERS)
    lab.api.put("mine", token=KEY)
    lab.pod_with(old)
    await lab.settle()
    lab.api.delete("llama-worker-keys")
    owner = {"ownerReferences": [{"kind": "ModelDeployment", "uid": "uid-llama"}]}
    metadata = {"namespace": "team-a", "name": "llama-worker-keys", **owner}
    data = {old: base64.b64encode(KEY.encode()).decode()}
    if not lost:
        lab.api.server.create(SECRETS, {"metadata": metadata, "data": data}, by="old operator")
    assert await lab.settle() == (old, "")
    lab.api.put("mine", token=f"{KEY}-changed")
    changed, _ = await lab.settle()
    assert changed == key_digest(f"{KEY}-changed", uid="uid-llama", seed="isthmus-seed")


async def test_l7_a_seed_that_is_lost_restarts_nothing() -> None:
    lab = Lab()
    digest, _ = await lab.settle()
    job = await lab.attempt("one")
    key = await lab.key(job)
    lab.api.server.delete(SECRETS, "isthmus-system", names.KEY_SEED_SECRET, by="user")
    lab.seed = "isthmus-another-seed"
    assert await lab.settle() == (digest, "")
    assert await lab.key(job) == key
    other = await lab.attempt("two")
    assert await lab.key(other) != key


async def test_the_seed_of_an_instance_that_was_faster_counts() -> None:
    lab = Lab()
    await lab.settle()
    lab.seed = "isthmus-another-seed"
    digest, _ = await lab.settle()
    assert digest == key_digest("isthmus-generated-1", uid="uid-llama", seed="isthmus-seed")
    look, name = lab.api.get, names.KEY_SEED_SECRET
    asked: list[str] = []

    async def late(resource: Resource, *, namespace: str, name: str) -> Any:
        asked.append(name)
        first = asked.count(name) == 1 and name == names.KEY_SEED_SECRET
        return None if first else await look(resource, namespace=namespace, name=name)

    lab.api.get = late  # type: ignore[method-assign]
    job = await lab.attempt("one")
    assert asked.count(name) == 2
    assert job.metadata.labels[names.LABEL_KEY] == key_digest(
        attempt_key("isthmus-generated-1", job_name="job-one", seed="isthmus-seed"),
        uid="uid-llama",
        seed="isthmus-seed",
    )


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
