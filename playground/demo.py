"""The demonstration: the playground with the operator in it and one deployment on both schedulers.

Apart from the clusters, which know nothing of the operator.
"""

import base64
import json
import time
from collections.abc import Callable, Iterable

import yaml

from playground import build, images, manifests, release
from playground.cluster import Config, Playground
from playground.errors import PlaygroundError
from playground.operator_process import NAMESPACE
from playground.python_environment import REPOSITORY

SAMPLES = REPOSITORY / "deploy" / "samples"
SAMPLE = SAMPLES / "demo.yaml"
TABLES = ("modeldeployments.isthmus.dev", "slurmjobs.isthmus.dev", "slurmclusters.isthmus.dev")
READY_WITHIN = 180.0
ANSWERS_WITHIN = 60.0
Kubectl = Callable[..., str]


def demo(config: Config) -> None:
    """Start everything and show it; leaves it running.

    Raises:
        PlaygroundError: something did not come about, with where to look.
    """
    begin = time.monotonic()
    if not SAMPLE.exists():
        raise PlaygroundError(f"{SAMPLE} is missing: it holds the ModelDeployment to show")
    playground = Playground(config)
    playground.up()
    progress = playground.progress
    made = images.install(playground)
    chart = f"helm upgrade --install isthmus {release.CHART.relative_to(REPOSITORY)}"
    build.ensure_helm(config.cache, progress, state=config.state)
    with progress.step(f"{chart} --namespace {NAMESPACE} (operator and tunnels are pods)"):
        release.Release(playground).install(release.values(tag=made.tag))
    slurm = playground.slurm
    login = manifests.ssh_login(slurm)
    cluster = manifests.slurm_cluster(config.state, bin_folder=slurm.bin_folder, login=login)
    playground.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(manifests.ssh_secret(slurm)))
    name, namespace = apply_sample(playground.kubectl, cluster)
    progress.say(f"applied {SAMPLE.relative_to(REPOSITORY)}; waiting for READY")
    replicas = wait_until_ready(playground.kubectl, name=name, namespace=namespace)
    progress.say(f"READY {replicas}/{replicas}")
    chat_with_all(playground.kubectl, name=name, namespace=namespace, workers=replicas)
    show_tables(playground.kubectl)
    show_pods(playground.kubectl, namespace=namespace)
    print(
        f"\nAll of this took {time.monotonic() - begin:.0f} s, and it goes on running. "
        "To look around:\n"
        f"  . {config.state}/env.sh\n"
        "  kubectl get modeldeployments,slurmjobs,slurmclusters -A -o wide\n"
        "  kubectl get pods -A -o wide; squeue; sinfo\n"
        f"  kubectl scale modeldeployment.isthmus.dev/{name} --replicas=5\n"
        "  kubectl drain gpu-1 --ignore-daemonsets --delete-emptydir-data\n"
        f"  kubectl logs -n {NAMESPACE} deployment/isthmus --follow\n"
        f"To stop: make down{_state_argument(config)}"
    )


def sample_name(documents: Iterable[object]) -> tuple[str, str]:
    """Name and namespace of the ModelDeployment in a sample; raises PlaygroundError."""
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "ModelDeployment":
            metadata = document["metadata"]
            return str(metadata["name"]), str(metadata.get("namespace", "default"))
    raise PlaygroundError(f"{SAMPLE} holds no ModelDeployment")


def apply_sample(kubectl: Kubectl, cluster: dict[str, object]) -> tuple[str, str]:
    """Apply the SlurmCluster and the sample; returns the deployment's name and namespace."""
    documents = [d for d in yaml.safe_load_all(SAMPLE.read_text(encoding="utf-8")) if d]
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump(cluster))
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))
    return sample_name(documents)


def wait_until_ready(kubectl: Kubectl, *, name: str, namespace: str) -> int:
    """Show each change of the status until all replicas are ready; returns how many.

    Raises:
        PlaygroundError: not in time, with the last status.
    """
    end, shown, line = time.monotonic() + READY_WITHIN, "", ""
    while time.monotonic() < end:
        said = kubectl(
            "get", "modeldeployments.isthmus.dev", name, f"--namespace={namespace}", "-o", "json"
        )
        line, wanted = status_line(json.loads(said))
        if line != shown:
            print(f"          {line}", flush=True)
            shown = line
        if wanted:
            return wanted
        time.sleep(0.25)
    raise PlaygroundError(
        f"{name} was not ready within {READY_WITHIN:.0f} s; its last status: {line}\n"
        f"look at: kubectl describe modeldeployments.isthmus.dev {name} -n {namespace}\n"
        f"and at: kubectl logs -n {NAMESPACE} deployment/isthmus"
    )


