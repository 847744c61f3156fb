"""Wrong objects, each with the sentence that refuses it.

One table for two tests: the API server with our CRDs and `isthmus validate` without a server must
both refuse every entry, for the same reason.
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass

REMOVE = object()

SSH_LOGIN = {
    "hosts": ["login1", "login2.example.org", "fd00::1"],
    "port": 2222,
    "user": "svc",
    "keySecretRef": {"name": "hpc-ssh"},
    "knownHostsRef": {"name": "hpc-ssh", "key": "hosts"},
}

BASTION = {
    "host": "tunnels.example.org",
    "port": 2222,
    "hostKey": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE3QIPsekCCVazwUb3FtLsfIXhsZenF",
    "hostKeySecretRef": {"name": "bastion"},
}

GOOD: Mapping[str, dict] = {
    "ModelDeployment": {
        "apiVersion": "isthmus.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "llama", "namespace": "default"},
        "spec": {
            "model": {"source": "hf://org/llama", "revision": "main", "servedNames": ["llama"]},
            "replicas": 3,
            "pools": [
                {
                    "name": "k8s",
                    "minReplicas": 1,
                    "maxReplicas": 2,
                    "worker": {"gpusPerNode": 1, "cpu": "7500m", "memory": "64Gi"},
                    "engine": {
                        "image": "vllm/vllm-openai:v0.33.0",
                        "args": ["--max-model-len=8192", "--hf-overrides", '{"a": "b=c.d"}'],
                        "env": [
                            {"name": "HF_HOME", "value": "/models"},
                            {
                                "name": "HF_TOKEN",
                                "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}},
                            },
                        ],
                    },
                    "kubernetes": {
                        "nodeSelector": {"gpu": "h100"},
                        "tolerations": [{"key": "gpu", "operator": "Exists"}],
                        "imagePullSecrets": [{"name": "registry.example"}],
                        "runtimeClassName": "nvidia",
                        "securityContext": {
                            "runAsNonRoot": True,
                            "runAsUser": 1000,
                            "fsGroup": 1000,
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                    },
                },
                {
                    "name": "hpc",
                    "worker": {"gpuType": "h100", "cpu": 8},
                    "engine": {
                        "args": ["--tp=2", "-q", "fp8"],
                        "env": [{"name": "NCCL_DEBUG", "value": ""}],
                    },
                    "slurm": {
                        "clusterRef": {"name": "hpc", "namespace": "isthmus-system"},
                        "partitions": ["gpu", "gpu-long"],
                        "account": "proj",
                        "qos": "serving",
                        "timeLimit": "1h30m",
                        "sbatchOptions": [
                            "--constraint=a100&nvlink",
                            "--nice",
                            "--exclude=gpu[1-2]",
                        ],
                    },
                },
            ],
            "health": {
                "startupTimeout": "5m",
                "interval": "1s",
                "headers": [
                    {"name": "X-Tenant", "value": "ops"},
                    {
                        "name": "X-Token",
                        "valueFrom": {"secretKeyRef": {"name": "probe", "key": "token"}},
                    },
                ],
            },
            "endpoint": {
                "apiKeySecretRef": {"name": "my-key", "key": "token"},
                "administration": True,
                "extraPaths": ["/", "/my/plugin.v2", "/jobs/{id}/result", "/tools/*", "/*"],
                "clientKeysSecretRef": {"name": "clients"},
            },
        },
    },
    "SlurmCluster": {
        "apiVersion": "isthmus.dev/v1alpha1",
        "kind": "SlurmCluster",
        "metadata": {"name": "hpc", "namespace": "default"},
        "spec": {
            "login": {"ssh": SSH_LOGIN},
            "commands": {"binDir": "/opt/slurm/bin", "pollInterval": "15s"},
            "files": {"workDirectory": "/scratch/svc/isthmus"},
            "network": {
                "mode": "Reverse",
                "bastion": BASTION,
                "ports": {"from": 42000, "to": 42015},
                "nodeCIDRs": ["10.0.0.0/8"],
            },
            "defaults": {"partition": "gpu", "timeLimit": "8h"},
            "site": {
                "gpuTypes": {"h100": "nvidia_h100"},
                "modules": ["cuda/12.8"],
                "setup": "# engine\nsource /sw/sglang/bin/activate\n",
            },
            "models": {"hf://org/llama": "/models/llama", "/data/x": "/models/x"},
            "access": {"allowedNamespaces": {"names": ["team-a"]}},
        },
    },
    "SlurmJob": {
        "apiVersion": "isthmus.dev/v1alpha1",
        "kind": "SlurmJob",
        "metadata": {"name": "llama-hpc-0-x7k2qp", "namespace": "default"},
        "spec": {
            "clusterRef": {"name": "hpc", "namespace": "isthmus-system"},
            "deployment": "llama",
            "pool": "hpc",
            "slot": 0,
            "attempt": "x7k2qp",
            "revision": "abcdefgh23",
            "jobName": "llama-inst0001-0123456789-0-x7k2qp",
        },
    },
}
"""One object of each kind that uses all its fields and is accepted."""


ODD_BUT_RIGHT: Mapping[str, dict[str, object]] = {
    "cpu half": {"spec.pools[0].worker.cpu": "0.5"},
    "cpu with zeros behind": {"spec.pools[0].worker.cpu": "1.50"},
    "memory with a fraction below one": {"spec.pools[0].worker.memory": "0.5Ti"},
    "memory in bytes": {"spec.pools[0].worker.memory": "68719476736"},
    "memory in bytes, a number": {"spec.pools[1].worker.memory": 68719476736},
    "memory in Ki": {"spec.pools[1].worker.memory": "67108864Ki"},
    "shared memory in bytes": {"spec.pools[0].worker.sharedMemory": 1073741824},
    "a long JSON argument": {
        "spec.pools[0].engine.args": ["--hf-overrides", "{" + "x" * 1991 + "}"]
    },
    "the longest argument": {"spec.pools[0].engine.args": ["x" * 4096]},
    "many arguments": {"spec.pools[0].engine.args": ["--seed=1"] * 112},
    "a quantisation": {"spec.model.source": "hf://org/repo-GGUF:Q4_K_M"},
    "a path as served name": {"spec.model.servedNames": ["/models/llama", "llama"]},
}
"""Changes of the good ModelDeployment that real files have, and that are accepted (F12)."""


@dataclass(frozen=True)
class WrongInput:
    """One mistake: `changes` by path turn the good object into a wrong one.

    `sentence` stands in the refusal; None where the words are the API server's own.
    """

    name: str
    kind: str
    changes: Mapping[str, object]
    sentence: str | None

    def object(self) -> dict:
        return changed(GOOD[self.kind], self.changes)


def changed(good: dict, changes: Mapping[str, object]) -> dict:
    """A copy of an object with values set (or, with REMOVE, removed) by path."""
    made = copy.deepcopy(good)
    for path, value in changes.items():
        *way, last = [int(p) if p.isdigit() else p for p in re.findall(r"[^.\[\]]+", path)]
        target = made
        for part in way:
            target = target[part] if isinstance(target, list) else target.setdefault(part, {})
        if value is REMOVE:
            del target[last]
        else:
            target[last] = value
    return made


def _d(name: str, path: str, value: object, sentence: str | None) -> WrongInput:
    return WrongInput(name, "ModelDeployment", {path: value}, sentence)


def _k8s(name: str, path: str, value: object, sentence: str | None) -> WrongInput:
    return _d(name, f"spec.pools[0].{path}", value, sentence)


def _hpc(name: str, path: str, value: object, sentence: str | None) -> WrongInput:
    return _d(name, f"spec.pools[1].{path}", value, sentence)


def _cluster(name: str, path: str, value: object, sentence: str | None) -> WrongInput:
    return WrongInput(name, "SlurmCluster", {f"spec.{path}": value}, sentence)


def _job(name: str, path: str, value: object, sentence: str | None) -> WrongInput:
    return WrongInput(name, "SlurmJob", {f"spec.{path}": value}, sentence)


TWO = "an engine option and its value in one list entry need a '='"
OURS = "this engine option (or its abbreviation) is set by Isthmus"
SBATCH = "this sbatch option (or its abbreviation) is set by Isthmus"
SBATCH_VALUE = "sbatch does not take this option so"
SBATCH_FORM = "an sbatch option must be one entry of the form --name or --name=value"
VARIABLE = "this environment variable is set by Isthmus or the scheduler"
SHELLS = "bash gives this environment variable a meaning of its own"
ONE_SCHEDULER = "a pool runs on exactly one scheduler"
TIME_LIMIT = "must be whole minutes between 2m and 720h"
SOURCE = 'model.source must be "hf://organisation/name" or an absolute path'
SLURM_NAME = "must be one plain SLURM name"
LOGIN = "login needs exactly one of local and ssh"


def _ssh(**changed_fields: object) -> dict:
    """A login over ssh with some fields changed; None removes one."""
    fields = {**SSH_LOGIN, **changed_fields}
    return {"ssh": {name: value for name, value in fields.items() if value is not None}}


SECRET = "a secret must not stand in the object"

WRONG_INPUTS = (
    # --- the object
    _d("name too long", "metadata.name", "a" * 41, "metadata.name must be at most 40"),
    _d("name begins with a digit", "metadata.name", "4llama", "metadata.name must be at most 40"),
    _d("name with a dot", "metadata.name", "llama.8b", "metadata.name must be at most 40"),
    _d("unknown field", "spec.replica", 2, None),
    _d("unknown field in a pool", "spec.pools[0].gpus", 2, None),
    _d("no spec", "spec", REMOVE, None),
    # --- model
    _d("no model", "spec.model", REMOVE, None),
    _d("source without scheme", "spec.model.source", "org/llama", SOURCE),
    _d("source with too many parts", "spec.model.source", "hf://org/llama/x", SOURCE),
    _d("source with dots", "spec.model.source", "/models/../etc", SOURCE),
    _d("source ends with dots", "spec.model.source", "/models/..", SOURCE),
    _d("source with a quote", "spec.model.source", "/models/a'b", SOURCE),
    _d("source with a line feed", "spec.model.source", "hf://org/llama\n", SOURCE),
    _d("source with two quantisations", "spec.model.source", "hf://org/llama:a:b", SOURCE),
    _d("source empty", "spec.model.source", "", None),
    _d("revision with a space", "spec.model.revision", "a b", "model.revision must be a branch"),
    _d("revision begins with a dash", "spec.model.revision", "-x", "model.revision must be"),
    WrongInput(
        "revision of a path",
        "ModelDeployment",
        {"spec.model.source": "/models/llama"},
        "model.revision belongs to a Hugging Face repository",
    ),
    _d("served name with a space", "spec.model.servedNames", ["my llama"], "a served name must"),
    _d("served name an option", "spec.model.servedNames", ["--port"], "a served name must begin"),
    _d(
        "served name taken",
        "spec.model.servedNames",
        ["isthmus-attempt-x"],
        "served names beginning with isthmus-attempt- are taken",
    ),
    _d("served name twice", "spec.model.servedNames", ["a", "a"], None),
    _d("too many served names", "spec.model.servedNames", [f"a{i}" for i in range(9)], None),
    # --- replicas and pools
    _d("replicas a word", "spec.replicas", "three", None),
    _d("replicas negative", "spec.replicas", -1, None),
    _d("replicas too many", "spec.replicas", 513, None),
    _d("no pools", "spec.pools", [], None),
    _d("pools missing", "spec.pools", REMOVE, None),
    _d(
        "too many pools",
        "spec.pools",
        [{"name": f"p{i}", "kubernetes": {}} for i in range(9)],
        None,
    ),
    _d("pool name twice", "spec.pools", [{"kubernetes": {}}, {"kubernetes": {}}], None),
    _k8s("pool name too long", "name", "a" * 16, None),
    _k8s("pool name in capitals", "name", "GPU", "a pool's name must be lower-case"),
    _k8s("both schedulers", "slurm", {"clusterRef": {"name": "hpc"}}, ONE_SCHEDULER),
    _k8s("no scheduler", "kubernetes", REMOVE, ONE_SCHEDULER),
    _k8s("scheduler null", "kubernetes", None, ONE_SCHEDULER),
    _k8s("minimum over maximum", "minReplicas", 3, "minReplicas must not exceed maxReplicas"),
    _k8s("priority out of range", "priority", 5000, None),
    WrongInput(
        "minimums too many",
        "ModelDeployment",
        {
            "spec.pools[0].minReplicas": 300,
            "spec.pools[0].maxReplicas": 300,
            "spec.pools[1].minReplicas": 300,
        },
        "the pools' minReplicas together must not exceed 512",
    ),
    # --- endpoint
    _d("endpoint of no kind", "spec.endpoint", {"type": "Ingress"}, None),
    _d(
        "External without a router",
        "spec.endpoint",
        {"type": "External"},
        "endpoint.external and endpoint.type External belong together",
    ),
    _d(
        "a router without External",
        "spec.endpoint",
        {"external": {"kind": "smg", "url": "http://router:30000"}},
        "endpoint.external and endpoint.type External belong together",
    ),
    _d(
        "a guard without a front",
        "spec.endpoint",
        {"type": "Service", "clientKeysSecretRef": {"name": "clients"}},
        "endpoint.administration, extraPaths and clientKeysSecretRef are for the front",
    ),
    _d(
        "administration without a front",
        "spec.endpoint",
        {"type": "Service", "administration": True},
        "endpoint.administration, extraPaths and clientKeysSecretRef are for the front",
    ),
    *(
        _d(f"an extra path {path}", "spec.endpoint.extraPaths", [path], "write a path such as")
        for path in (
            "v1/x",
            "//x",
            "/x/",
            "/../x",
            "/a/./b",
            "/a/..",
            "/%2e%2e/x",
            "/x?y=z",
            "/x#y",
            "/a b",
            "/{}",
            "/{id",
            "/**",
            "/a*",
            "/*/b",
            "/a\nb",
            "/ä",
        )
    ),
    _d("an extra path twice", "spec.endpoint.extraPaths", ["/x", "/x"], None),
    _d("too many extra paths", "spec.endpoint.extraPaths", [f"/x{n}" for n in range(33)], None),
    _d("clients' keys without a Secret", "spec.endpoint.clientKeysSecretRef", {}, None),
    _d(
        "router without an address",
        "spec.endpoint",
        {"type": "External", "external": {"kind": "smg"}},
        "endpoint.external.url is missing",
    ),
    _d(
        "router with a password in its address",
        "spec.endpoint",
        {"type": "External", "external": {"kind": "smg", "url": "http://me:secret@router"}},
        "endpoint.external.url must be",
    ),
    *(
        _d(
            f"a router at {url}",
            "spec.endpoint",
            {"type": "External", "external": {"kind": "smg", "url": url}},
            "endpoint.external.url must be",
        )
        for url in (
            "http://router:port",
            "http://router:0",
            "http://router:65536",
            "http://[::1",
            "http://[]:80",
            "http://a:b:c",
            "http://a..b",
        )
    ),
    _d(
        "a CA for a router without TLS",
        "spec.endpoint",
        {
            "type": "External",
            "external": {"kind": "smg", "url": "http://r:1", "caSecretRef": {"name": "ca"}},
        },
        "endpoint.external.caSecretRef is for a router over https",
    ),
    _d(
        "a token for Envoy",
        "spec.endpoint",
        {"type": "External", "external": {"kind": "envoy", "authSecretRef": {"name": "t"}}},
        "endpoint.external.authSecretRef is for sglang-router and smg",
    ),
    # --- worker
    _k8s("GPU type on Kubernetes", "worker.gpuType", "h100", "worker.gpuType works on SLURM only"),
    _hpc(
        "GPU type with a colon", "worker.gpuType", "h100:2", "worker.gpuType must be a GPU's name"
    ),
    _k8s("too many GPUs", "worker.gpusPerNode", 17, None),
    _k8s("GPUs half", "worker.gpusPerNode", 0.5, None),
    _k8s("cpu a word", "worker.cpu", "many", "worker.cpu must be a number of cores"),
    _k8s("cpu zero", "worker.cpu", 0, "worker.cpu must be a number of cores"),
    _k8s("memory without unit", "worker.memory", "64", "worker.memory must be a size with a unit"),
    _k8s("cpu zero with a fraction", "worker.cpu", "0.0", "worker.cpu must be a number of cores"),
    _k8s("cpu in parts of a thousandth", "worker.cpu", "0.0001", "worker.cpu must be a number"),
    _k8s("cpu with a fraction, unquoted", "worker.cpu", 1.5, None),
    _k8s("memory of some bytes", "worker.memory", 64, "worker.memory must be a size with a unit"),
    _k8s("memory zero", "worker.memory", "0.00Gi", "worker.memory must be a size with a unit"),
    _k8s("memory with a wrong unit", "worker.memory", "64GB", "worker.memory must be a size"),
    _k8s("shared memory none", "worker.sharedMemory", "0", "worker.sharedMemory must be a size"),
    _hpc(
        "shared memory on SLURM",
        "worker.sharedMemory",
        "8Gi",
        "worker.sharedMemory works on Kubernetes only",
    ),
    # --- engine
    _k8s("engine unknown", "engine.type", "tgi", None),
    _hpc("image on SLURM", "engine.image", "vllm:1", "engine.image works on Kubernetes only"),
    _k8s("image with a space", "engine.image", "a b", "image must be a container image reference"),
    _k8s("own port", "engine.args", ["--port=1"], OURS),
    _k8s("own port in two entries", "engine.args", ["--port", "1"], OURS),
    _k8s("own port abbreviated", "engine.args", ["--por", "1"], OURS),
    _k8s("own token", "engine.args", ["--hf-token=hf_x"], OURS),
    _k8s("option and value in one entry", "engine.args", ["--max-model-len 8192"], TWO),
    _k8s("own port and its value in one entry", "engine.args", ["--port 9000"], TWO),
    _k8s("own key in one entry", "engine.args", ["--seed=1", "--api-key sk-1"], TWO),
    _k8s("short option and value in one entry", "engine.args", ["-q fp8"], TWO),
    _hpc("a blank before the equals sign", "engine.args", ["--dtype =auto"], TWO),
    _k8s("own host with an underscore", "engine.args", ["--served_model_name=x"], OURS),
    _k8s("own option with a dot", "engine.args", ["--config.x=1"], OURS),
    _k8s("own option behind others", "engine.args", ["--seed=1", "--api-key=x"], OURS),
    _k8s("own short option", "engine.args", ["-n", "2"], OURS),
    _k8s("own short option with its value", "engine.args", ["-r1"], OURS),
    _k8s("a bare double dash", "engine.args", ["--"], OURS),
    _hpc("own metrics", "engine.args", ["--enable-metrics"], OURS),
    _hpc("own version", "engine.args", ["--weight-version=1"], OURS),
    _hpc("own model path", "engine.args", ["--model-path", "/x"], OURS),
    _hpc("own rendezvous abbreviated", "engine.args", ["--dist-init=x:1"], OURS),
    _k8s("argument empty", "engine.args", [""], "must not be empty or only white space"),
    _k8s("argument white space", "engine.args", ["  "], "must not be empty or only white space"),
    _k8s("argument with a line feed", "engine.args", ["--a\n--b"], "must be one line"),
    _k8s("argument of a block scalar", "engine.args", ['--x={\n "a": 1}\n'], "in YAML write >-"),
    _k8s("argument with a NUL", "engine.args", ["--a\0"], "must be one line"),
    _k8s("argument too long", "engine.args", ["x" * 4097], None),
    _k8s("arguments one string", "engine.args", "--a --b", None),
    _k8s("too many arguments", "engine.args", ["--a"] * 113, None),
    # --- environment
    _k8s("variable with a dash", "engine.env", [{"name": "A-B", "value": "1"}], "variable's name"),
    _k8s("variable of SLURM", "engine.env", [{"name": "SLURM_JOB_ID", "value": "1"}], VARIABLE),
    _k8s("variable of ours", "engine.env", [{"name": "ISTHMUS_X", "value": "1"}], VARIABLE),
    _k8s("M6: the script's own", "engine.env", [{"name": "isthmus_x", "value": ""}], VARIABLE),
    _k8s("M6: read-only in bash", "engine.env", [{"name": "UID", "value": "1"}], SHELLS),
    _k8s("M6: computed by bash", "engine.env", [{"name": "BASHPID", "value": "1"}], SHELLS),
    _k8s(
        "variable of the scheduler",
        "engine.env",
        [{"name": "CUDA_VISIBLE_DEVICES", "value": "0"}],
        VARIABLE,
    ),
    _k8s("variable without value", "engine.env", [{"name": "A"}], "exactly one of value and"),
    _k8s(
        "variable with two values",
        "engine.env",
        [{"name": "A", "value": "1", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}],
        "exactly one of value and valueFrom",
    ),
    _k8s(
        "value from nowhere",
        "engine.env",
        [{"name": "A", "valueFrom": {}}],
        "valueFrom needs exactly one of secretKeyRef and configMapKeyRef",
    ),
    _k8s("variable twice", "engine.env", [{"name": "A", "value": "1"}] * 2, None),
    _k8s("value a number", "engine.env", [{"name": "A", "value": 1}], None),
    _k8s("secret in clear", "engine.env", [{"name": "HF_TOKEN", "value": "hf_x"}], SECRET),
    _hpc("secret in clear on SLURM", "engine.env", [{"name": "MY_API_KEY", "value": "x"}], SECRET),
    _hpc(
        "secret on SLURM",
        "engine.env",
        [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}],
        "valueFrom works on Kubernetes only, secrets on SLURM are not built yet",
    ),
    _hpc(
        "value with a line feed",
        "engine.env",
        [{"name": "A", "value": "1\nrm -rf /"}],
        "value must be one line",
    ),
    # --- kubernetes
    _k8s("GPU resource without domain", "kubernetes.gpuResource", "gpu", "kubernetes.gpuResource"),
    _k8s("toleration with a wrong effect", "kubernetes.tolerations", [{"effect": "Never"}], None),
    _k8s(
        "L9: a toleration of every taint, also of control plane nodes",
        "kubernetes.tolerations",
        [{"operator": "Exists"}],
        "a toleration needs the taint's key",
    ),
    _k8s(
        "L9: root that is not root",
        "kubernetes.securityContext",
        {"runAsNonRoot": True, "runAsUser": 0},
        "runAsUser 0 is root",
    ),
    _k8s("privileged", "kubernetes.securityContext", {"privileged": True}, None),
    _k8s(
        "a seccomp profile of the node's",
        "kubernetes.securityContext.seccompProfile",
        {"type": "Localhost"},
        None,
    ),
    _k8s("pull secrets as names", "kubernetes.imagePullSecrets", ["regcred"], None),
    _k8s("runtime class with a blank", "kubernetes.runtimeClassName", "a b", None),
    _k8s("node selector a list", "kubernetes.nodeSelector", ["a"], None),
    # --- slurm
    _hpc("no cluster", "slurm", {}, None),
    _hpc("cluster's name in capitals", "slurm.clusterRef.name", "HPC", None),
    _hpc("partition an option", "slurm.partitions", ["--uid=0"], SLURM_NAME),
    _hpc("partitions in one entry", "slurm.partitions", ["a,b"], SLURM_NAME),
    _hpc("partition twice", "slurm.partitions", ["a", "a"], None),
    _hpc("account with a line feed", "slurm.account", "proj\n#SBATCH --uid=0", SLURM_NAME),
    _hpc("qos with quotes", "slurm.qos", "a'b", SLURM_NAME),
    _hpc("time limit in seconds", "slurm.timeLimit", "150s", TIME_LIMIT),
    _hpc("time limit too short", "slurm.timeLimit", "1m", TIME_LIMIT),
    _hpc("time limit too long", "slurm.timeLimit", "721h", TIME_LIMIT),
    _hpc("time limit in SLURM's form", "slurm.timeLimit", "08:00:00", TIME_LIMIT),
    _hpc("time limit a number", "slurm.timeLimit", 480, None),
    _hpc("sbatch job name", "slurm.sbatchOptions", ["--job-name=x"], SBATCH),
    _hpc("sbatch job name abbreviated", "slurm.sbatchOptions", ["--job=x"], SBATCH),
    _hpc("sbatch wrap", "slurm.sbatchOptions", ["--wrap=id"], SBATCH),
    _hpc("sbatch uid", "slurm.sbatchOptions", ["--uid=0"], SBATCH),
    _hpc("sbatch time", "slurm.sbatchOptions", ["--time=1"], SBATCH),
    _hpc("sbatch GPUs", "slurm.sbatchOptions", ["--gpus-per-node=1"], SBATCH),
    _hpc("sbatch memory", "slurm.sbatchOptions", ["--mem=0"], SBATCH),
    _hpc("sbatch partition", "slurm.sbatchOptions", ["--partition=x"], SBATCH),
    _hpc("sbatch test", "slurm.sbatchOptions", ["--test-only"], SBATCH),
    _hpc("sbatch power", "slurm.sbatchOptions", ["--power=level"], "this sbatch option cannot be"),
    _hpc("sbatch short form", "slurm.sbatchOptions", ["-J", "x"], SBATCH_FORM),
    _hpc("sbatch with a space", "slurm.sbatchOptions", ["--constraint a100"], SBATCH_FORM),
    _hpc("sbatch with a command", "slurm.sbatchOptions", ["--constraint=$(id)"], SBATCH_FORM),
    _hpc("sbatch value an option", "slurm.sbatchOptions", ["--constraint=-x"], SBATCH_FORM),
    _hpc("sbatch file of nodes", "slurm.sbatchOptions", ["--nodelist=/etc/shadow"], SBATCH_VALUE),
    _hpc("sbatch file to exclude", "slurm.sbatchOptions", ["--exclude=./nodes"], SBATCH_VALUE),
    _hpc("sbatch word of no hint", "slurm.sbatchOptions", ["--hint=garbage"], SBATCH_VALUE),
    _hpc("sbatch switches", "slurm.sbatchOptions", ["--switches=abc"], SBATCH_VALUE),
    _hpc("sbatch memory binding", "slurm.sbatchOptions", ["--mem-bind=garbage"], SBATCH_VALUE),
    _hpc("sbatch cores", "slurm.sbatchOptions", ["--core-spec=abc"], SBATCH_VALUE),
    _hpc("sbatch threads", "slurm.sbatchOptions", ["--thread-spec"], SBATCH_VALUE),
    _hpc("sbatch with a line feed", "slurm.sbatchOptions", ["--nice\n"], SBATCH_FORM),
    # --- health
    _d("timeout a number", "spec.health.startupTimeout", 30, None),
    _d("timeout in words", "spec.health.startupTimeout", "soon", "between 10s and 24h"),
    _d("timeout empty", "spec.health.startupTimeout", "", "between 10s and 24h"),
    _d("interval too short", "spec.health.interval", "0s", "between 1s and 5m"),
    _d("threshold zero", "spec.health.failureThreshold", 0, None),
    _d("header without a value", "spec.health.headers", [{"name": "X-A"}], "exactly one of value"),
    _d(
        "header with a secret in clear",
        "spec.health.headers",
        [{"name": "Authorization", "value": "Bearer x"}],
        "must not stand in the object",
    ),
    _d(
        "header of two lines",
        "spec.health.headers",
        [{"name": "X-A", "value": "a\nb"}],
        "must be one line",
    ),
    _d(
        "header of the connection",
        "spec.health.headers",
        [{"name": "Content-Length", "value": "1"}],
        "belongs to the connection",
    ),
    _d(
        "header with a colon",
        "spec.health.headers",
        [{"name": "X:A", "value": "1"}],
        "only letters, digits",
    ),
    _d(
        "header twice",
        "spec.health.headers",
        [{"name": "X-A", "value": "1"}, {"name": "X-A", "value": "2"}],
        None,
    ),
    # --- endpoint
    _d("key without a Secret", "spec.endpoint.apiKeySecretRef", {"key": "token"}, None),
    _d(
        "key of a Secret with a slash",
        "spec.endpoint.apiKeySecretRef",
        {"name": "my-key", "key": "a/b"},
        "only letters, digits",
    ),
    _d("key in clear", "spec.endpoint.apiKey", "secret", None),
    # --- SlurmCluster
    WrongInput(
        "cluster's name with a dot",
        "SlurmCluster",
        {"metadata.name": "a.b"},
        "metadata.name must be at most 63 lower-case letters",
    ),
    _cluster("no login", "login", REMOVE, None),
    _cluster("login empty", "login", {}, LOGIN),
    _cluster("login twice", "login", {"local": {}, "ssh": SSH_LOGIN}, LOGIN),
    _cluster("login without hosts", "login", _ssh(hosts=[]), None),
    _cluster(
        "login host with a user", "login", _ssh(hosts=["svc@login1"]), "without user and port"
    ),
    _cluster(
        "login host an option", "login", _ssh(hosts=["-oProxyCommand=id"]), "without user and"
    ),
    _cluster("login host with a port", "login", _ssh(hosts=["ssh://login1"]), "without user and"),
    _cluster("login user an option", "login", _ssh(user="-l"), "login.ssh.user must be one"),
    _cluster("login user with a space", "login", _ssh(user="a b"), "login.ssh.user must be one"),
    _cluster("login port zero", "login", _ssh(port=0), None),
    _cluster("login without host keys", "login", _ssh(knownHostsRef=None), None),
    _cluster("login key in clear", "login", _ssh(privateKey="-----BEGIN"), None),
    _cluster("network mode unknown", "network.mode", "Magic", None),
    WrongInput(
        "tunnel without ssh",
        "SlurmCluster",
        {"spec.login": {"local": {}}, "spec.network": {"mode": "Tunnel"}},
        "network.mode Tunnel and NodeSSH go through the login host",
    ),
    _cluster("reverse without bastion", "network.bastion", REMOVE, "Reverse needs network.bastion"),
    _cluster("bastion without host key", "network.bastion.hostKey", REMOVE, None),
    _cluster(
        "bastion key with options",
        "network.bastion.hostKey",
        'command="id" ssh-ed25519 AAAA',
        "hostKey must be a public key",
    ),
    _cluster(
        "bastion host an option", "network.bastion.host", "-oProxyCommand=id", "bastion.host must"
    ),
    _cluster("bastion user an option", "network.bastion.user", "-l", "bastion.user must be one"),
    _cluster("no files", "files", REMOVE, None),
    _cluster(
        "work directory relative", "files.workDirectory", "scratch", "must be an absolute path"
    ),
    _cluster("work directory with dots", "files.workDirectory", "/a/../b", "without '..'"),
    _cluster("work directory with a space", "files.workDirectory", "/a b", "must be an absolute"),
    _cluster(
        "commands' folder with a semicolon", "commands.binDir", "/a;b", "commands.binDir must"
    ),
    _cluster("polling too often", "commands.pollInterval", "1s", "between 15s and 5m"),
    _cluster("query without limit", "commands.timeout", "1h", "between 5s and 5m"),
    _cluster("sbatch limit too short", "commands.submitTimeout", "1s", "between 10s and 5m"),
    _cluster("ports too few", "network.ports", {"from": 42000, "to": 42001}, "at least 16 ports"),
    _cluster("ports the wrong way", "network.ports", {"from": 43000, "to": 42000}, "at least 16"),
    _cluster("port privileged", "network.ports", {"from": 80, "to": 2000}, None),
    _cluster("only a first port", "network.ports", {"from": 60000}, "at least 16 ports"),
    _cluster("range without length", "network.nodeCIDRs", ["10.0.0.1"], "holds address ranges"),
    _cluster("range with a netmask", "network.nodeCIDRs", ["10.0.0.0/255.0.0.0"], "holds address"),
    _cluster("range no address", "network.nodeCIDRs", ["gpu/24"], "holds address ranges"),
    _cluster(
        "partition with a comma", "defaults.partition", "a,b", "defaults.partition " + SLURM_NAME
    ),
    _cluster("default limit too long", "defaults.timeLimit", "1000h", TIME_LIMIT),
    _cluster("directive unknown", "site.gpuDirective", "gpus", None),
    _cluster("memory directive unknown", "site.memoryDirective", "all", None),
    _cluster("GPU type with a colon", "site.gpuTypes", {"h100": "gpu:h100"}, "site.gpuTypes maps"),
    _cluster("module with a semicolon", "site.modules", ["cuda; id"], "site.modules holds module"),
    _cluster("setup too long", "site.setup", "x" * 4097, None),
    _cluster(
        "setup with carriage returns", "site.setup", "a\r\nb", "site.setup must be shell text"
    ),
    _cluster("model not a path", "models", {"hf://a/b": "models/b"}, "models maps model.source"),
    _cluster("model of a strange source", "models", {"s3://a/b": "/b"}, "models maps model.source"),
    _cluster("access a list", "access.allowedNamespaces", ["team-a"], None),
    # --- SlurmJob
    _job("attempt too short", "attempt", "abc", None),
    _job("slot negative", "slot", -1, None),
    _job("job name with a space", "jobName", "a b", None),
    _job("no cluster's namespace", "clusterRef", {"name": "hpc"}, None),
)
"""Every entry is refused by the API server and by `isthmus validate`."""
