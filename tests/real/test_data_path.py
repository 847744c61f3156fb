"""No request fails while we change, restart or lose something: load clients ask all the time.

Two deployments at once, each with pods and jobs, and something happens to both: one behind its
front, asked on kept connections; one behind a bare Service, asked on a new connection for each
request. The clients are processes of their own and read every answer to its end.

The tests of the front alone are here too: they want the same deployments and the same operator.
"""

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from playground.operator_process import Operator
from tests.patience import patience
from tests.real.api import Json
from tests.real.conftest import save_logs
from tests.real.fronts import fronts, managed, operator_with_fronts, wait_fronts
from tests.real.look import condition
from tests.real.test_crash import kill_and_start
from tests.real.test_keys import held, secret
from tests.real.test_lifecycle import changed_args
from tests.real.world import (
    Not,
    World,
    bearer,
    deployment,
    kubernetes_pool,
    slurm_pool,
    until,
)
from tests.traffic.client import Traffic

BARE, FRONTED = "bare", "fronted"
NAMES = (BARE, FRONTED)
PODS, JOBS = 2, 2
POOLS = [kubernetes_pool(priority=10, maxReplicas=PODS), slurm_pool()]
SERVICES = {BARE: BARE, FRONTED: f"{FRONTED}-workers"}
"""Where the workers of each are members."""
BEFORE = 30
"""Requests answered before something happens, and after it."""
GENTLE = {"concurrency": 6, "pause": 0.1}
"""Lanes of a client: some hundred requests while something happens, and cores left for it."""
PROXIES = 5
"""Seconds within which every kube-proxy has followed the slices; more on a busy machine."""


@dataclass(slots=True)
class Served:
    """The two deployments, under load.

    Attributes:
        pools: of both; an update leaves its own, and the next test begins with those.
        lost: why the deployments could not be had again; "" as long as they could.
    """

    world: World
    operator: Operator
    pools: list[Json] = field(default_factory=lambda: POOLS)
    lost: str = ""

    def load(self) -> tuple[Traffic, Traffic]:
        """The clients: new connections to the bare Service, kept ones to the front."""
        world = self.world
        return (
            Traffic(world.service_url(BARE), connections="new", key=world.key(BARE), **GENTLE),
            Traffic(world.service_url(FRONTED), **GENTLE),
        )

    def wait(self, *, pods: int = PODS, jobs: int = JOBS) -> None:
        """Until both have so many workers, and everybody says so."""
        for name in NAMES:
            self.world.wait_agree(name, kubernetes=pods, slurm=jobs, timeout=180)
        wait_fronts(self.world, FRONTED)

    def scale(self, *, pods: int, jobs: int) -> None:
        for name in NAMES:
            self.world.scale(name, pods + jobs)
        self.wait(pods=pods, jobs=jobs)


@pytest.fixture(scope="module")
def deployed(installed_world: World) -> Iterator[Served]:
    """Both deployments, for all tests of this module."""
    world = installed_world
    with operator_with_fronts(world) as operator:
        served = Served(world, operator)
        restore(served)
        yield served
        remove(served)


@pytest.fixture
def served(deployed: Served, request: pytest.FixtureRequest) -> Iterator[Served]:
    deployed.world.require()
    if deployed.lost:
        pytest.fail(deployed.lost, pytrace=False)
    if not deployed.operator.running:
        deployed.operator.start()
    yield deployed
    save_logs(deployed.world, request)
    restore(deployed)


def restore(served: Served) -> None:
    """As every test finds it. Where that fails the deployments are made anew, once."""
    try:
        place(served)
    except AssertionError as error:
        print(f"The deployments are made anew: {error}")
        try:
            remove(served)
            place(served)
        except AssertionError as again:
            served.lost = f"The deployments could not be made again after a test: {again}"
            raise


def place(served: Served) -> None:
    pools, replicas = served.pools, PODS + JOBS
    served.world.apply(
        deployment(BARE, *pools, replicas=replicas), managed(FRONTED, *pools, replicas=replicas)
    )
    served.wait()


def remove(served: Served) -> None:
    for name in NAMES:
        served.world.delete(name, wait=False)
    for name in NAMES:
        until(lambda name=name: not served.world.leftovers(name), f"{name} is gone", timeout=150)


