"""API keys of workers: nobody gets an answer without one, none shows anywhere, and they change
without an outage.
"""

import base64
import json
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from isthmus.routing.members import workers as members
from isthmus.routing.worker_keys import held_keys
from playground.config import slurm_node_names
from playground.image import SGLANG_IMAGE
from tests.real.api import Json
from tests.real.conftest import arguments
from tests.real.test_lifecycle import never_below
from tests.real.world import FAST, World, bearer, deployment, kubernetes_pool, slurm_pool, until

ENV = [{"name": name, "value": value} for name, value in FAST]
SGLANG_PODS = {"type": "sglang", "image": SGLANG_IMAGE, "args": [], "env": ENV}
VLLM_JOBS = {"type": "vllm", "args": ["--max-model-len=8192"], "env": ENV}
ONE_OF_EACH = [
    kubernetes_pool("k8s-vllm", priority=40, maxReplicas=1),
    kubernetes_pool("k8s-sglang", priority=30, maxReplicas=1, engine=SGLANG_PODS),
    slurm_pool("hpc-sglang", priority=20, maxReplicas=1),
    slurm_pool("hpc-vllm", priority=10, engine=VLLM_JOBS),
]


def status_of(url: str, path: str, *, key: str = "") -> int:
    return httpx.get(f"{url}{path}", headers=bearer(key), timeout=20, trust_env=False).status_code


def secret(name: str, **texts: str) -> Json:
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def workers(world: World, name: str) -> dict[str, Json]:
    """The workers of a deployment by their pool."""
    return {worker["pool"]: worker for worker in world.status(name)["workers"]}


def held(world: World, name: str) -> dict[str, str]:
    """The Secret of worker keys: digest to key."""
    data = world.get("secret", f"{name}-worker-keys").get("data", {})
    keys = {entry: value for entry, value in data.items() if not entry.endswith(".yaml")}
    return {digest: base64.b64decode(value).decode() for digest, value in keys.items()}


@pytest.fixture(autouse=True, scope="module")
def keys_are_made(installed_world: World) -> Iterator[None]:
    """An operator that gives every deployment with a pool on SLURM a key."""
    operator = installed_world.operators[0]
    before = operator.arguments
    operator.stop()
    operator.arguments = tuple(arguments(generate_api_keys="true"))
    operator.start()
    yield
    operator.stop()
    operator.arguments = before
    operator.start()


@pytest.fixture
def keyed(world: World) -> str:
    """Both engines on both schedulers."""
    name = "keyed"
    world.apply(deployment(name, *ONE_OF_EACH, replicas=4))
    world.wait_agree(name, kubernetes=2, slurm=2, timeout=120)
    return name


@pytest.mark.timeout(240)
def test_every_worker_wants_the_key_and_none_shows_anywhere(world: World, keyed: str) -> None:
    key = world.key(keyed)
    assert len(key) > 40
    told = world.status(keyed)["apiKey"]
    assert (told["secret"], told["key"]) == ("keyed-api-key", "api-key")
    assert {"/health", "/metrics", "/tokenize"} <= set(told["openPaths"]), "vLLM's are told"
    found = workers(world, keyed)
    assert found.keys() == {"k8s-vllm", "k8s-sglang", "hpc-sglang", "hpc-vllm"}
    for pool, worker in found.items():
        url = worker["url"]
        assert status_of(url, "/v1/models") == 401, pool
        assert status_of(url, "/v1/models", key="x" * 43) == 401, pool
        assert status_of(url, "/v1/models", key=key) == 200, pool
        assert status_of(url, "/health") == 200, pool
        assert status_of(url, "/metrics") == 200, pool
    assert status_of(found["hpc-sglang"]["url"], "/model_info") == 401
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        world.chat(found["hpc-vllm"]["url"])  # this address has no key in `World`
    assert world.chat(world.service_url(keyed))
    assert_shown_nowhere(world, keyed, key)

    world.delete(keyed)
    until(lambda: not world.leftovers(keyed), "nothing is left")
    until(
        lambda: not world.get("secret", "keyed-api-key") and not held(world, keyed),
        "the Secrets go with their owner",
    )