def status_line(body: dict[str, object]) -> tuple[str, int]:
    """A ModelDeployment in one line, and its replicas when all are ready (else 0)."""
    metadata, spec, status = (_mapping(body.get(k)) for k in ("metadata", "spec", "status"))
    wanted = int(str(spec.get("replicas", 1)))
    ready = str(status.get("ready", f"0/{wanted}"))
    conditions = status.get("conditions")
    listed = [_mapping(c) for c in conditions] if isinstance(conditions, list) else []
    condition = next((c for c in listed if c.get("type") == "Ready"), {})
    words = [f"READY {ready}", str(status.get("backend", "")), str(condition.get("reason", ""))]
    pools = status.get("pools")
    for pool in [_mapping(p) for p in pools] if isinstance(pools, list) else []:
        words.append(f"{pool.get('name')}: {pool.get('ready', 0)}/{pool.get('desired', '?')}")
    current = status.get("observedGeneration") == metadata.get("generation")
    done = current and condition.get("status") == "True" and ready == f"{wanted}/{wanted}"
    return "  ".join(word for word in words if word), wanted if done else 0


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def chat_with_all(kubectl: Kubectl, *, name: str, namespace: str, workers: int) -> None:
    """Send chat completions to the Service until every worker has answered one.

    Raises:
        PlaygroundError: some have not answered in time.
    """
    key = api_key(kubectl, name=name, namespace=namespace)
    service = json.loads(kubectl("get", "service", name, f"--namespace={namespace}", "-o", "json"))
    address = _mapping(service["spec"])["clusterIP"]
    url = f"http://{address}/v1"
    model = json.loads(_fetch(f"{url}/models", key=key))["data"][0]["id"]
    print(f"\nchat completions through the Service ({url}), model {model}:")
    question = {
        "model": model,
        "messages": [{"role": "user", "content": "Who are you?"}],
        "max_tokens": 24,
    }
    seen: dict[str, int] = {}
    end = time.monotonic() + ANSWERS_WITHIN
    while time.monotonic() < end and len(seen) < workers:
        answer = json.loads(_fetch(f"{url}/chat/completions", key=key, body=json.dumps(question)))
        worker = worker_of(answer)
        if worker not in seen:
            print(f"  {worker}", flush=True)
        seen[worker] = seen.get(worker, 0) + 1
    print(f"  {len(seen)} of {workers} workers answered {sum(seen.values())} requests")
    if len(seen) < workers:
        raise PlaygroundError(f"not every worker answered within {ANSWERS_WITHIN:.0f} s")


def worker_of(answer: dict[str, object]) -> str:
    """Who wrote an answer: the simulators begin with `Hello from vLLM on POD (Kubernetes pod, `."""
    choices = answer.get("choices")
    first = _mapping(choices[0]) if isinstance(choices, list) and choices else {}
    return str(_mapping(first.get("message")).get("content", "")).partition(",")[0] + ")"


def api_key(kubectl: Kubectl, *, name: str, namespace: str) -> str:
    """The key that clients of the workers send; "" where they need none."""
    found = json.loads(kubectl("get", TABLES[0], name, f"--namespace={namespace}", "-o", "json"))
    place = _mapping(_mapping(found.get("status")).get("apiKey"))
    if not place:
        return ""
    secret = json.loads(
        kubectl("get", "secret", str(place["secret"]), f"--namespace={namespace}", "-o", "json")
    )
    return base64.b64decode(str(secret["data"][str(place["key"])])).decode()


def _fetch(url: str, *, key: str, body: str | None = None) -> str:
    """One request on a connection of its own: a Service spreads connections, not requests."""
    import httpx

    headers = {"Content-Type": "application/json", "Connection": "close"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    try:
        if body is None:
            answer = httpx.get(url, timeout=10, headers=headers, trust_env=False)
        else:
            answer = httpx.post(url, content=body, timeout=30, headers=headers, trust_env=False)
        return answer.raise_for_status().text
    except httpx.HTTPError as error:
        raise PlaygroundError(f"{url}: {error}") from error


def show_tables(kubectl: Kubectl) -> None:
    """Print what `kubectl get` shows of each kind."""
    for kind in TABLES:
        print(f"\n$ kubectl get {kind.partition('.')[0]} -A\n{kubectl('get', kind, '-A')}", end="")


def show_pods(kubectl: Kubectl, *, namespace: str) -> None:
    """Print the pods of Isthmus and of the sample."""
    for where in (NAMESPACE, namespace):
        print(f"\n$ kubectl get pods -n {where}\n{kubectl('get', 'pods', '-n', where)}", end="")


def _state_argument(config: Config) -> str:
    return "" if config.state == Config().state else f" STATE={config.state}"