@contextlib.contextmanager
def nothing_fails(served: Served) -> Iterator[None]:
    """Load before, during and after the block, and not one failed request."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client) for client in served.load()]
        for client in clients:
            client.wait_answered(BEFORE)
        yield
        for client in clients:
            client.wait_answered(BEFORE)
    for client in clients:
        client.assert_no_failure(at_least=2 * BEFORE)


# ---- what happens


def scale_up(served: Served) -> None:
    served.scale(pods=PODS, jobs=JOBS + 2)


def scale_down(served: Served) -> None:
    """Jobs first, then pods: the pool of the lower priority is emptied first."""
    served.scale(pods=1, jobs=0)


def workers(world: World, *names: str) -> set[str]:
    """Names of the workers of these deployments."""
    return {worker["name"] for name in names for worker in world.status(name)["workers"]}


def wait_replaced(served: Served, old: set[str], *names: str) -> None:
    """Until none of the old workers of these deployments is left, and all are as they should be."""
    until(
        lambda: not old & workers(served.world, *names),
        "every old worker is replaced",
        timeout=200,
    )
    served.wait()


def update(served: Served) -> None:
    old = workers(served.world, *NAMES)
    served.pools = changed_args(served.pools)
    place(served)
    wait_replaced(served, old, *NAMES)


def node_drained(served: Served) -> None:
    """`kubectl drain` of the node that has the most workers; one front pod leaves it too."""
    world = served.world
    nodes = [pod["spec"]["nodeName"] for name in NAMES for pod in world.objects("pods", name)]
    node = max(sorted(set(nodes)), key=nodes.count)
    try:
        world.kubectl(
            "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=150s",
            timeout=170,
        )  # fmt: skip
        served.wait()
    finally:
        world.kubectl("uncordon", node)


def slurm_job_deleted(served: Served) -> None:
    world = served.world
    victims = [world.objects("sj", name)[0]["metadata"]["name"] for name in NAMES]
    world.remove("sj", *victims)
    served.wait()


def operator_restarted(served: Served) -> None:
    served.operator.restart()
    served.wait()


def operator_killed(served: Served) -> None:
    kill_and_start(served.world, served.operator)
    served.wait()


def controller_down(served: Served, *, seconds: float = 8) -> None:
    slurm = served.world.playground.slurm
    slurm.stop_controller()
    try:
        for name in NAMES:
            served.world.wait_condition(name, "SlurmReachable", status="False")
        time.sleep(seconds)
    finally:
        slurm.start_controller()
    served.wait()


def fronts_restarted(served: Served) -> None:
    """One by one, as a rollout of them does."""
    world = served.world
    for pod in fronts(world, FRONTED):
        world.remove("pod", pod["metadata"]["name"], wait=False)
        wait_fronts(world, FRONTED)


def key_changed(served: Served) -> None:
    """Another key, a worker at a time: each request gets the key of the worker that it meets."""
    world = served.world
    before, old = world.key(FRONTED), workers(world, FRONTED)
    keys = set(held(world, FRONTED).values())
    world.remove("secret", f"{FRONTED}-api-key", wait=False)
    until(lambda: before in keys < set(held(world, FRONTED).values()), "both keys are held",
          timeout=90)  # fmt: skip
    wait_replaced(served, old, FRONTED)
    assert world.key(FRONTED) != before


def api_server_restarted(served: Served) -> None:
    kubernetes = served.world.playground.kubernetes
    kubernetes.kill_apiserver()
    time.sleep(5)
    kubernetes.start_apiserver()
    # It may end by itself within seconds, for its supervisor to start it again: be that now.
    served.operator.restart()
    served.wait()


HAPPENINGS: dict[str, Callable[[Served], None]] = {
    each.__name__: each
    for each in (
        scale_up,
        scale_down,
        update,
        node_drained,
        slurm_job_deleted,
        operator_restarted,
        operator_killed,
        controller_down,
        api_server_restarted,
        fronts_restarted,
        key_changed,
    )
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", HAPPENINGS)
def test_no_request_fails(served: Served, what: str) -> None:
    with nothing_fails(served):
        HAPPENINGS[what](served)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_no_request_fails_while_the_controller_is_down_for_two_minutes(served: Served) -> None:
    with nothing_fails(served):
        controller_down(served, seconds=120)


@pytest.mark.timeout(300)
def test_a_killed_worker_fails_only_what_had_begun_on_it(served: Served) -> None:
    """KILL to an engine on a SLURM node: out of the membership within the probes' budget."""
    world = served.world
    victims = {name: job_worker(world, name) for name in NAMES}
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client) for client in served.load()]
        for client in clients:
            client.wait_answered(BEFORE)
        killed_at = time.time()
        for victim in victims.values():
            os.kill(engine_pid(world, victim["jobId"]), signal.SIGKILL)
        for name, victim in victims.items():
            member = victim["url"].removeprefix("http://")
            until(
                lambda name=name, member=member: (
                    member not in (found := world.members(SERVICES[name]))
                    or Not(f"{member} in {found}")
                ),
                f"out of the membership of {name}",
            )
        out_after = time.time() - killed_at
        served.wait()
        for client in clients:
            client.wait_answered(BEFORE)
    for name, client in zip(NAMES, clients, strict=True):
        failures = client.report["failures"]
        print(f"{name}: out {out_after:.1f} s after KILL; {len(failures)} requests failed")
        followed = killed_at + out_after + PROXIES * patience()
        late = [f for f in failures if f["started"] > followed]
        assert not late, [f["started"] - killed_at for f in late]