@pytest.mark.timeout(240)
def test_b3_a_keyed_pod_serves_whose_names_are_as_long_as_they_may_be(world: World) -> None:
    """Of a pod's name the API server keeps 58 characters; the front finds the pod's key by it."""
    name, pool = "m" * 40, "k" * 15
    on_pods = kubernetes_pool(pool, priority=40, maxReplicas=1)
    world.apply(deployment(name, on_pods, slurm_pool("hpc", priority=1), replicas=1))
    world.wait_agree(name, kubernetes=1, slurm=0, timeout=120)
    url = workers(world, name)[pool]["url"]
    assert status_of(url, "/v1/models") == 401
    # As a front finds it: by the Deployment that it reads from the pod's name.
    (found,) = members(world.listed("endpointslices", f"kubernetes.io/service-name={name}"))
    kept = held_keys(world.get("secret", f"{name}-worker-keys"))
    key = kept.key(digest=found.key, workload=found.workload)
    assert key, f"no key for {found}: {kept.deployments}"
    assert status_of(url, "/v1/models", key=key) == 200
    world.delete(name)
    until(lambda: not world.leftovers(name), "nothing is left")


def assert_shown_nowhere(world: World, name: str, key: str) -> None:
    for what, text in places_to_look(world, name):
        assert key not in text, f"the API key shows in {what}"
        assert base64.b64encode(key.encode()).decode() not in text, f"the key shows in {what}"


def places_to_look(world: World, name: str) -> Iterator[tuple[str, str]]:
    """Everywhere but in Secrets, and in the log of SGLang's pods, which is beyond us."""
    slurm = world.playground.slurm
    for job in world.jobs(name):
        yield "scontrol show job", slurm.command("scontrol", "show", "job", job["id"])
        script = slurm.command("scontrol", "write", "batch_script", job["id"], "-", user="svc")
        assert "engine_command" in script
        yield "the batch script", script
    said = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True)
    assert "--weight-version" in said.stdout
    yield "ps", said.stdout
    kinds = "mdep,sj,slc,deployments,replicasets,pods,services,endpointslices"
    kinds += ",controllerrevisions,events,configmaps"
    yield "objects", world.kubectl("get", kinds, "-A", "-o", "yaml")
    for operator in world.operators:
        yield "the operator's log", operator.output()
    logs = ""
    for path in sorted((world.playground.state / "jobs").rglob("*")):
        if path.is_file() and not path.is_symlink():
            logs += path.read_text(errors="replace")
    assert "server_args=" in logs, "the engine that tells all it knows was looked at"
    yield "files of the work directory", logs
    jobs = [job["id"] for job in world.jobs(name)]
    slurm = world.playground.slurm
    kept = [slurm.run_on(node, "ls", "/dev/shm") for node in slurm_node_names(slurm.config)]
    assert not [job for job in jobs if f"isthmus-{job}." in "".join(kept)], (
        "private folders outlive their use"
    )
    for pod in world.objects("pods", name):
        if "vllm" in pod["metadata"]["labels"]["isthmus.dev/pool"]:
            yield "the log of a pod", world.kubectl("logs", pod["metadata"]["name"])


@pytest.mark.timeout(240)
def test_a_changed_key_reaches_all_workers_while_others_serve(world: World) -> None:
    name = "rotate"
    world.apply(deployment(name, kubernetes_pool(priority=1, maxReplicas=2), slurm_pool(),
                           replicas=3))  # fmt: skip
    world.wait_agree(name, kubernetes=2, slurm=1, timeout=90)
    old = world.key(name)
    before = {worker["name"] for worker in world.status(name)["workers"]}
    with never_below(world, name, 3):
        world.remove("secret", f"{name}-api-key", wait=False)
        until(lambda: len(held(world, name)) == 2, "both keys are held", timeout=90)
        until(
            lambda: not before & {worker["name"] for worker in world.status(name)["workers"]},
            "every worker is replaced",
            timeout=120,
        )
        world.wait_agree(name, kubernetes=2, slurm=1, timeout=90)
    new = world.key(name)
    assert new != old
    for worker in world.status(name)["workers"]:
        assert status_of(worker["url"], "/v1/models", key=new) == 200
        assert status_of(worker["url"], "/v1/models", key=old) == 401
    until(lambda: list(held(world, name).values()) == [new], "the old key is forgotten")
    assert world.chat(world.service_url(name))


