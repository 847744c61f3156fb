"""`python -m bench.simulated_pods KUBECONFIG`: stands in for controllers, scheduler and kubelets.

It follows the Deployments and gives each its pods, ready at once, and the endpoints of its
Service, in the size that real ones have. Nothing runs. Apart from the bench's own process, so that
its work is not counted for anything.
"""

import base64
import json
import sys
import tempfile
import threading
from pathlib import Path
from queue import SimpleQueue

from bench.bare import LABEL, MERGE_PATCH, PATHS, Client, Json
from playground.errors import PlaygroundError

WRITERS = 4
_SINCE = "2026-01-01T00:00:00Z"
_SPEC_OF_A_SCHEDULED_POD = {
    "nodeName": "gpu-1",
    "serviceAccountName": "default",
    "schedulerName": "default-scheduler",
    "restartPolicy": "Always",
    "dnsPolicy": "ClusterFirst",
}


def main() -> int:
    """Follow the Deployments until killed."""
    config = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    cluster = config["clusters"][0]["cluster"]
    with tempfile.NamedTemporaryFile(suffix=".crt") as authority:
        authority.write(base64.b64decode(cluster["certificate-authority-data"]))
        authority.flush()
        token = config["users"][0]["user"]["token"]

        def client() -> Client:
            return Client(server=cluster["server"], authority=Path(authority.name), token=token)

        work: SimpleQueue[Json] = SimpleQueue()
        for _ in range(WRITERS):
            threading.Thread(target=_write, args=(client(), work), daemon=True).start()
        version = "0"
        known: dict[str, int] = {}
        for event in client().events(PATHS["Deployment"], since=version):
            obj, name = event["object"], event["object"]["metadata"].get("name", "")
            if event["type"] == "DELETED":
                known.pop(name, None)
            elif event["type"] in ("ADDED", "MODIFIED"):
                wanted = obj["spec"].get("replicas", 1)
                if obj.get("status", {}).get("readyReplicas", 0) < wanted > known.get(name, 0):
                    known[name] = wanted
                    work.put(obj)
    return 1


def _write(client: Client, work: "SimpleQueue[Json]") -> None:
    while True:
        deployment = work.get()
        try:
            _serve(client, deployment)
        except PlaygroundError as error:
            print(f"{deployment['metadata']['name']}: {error}", flush=True)


def _serve(client: Client, deployment: Json) -> None:
    """Pods with addresses that nobody answers at, their endpoints, the Deployment's counts."""
    name, replicas = deployment["metadata"]["name"], deployment["spec"]["replicas"]
    pods = [_pod(deployment, number) for number in range(replicas)]
    for pod in pods:
        status = pod.pop("status")
        path = f"{PATHS['Pod']}/{pod['metadata']['name']}/status"
        try:
            client.call("POST", PATHS["Pod"], pod)
        except PlaygroundError as error:
            if "AlreadyExists" not in str(error) and "409" not in str(error):
                raise
        client.call("PATCH", path, {"status": status}, kind=MERGE_PATCH)
    slice_ = _slice(deployment, [pod["metadata"]["name"] for pod in pods])
    path = f"{PATHS['EndpointSlice']}/{slice_['metadata']['name']}"
    client.call(
        "PATCH",
        f"{path}?fieldManager=simulated&force=true",
        slice_,
        kind="application/apply-patch+yaml",
    )
    counts = dict.fromkeys(("replicas", "readyReplicas", "updatedReplicas"), replicas)
    status = {**counts, "availableReplicas": replicas, "observedGeneration": 1}
    status["conditions"] = [_condition("Available"), _condition("Progressing")]
    path = f"{PATHS['Deployment']}/{name}/status"
    client.call("PATCH", path, {"status": status}, kind=MERGE_PATCH)


def _condition(kind: str) -> Json:
    return {
        "type": kind,
        "status": "True",
        "reason": "NewReplicaSetAvailable",
        "message": "ReplicaSet has successfully progressed.",
        "lastUpdateTime": _SINCE,
        "lastTransitionTime": _SINCE,
    }


def _pod(deployment: Json, number: int) -> Json:
    template = deployment["spec"]["template"]
    address = _address(deployment["metadata"]["uid"], number)
    kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{deployment['metadata']['name']}-{number}",
            "labels": {**template["metadata"]["labels"], "pod-template-hash": "5b9ed01866"},
        },
        "spec": {**template["spec"], **_SPEC_OF_A_SCHEDULED_POD},
        "status": {
            "phase": "Running",
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": _SINCE} for kind in kinds
            ],
            "hostIP": "10.0.0.1",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": _SINCE,
            "qosClass": "BestEffort",
            "containerStatuses": [
                {
                    "name": "engine",
                    "state": {"running": {"startedAt": _SINCE}},
                    "lastState": {},
                    "ready": True,
                    "started": True,
                    "restartCount": 0,
                    "image": "localhost/vllm-simulator:1",
                    "imageID": f"sha256:{'0' * 64}",
                    "containerID": f"containerd://{'0' * 64}",
                }
            ],
        },
    }


def _address(uid: str, number: int) -> str:
    value = int(uid.replace("-", ""), 16) + number
    return f"10.{value % 250 + 1}.{value // 250 % 250}.{value // 62500 % 250 + 1}"


def _slice(deployment: Json, pods: list[str]) -> Json:
    """As the EndpointSlice controller makes it, with the labels of the Service."""
    owner = deployment["metadata"]["labels"][LABEL]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{owner}-simulated",
            "labels": {
                "kubernetes.io/service-name": owner,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "app.kubernetes.io/managed-by": "isthmus",
                LABEL: owner,
            },
        },
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": [_address(deployment["metadata"]["uid"], number)],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": "gpu-1",
                "targetRef": {"kind": "Pod", "name": pod, "namespace": "default"},
            }
            for number, pod in enumerate(pods)
        ],
        "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
    }


if __name__ == "__main__":
    sys.exit(main())