def job_worker(world: World, name: str) -> Json:
    (worker, *_) = [w for w in world.status(name)["workers"] if w["backend"] == "slurm"]
    found: Json = worker
    return found


def engine_pid(world: World, job_id: int) -> int:
    """The main process of the engine of a job, as the machine numbers it."""
    configuration = f"SLURM_CONF={world.playground.slurm.configuration}".encode()
    wanted = {f"SLURM_JOB_ID={job_id}".encode(), configuration}
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().split(b"\0")
            environment = set((folder / "environ").read_bytes().split(b"\0"))
            if wanted <= environment and b"serve" in command:
                found.append(int(folder.name))
    return min(found)


# ---- the front alone


def test_requests_reach_pods_and_jobs_evenly_on_kept_connections(served: Served) -> None:
    world = served.world
    with Traffic(world.service_url(FRONTED)) as traffic:
        traffic.wait_answered(400, timeout=120)
    traffic.assert_no_failure(at_least=400)
    counts = traffic.report["workers"]
    # An answer names its pod or its node, and a node may have several jobs.
    names = Counter(w.get("pod") or w["node"] for w in world.status(FRONTED)["workers"])
    assert set(counts) == set(names), (counts, names)
    shares = [counts[name] / number for name, number in names.items()]
    assert min(shares) > 0.5 * sum(counts.values()) / (PODS + JOBS), (counts, names)


def test_the_status_names_the_address_of_the_front(served: Served) -> None:
    world = served.world
    assert world.status(FRONTED)["url"] == f"http://{FRONTED}.default.svc/v1"
    assert len(world.members(SERVICES[FRONTED])) == PODS + JOBS


@pytest.mark.timeout(300)
def test_a_pod_that_is_replaced_while_the_operator_is_down_gets_requests(served: Served) -> None:
    world = served.world
    served.operator.stop()
    try:
        old = world.pods(f"isthmus.dev/modeldeployment={FRONTED},isthmus.dev/pool")
        gone = old[0]["metadata"]["name"]
        known = {pod["metadata"]["name"] for pod in old}
        with Traffic(world.service_url(FRONTED)) as traffic:
            world.remove("pod", gone, wait=False)
            until(
                lambda: len(world.members(SERVICES[FRONTED])) == PODS + JOBS,
                "the new pod is a member",
                timeout=120,
            )

            def reached() -> object:
                """The Service counts the old pod as a member until it is told that it leaves."""
                with Traffic(world.service_url(FRONTED)) as more:
                    more.wait_answered(60, timeout=60)
                now = {pod["metadata"]["name"] for pod in world.objects("pods", FRONTED)}
                workers = set(more.report["workers"])
                return bool((now - known) & workers) or Not(f"{sorted(now)}: {sorted(workers)}")

            until(reached, "the new pod gets requests", timeout=120)
        traffic.assert_no_failure()
    finally:
        served.operator.start()