@pytest.mark.timeout(240)
def test_a_key_of_the_users_own(world: World) -> None:
    """Before its Secret is there nothing starts; when it is gone, nothing that runs is touched."""
    name, key = "own", "my-own-key-0123456789"
    reference = {"apiKeySecretRef": {"name": "my-key", "key": "token"}}
    world.apply(
        deployment(name, kubernetes_pool(), replicas=1, endpoint={"type": "Service", **reference})
    )
    said = world.wait_condition(name, "Ready", status="False", reason="ApiKeyUnusable")
    assert "Secret default/my-key does not exist" in said["message"]
    assert not world.objects("deployments", name)

    world.extra(secret("my-key", token=key))
    world.wait_agree(name, kubernetes=1, timeout=120)
    assert world.key(name) == key
    (worker,) = world.status(name)["workers"]
    assert status_of(worker["url"], "/v1/models") == 401
    assert status_of(worker["url"], "/v1/models", key=key) == 200
    world.remove("secret", "my-key")
    said = world.wait_condition(name, "Ready", status="False", reason="ApiKeyUnusable")
    assert "keep the key that they have" in said["message"]
    world.scale(name, 2)
    until(lambda: len(world.members(name)) == 2, "another one with the key that they have")
    (first, second) = world.status(name)["workers"]
    assert worker["name"] in {first["name"], second["name"]}
    assert status_of(second["url"], "/v1/models", key=key) == 200


@pytest.mark.timeout(120)
def test_a_foreign_secret_under_our_name_is_left_alone(world: World) -> None:
    world.extra(secret("taken-api-key", **{"api-key": "theirs"}))
    world.apply(deployment("taken", slurm_pool(), replicas=1))
    said = world.wait_condition("taken", "Ready", status="False", reason="NameConflict")
    assert "taken-api-key" in said["message"]
    assert not world.objects("sj", "taken")
    data = world.get("secret", "taken-api-key")["data"]
    assert base64.b64decode(data["api-key"]) == b"theirs"
    world.remove("secret", "taken-api-key")
    world.wait_agree("taken", slurm=1, timeout=90)


def set_nodes(world: World, state: str) -> None:
    slurm = world.playground.slurm
    nodes = slurm.command("sinfo", "-h", "-o", "%N").split()[0]
    reason = ["reason=test"] if state == "drain" else []
    slurm.command("scontrol", "update", f"nodename={nodes}", f"state={state}", *reason)


@pytest.mark.timeout(180)
def test_a_job_that_waits_gets_its_key_when_it_starts(
    world: World, request: pytest.FixtureRequest
) -> None:
    """While it is pending the key lies in the work directory, for its owner alone."""
    slurm = world.playground.slurm
    name = "waits"
    set_nodes(world, "drain")
    request.addfinalizer(lambda: set_nodes(world, "resume"))
    world.apply(deployment(name, slurm_pool(), replicas=1))
    (job,) = until(lambda: world.jobs(name, "PENDING"), "the job waits")
    (placed,) = (world.playground.state / "jobs").glob(f"{job['name']}.key*")
    assert placed.stat().st_mode & 0o777 == 0o600
    until(lambda: world.key(name), "the status says where the key is")
    assert placed.read_text() == world.key(name)
    shown = json.dumps(slurm.command("scontrol", "show", "job", job["id"]))
    assert world.key(name) not in shown
    set_nodes(world, "resume")
    world.wait_agree(name, slurm=1, timeout=90)
    assert not placed.exists()

    set_nodes(world, "drain")
    world.scale(name, 2)
    (second,) = until(lambda: world.jobs(name, "PENDING"), "another one waits")
    (placed,) = (world.playground.state / "jobs").glob(f"{second['name']}.key*")
    world.delete(name, wait=False)
    until(lambda: not world.leftovers(name), "all are gone")
    assert not placed.exists(), "the key of a job that never started is left behind"


@pytest.mark.timeout(180)
def test_headers_of_probes(world: World) -> None:
    """A header from a Secret does no harm, and a Secret that is missing takes nobody out."""
    world.extra(secret("probe", token="tenant-secret"))
    headers = [
        {"name": "X-Tenant", "value": "ops"},
        {"name": "X-Probe", "valueFrom": {"secretKeyRef": {"name": "probe", "key": "token"}}},
    ]
    health = {"startupTimeout": "2m", "interval": "1s", "headers": headers}
    world.apply(
        deployment("heads", kubernetes_pool(priority=1, maxReplicas=1), slurm_pool(), replicas=2,
                   health=health)
    )  # fmt: skip
    world.wait_agree("heads", kubernetes=1, slurm=1, timeout=90)
    (pod,) = world.objects("pods", "heads")
    probe = pod["spec"]["containers"][0]["readinessProbe"]["httpGet"]
    assert probe["httpHeaders"] == [{"name": "X-Tenant", "value": "ops"}]
    with never_below(world, "heads", 2):
        world.remove("secret", "probe")
        world.operators[0].restart()
        until(lambda: "Secret default/probe" in world.operators[0].output(), "told")
    world.wait_agree("heads", kubernetes=1, slurm=1)