# ---- what pods of ours are, as an API server and a kubelet see them

RESTRICTED = "restricted"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"


@pytest.fixture
def restricted(served: Served) -> Iterator[World]:
    """A namespace that takes no pods but those of Pod Security level `restricted`."""
    world = served.world
    world.kubectl("create", "namespace", RESTRICTED)
    world.kubectl("label", "ns", RESTRICTED, "pod-security.kubernetes.io/enforce=restricted")
    try:
        yield world
    finally:
        world.remove("mdep", "strict", namespace=RESTRICTED)
        world.remove("namespace", RESTRICTED)


@pytest.mark.timeout(300)
def test_l9_m9_pods_run_where_pod_security_is_restricted(restricted: World) -> None:
    """Fronts as they are, workers with a securityContext; and of a front only one has a token."""
    world = restricted

    def strict(**kubernetes: object) -> Json:
        pool = kubernetes_pool(worker={"gpusPerNode": 0}, kubernetes=kubernetes)
        made = managed("strict", pool, replicas=1)
        made["metadata"]["namespace"] = RESTRICTED
        return made

    def ready() -> Json:
        found = world.get("mdep", "strict", RESTRICTED)
        return condition(found, "Ready")

    world.apply(strict())
    until(
        lambda: (seen := ready()).get("reason") == "PodSecurityRefused" or Not(str(seen)),
        "the refusal is told by its name",
    )
    assert "kubernetes.securityContext" in ready()["message"]
    world.apply(strict(securityContext={"runAsNonRoot": True, "runAsUser": 65532}))
    until(
        lambda: (seen := ready()).get("status") == "True" or Not(str(seen)),
        "the worker and its front serve",
        timeout=150,
    )
    pods = world.pods("isthmus.dev/component=front", RESTRICTED)
    front = pods[0]["metadata"]["name"]

    def inside(container: str, script: str) -> str:
        words = ("exec", "-n", RESTRICTED, front, "-c", container, "--", "sh", "-c", script)
        return world.kubectl(*words).strip()

    assert inside("membership", f"test -s {TOKEN} && echo there") == "there"
    assert inside("envoy", f"test -e {TOKEN} || echo none") == "none"
    assert inside("envoy", "ls /var/run/secrets 2>/dev/null; echo end") == "end"


@pytest.mark.timeout(120)
def test_the_pods_of_a_front_say_what_they_understand(served: Served) -> None:
    """By the message of a container, which the kubelet hands over: no right is needed for it."""
    served.world.wait_condition(FRONTED, "FrontUpToDate", status="True")


@pytest.mark.timeout(400)
def test_the_front_is_for_clients_and_asks_them_for_keys(served: Served) -> None:
    """F2, and `endpoint.clientKeysSecretRef`: the last test, for it leaves the front guarded."""
    world, url = served.world, served.world.service_url(FRONTED)

    def asked(path: str, key: str = "") -> httpx.Response:
        return httpx.get(f"{url}{path}", headers=bearer(key), timeout=20, trust_env=False)

    refused = asked("/server_info")
    assert refused.status_code == 403
    assert "endpoint.administration" in refused.json()["error"]["message"]
    assert asked("/unheard-of").status_code == 404
    assert "isthmus-attempt" not in asked("/v1/models").text
    alice = "alices-key-0123456789"
    world.extra(secret("clients", alice=alice))
    with Traffic(url, key=alice) as traffic:
        world.patch(FRONTED, {"spec": {"endpoint": {"clientKeysSecretRef": {"name": "clients"}}}})
        world.wait_condition(FRONTED, "ClientKeysInForce", status="True")
        wait_fronts(world, FRONTED)
        until(lambda: asked("/v1/models").status_code == 401, "clients need a key", timeout=60)
        traffic.wait_answered(100, timeout=60)
    traffic.assert_no_failure()
    assert "they need a key" in world.status(FRONTED)["clients"]
