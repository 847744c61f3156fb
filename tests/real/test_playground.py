"""The playground itself: it works as clusters do, and leaves nothing behind, whatever happened.

Needs root, Debian and the packages of the playground; skipped elsewhere.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from playground import cgroups, cleanup, image, instances, network
from playground.cluster import Config, Playground, parse_parts
from playground.commands import run, wait_until
from playground.config import Names
from playground.errors import PlaygroundError
from playground.files import listens
from playground.operator_process import Operator, installed_record
from playground.processes import all_processes, command_line, identify, marked
from playground.progress import Progress
from playground.python_environment import REPOSITORY, python_environment

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.geteuid() != 0, reason="the playground needs root"),
]

SERVER = """
import http.server, os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.uname().nodename.encode())
print("serving", flush=True)
http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
"""


def config(name: str, parts: str = "kubernetes,slurm") -> Config:
    state = Path(f"/var/tmp/isthmus-test-{os.getpid()}-{name}")
    return Config(state=state, instance=None, parts=parse_parts(parts), slurm_nodes=2)


def quiet(settings: Config) -> Playground:
    return Playground(settings, progress=Progress(silent=True))


@pytest.fixture(scope="module")
def playground() -> Iterator[Playground]:
    """A playground with both clusters, and two pods behind a Service."""
    with quiet(config("one")) as started:
        started.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(web()))
        started.kubectl("wait", "--for=condition=Available", "deploy/web", "--timeout=60s")
        yield started


def web() -> list[dict[str, object]]:
    """A Deployment of two pods that say their names, one on each node, and its Service."""
    container = {
        "name": "web",
        "image": image.SGLANG_IMAGE,
        "command": ["python3", "-c", SERVER, "8000"],
        "resources": {"limits": {"nvidia.com/gpu": 1}},
        "readinessProbe": {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1},
    }
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [container], "topologySpreadConstraints": [spread]},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template,
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8000}]},
    }
    return [deployment, service]


def pods(playground: Playground) -> list[dict[str, str]]:
    """Name, node and address of each pod of `web` that is ready."""
    found = json.loads(playground.kubectl("get", "pods", "-l", "app=web", "-o", "json"))["items"]
    return [
        {
            "name": pod["metadata"]["name"],
            "node": pod["spec"]["nodeName"],
            "ip": pod["status"]["podIP"],
        }
        for pod in found
        if not pod["metadata"].get("deletionTimestamp")
        and any(
            c["type"] == "Ready" and c["status"] == "True"
            for c in pod["status"].get("conditions", [])
        )
    ]


def fetch(url: str) -> str:
    """What answers there; empty when nothing does."""
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def submit(playground: Playground, script: str, *options: str) -> str:
    """Submit a job as the job user; returns its number."""
    arguments = ["sbatch", "--parsable", "--chdir=/tmp", "--output=/dev/null", *options]
    return playground.slurm.command(
        *arguments, f"--wrap={script}", user=playground.config.user
    ).strip()


def job_state(playground: Playground, job: str) -> str:
    return playground.slurm.command("squeue", "-h", "--states=all", "-j", job, "-o", "%T").strip()


def idle(playground: Playground, node: str) -> bool:
    said = playground.slurm.command("sinfo", "-h", "-N", "-p", "gpu", "-o", "%n %T")
    return f"{node} idle" in said.splitlines()


# -- Kubernetes


def test_nodes_have_gpus_and_services_answer_from_the_host(playground: Playground) -> None:
    nodes = json.loads(playground.kubectl("get", "nodes", "-o", "json"))["items"]
    assert [n["status"]["allocatable"]["nvidia.com/gpu"] for n in nodes] == ["8", "8"]
    assert {pod["node"] for pod in pods(playground)} == {"gpu-1", "gpu-2"}
    address = playground.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
    names = {pod["name"] for pod in pods(playground)}
    answered: set[str] = set()
    wait_until(
        lambda: answered.add(fetch(f"http://{address}/")) or names <= answered,
        what="both pods answer through the Service",
        timeout=20,
    )


def test_logs_exec_and_port_forward(playground: Playground) -> None:
    pod = pods(playground)[0]["name"]
    assert "serving" in playground.kubectl("logs", pod)
    assert playground.kubectl("exec", pod, "--", "hostname").strip() == pod
    environment = os.environ | playground.environment()
    command = [str(playground.bin_folder / "kubectl"), "port-forward", f"pod/{pod}", ":8000"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as forward:
        assert forward.stdout is not None
        try:
            line = forward.stdout.readline()
            port = line.split("127.0.0.1:")[1].split()[0]
            assert fetch(f"http://127.0.0.1:{port}/") == pod
        finally:
            forward.terminate()


def test_drain_moves_pods_to_the_other_node(playground: Playground) -> None:
    kubernetes = playground.kubernetes
    said = kubernetes.drain("gpu-1")
    try:
        assert "evicting pod default/web" in said
        wait_until(
            lambda: [pod["node"] for pod in pods(playground)] == ["gpu-2", "gpu-2"],
            what="both pods run on gpu-2",
            timeout=30,
        )
    finally:
        kubernetes.uncordon("gpu-1")
    playground.kubectl("delete", "pods", "-l", "app=web", "--wait=true")
    wait_until(
        lambda: {pod["node"] for pod in pods(playground)} == {"gpu-1", "gpu-2"},
        what="new pods run on both nodes",
        timeout=30,
    )


def test_killed_apiserver_and_kubelet_come_back_with_the_gpus(playground: Playground) -> None:
    kubernetes = playground.kubernetes
    kubernetes.kill_apiserver()
    assert not kubernetes.ready()
    assert "kube-apiserver" in playground.stopped()
    kubernetes.start_apiserver()
    assert len(pods(playground)) == 2
    kubernetes.kill_kubelet("gpu-2")
    pod = next(pod for pod in pods(playground) if pod["node"] == "gpu-2")
    assert fetch(f"http://{pod['ip']}:8000/") == pod["name"], "containers outlive the kubelet"
    kubernetes.start_kubelet("gpu-2")
    node = json.loads(playground.kubectl("get", "node", "gpu-2", "-o", "json"))
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"


def test_kubernetes_node_without_power_comes_back(playground: Playground) -> None:
    kubernetes = playground.kubernetes
    address = playground.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
    inside = identify(playground.components.pid("kubelet-gpu-1"))
    kubernetes.power_off("gpu-1")
    assert inside is not None
    assert identify(inside.pid) != inside
    other = next(pod for pod in pods(playground) if pod["node"] == "gpu-2")
    wait_until(
        lambda: fetch(f"http://{address}/") == other["name"],
        what="the Service answers through the other node",
        timeout=20,
    )
    kubernetes.power_on("gpu-1")

    def both_answer() -> bool:
        found = pods(playground)
        return len(found) == 2 and all(fetch(f"http://{p['ip']}:8000/") for p in found)

    wait_until(both_answer, what="both pods answer again", timeout=60)


# -- SLURM


def test_jobs_see_their_gpus_and_may_share_a_port_across_nodes(playground: Playground) -> None:
    slurm = playground.slurm
    seen = slurm.command(
        "srun", "--chdir=/tmp", "--gres=gpu:2", "printenv", "CUDA_VISIBLE_DEVICES", user="svc"
    )
    assert seen.strip() == "0,1"
    script = f"exec python3 -c '{SERVER}' 30000"
    jobs = [submit(playground, script, f"--nodelist={node}") for node in ("gpu01", "gpu02")]
    for node in ("gpu01", "gpu02"):
        url = f"http://{slurm.address(node)}:30000/"
        wait_until(lambda url=url, node=node: fetch(url) == node, what=f"{node} answers")
    slurm.command("scancel", *jobs)


def test_pods_and_slurm_nodes_reach_each_other_until_it_is_refused(playground: Playground) -> None:
    slurm, pod = playground.slurm, pods(playground)[0]
    job = submit(playground, f"exec python3 -c '{SERVER}' 30001", "--nodelist=gpu01")
    target = f"http://{slurm.address('gpu01')}:30001/"
    wait_until(lambda: fetch(target) == "gpu01", what="the job answers")
    ask = ["exec", pod["name"], "--", "wget", "-q", "-O", "-", target]
    assert playground.kubectl(*ask) == "gpu01"
    code = f"import urllib.request as u; print(u.urlopen('http://{pod['ip']}:8000/').read())"
    assert pod["name"] in slurm.run_on("gpu01", "python3", "-c", code)
    playground.kubernetes.refuse_pods_to_slurm()
    try:
        with pytest.raises(PlaygroundError, match="refused"):
            playground.kubectl(*ask)
        assert fetch(target) == "gpu01", "the host still reaches it"
    finally:
        playground.kubernetes.allow_pods_to_slurm()
    assert playground.kubectl(*ask) == "gpu01"
    slurm.command("scancel", job)


def test_nothing_leaves_the_machine(playground: Playground) -> None:
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
    # socket's time limit would say "timed out" instead
    with pytest.raises(PlaygroundError, match=r"refused|unreachable"):
        playground.kubectl("exec", pods(playground)[0]["name"], "--", "python3", "-c", code)
    with pytest.raises(PlaygroundError, match=r"refused|unreachable"):
        playground.slurm.run_on("gpu01", "python3", "-c", code)


def test_nodes_share_neither_tmp_nor_memory_files(playground: Playground) -> None:
    slurm = playground.slurm
    for folder in ("/tmp", "/dev/shm"):
        mine = f"{folder}/isthmus-{os.getpid()}"
        write = f"echo hello > {mine} && cat {mine}"
        srun = ["srun", "--chdir=/", "-w", "gpu01", "bash", "-c", write]
        assert slurm.command(*srun, user="svc", timeout=60) == "hello\n", "the job user may write"
        assert slurm.run_on("gpu01", "cat", mine) == "hello\n"
        assert mine not in slurm.run_on("gpu02", "find", folder)
        assert not Path(mine).exists()


def test_login_node_lets_the_job_user_in(playground: Playground) -> None:
    slurm = playground.slurm

    def ssh(address: str = slurm.login_address) -> str:
        options = ["-o", f"UserKnownHostsFile={slurm.known_hosts}", "-o", "BatchMode=yes"]
        where = ["-i", slurm.login_key, "-p", str(slurm.login_port), f"svc@{address}"]
        return run(["ssh", "-F", "none", *options, *where, "id -un; hostname; sinfo -h"]).stdout

    assert ssh().split()[:2] == ["svc", "login"]
    assert ssh(slurm.address("gpu02")).split()[:2] == ["svc", "gpu02"], "compute nodes have one too"
    slurm.stop_login()
    with pytest.raises(PlaygroundError, match="refused"):
        ssh()
    slurm.start_login()
    assert ssh().split()[0] == "svc"


def test_slurm_faults(playground: Playground) -> None:
    slurm = playground.slurm
    job = submit(playground, "sleep 300", "--nodelist=gpu02", "--no-requeue")
    wait_until(lambda: job_state(playground, job) == "RUNNING", what="the job runs")
    slurm.kill_slurmd("gpu02")
    slurm.start_slurmd("gpu02")
    slurm.stop_controller()  # not KILL, which may lose a job that is seconds old
    with pytest.raises(PlaygroundError, match="slurm_load_jobs error"):
        slurm.command("squeue")
    slurm.start_controller()
    assert job_state(playground, job) == "RUNNING"
    slurm.drain("gpu02")
    assert "drain" in slurm.command("sinfo", "-h", "-n", "gpu02", "-o", "%T")
    assert job_state(playground, job) == "RUNNING", "drain ends no job"
    slurm.resume("gpu02")
    pid = slurm.run_on("gpu02", "pgrep", "-x", "sleep", "-u", "svc").split()[0]
    assert pid.isdigit()
    slurm.down("gpu02")
    wait_until(lambda: job_state(playground, job) == "NODE_FAIL", what="the job fails")
    slurm.resume("gpu02")
    wait_until(lambda: idle(playground, "gpu02"), what="gpu02 has cleaned up", timeout=60)


def test_slurm_node_without_power_or_network_comes_back(playground: Playground) -> None:
    slurm = playground.slurm

    def answers() -> bool:
        return listens(slurm.address("gpu02"), playground.names.slurm_base + 10)

    slurm.cut("gpu02")
    assert not answers()
    slurm.heal("gpu02")
    wait_until(answers, what="gpu02 answers again")
    inside = identify(playground.components.pid("slurmd-gpu02"))
    slurm.power_off("gpu02")
    assert inside is not None
    assert identify(inside.pid) != inside
    slurm.power_on("gpu02")
    slurm.resume("gpu02")
    wait_until(lambda: idle(playground, "gpu02"), what="gpu02 is in service again")
    seen = slurm.command("srun", "--chdir=/tmp", "-w", "gpu02", "hostname", user="svc", timeout=60)
    assert seen.strip() == "gpu02"


def test_killed_controller_starts_again(playground: Playground) -> None:
    slurm = playground.slurm
    pid = slurm.controller_pid()
    slurm.kill_controller()
    try:
        # "Unable to contact slurm controller", or "Transport endpoint is not connected" at once.
        with pytest.raises(PlaygroundError, match="slurm_load_jobs error"):
            slurm.command("squeue")
    finally:
        slurm.start_controller()
    assert slurm.controller_pid() != pid
    assert "gpu02" in slurm.command("sinfo", "-h", "-N")


# -- what the operator gets


def test_job_user_can_run_what_the_operator_needs(playground: Playground) -> None:
    python_environment(playground.config, playground.progress)
    packages = playground.state / "python"
    check = f"import sys; sys.path.insert(0, {str(packages)!r}); import kopf, pydantic, isthmus"
    become = ["setpriv", "--reuid=svc", "--regid=svc", "--init-groups"]
    run([*become, "/usr/bin/python3", "-c", check])
    engines = playground.engines / "bin"
    for engine in ("vllm", "sglang"):
        said = run([*become, engines / engine, "serve", "--help"], check=False)
        assert "usage" in said.stdout + said.stderr


def test_operators_kubeconfig_is_its_own(playground: Playground) -> None:
    operator = Operator(playground, name="operator-test")
    operator.prepare()
    assert operator.kubeconfig.stat().st_mode & 0o077 == 0
    become = ["setpriv", "--reuid=svc", "--regid=svc", "--init-groups"]
    kubectl = [playground.bin_folder / "kubectl", f"--kubeconfig={operator.kubeconfig}"]
    ask = ["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]
    who = run([*become, *kubectl, *ask]).stdout
    assert who == "system:serviceaccount:isthmus-system:isthmus"

    before = operator.kubeconfig.read_text()
    operator.prepare()
    assert operator.kubeconfig.read_text() == before, "a restart asks for no other token"
    installed_record(playground).unlink()  # as when a release, and its ServiceAccount, was removed
    operator.prepare()
    assert operator.kubeconfig.read_text() != before
    assert run([*become, *kubectl, *ask]).stdout == who


# -- nothing is left behind


def traces(state: Path, number: int) -> list[str]:
    """Everything of a playground that a user could find, looked for in several ways."""
    text = str(state)
    found = cleanup.remains(state, numbers=[number])
    others = [pid for pid in all_processes() if pid != os.getpid()]
    for pid in others:
        if text in " ".join(command_line(pid)):
            found.append(f"{pid} {command_line(pid)}")
        for link in ("cwd", "root", "exe"):
            try:
                target = os.readlink(f"/proc/{pid}/{link}")
            except OSError:
                continue
            if target.startswith(text):
                found.append(f"{link} of {pid} is {target}")
    mounts = Path("/proc/self/mounts").read_text()
    found += [line for line in mounts.splitlines() if text in line]
    names = Names(number)
    subnets = [names.kubernetes_subnet, names.slurm_subnet]
    for words in (["ip", "route"], ["ip", "-brief", "address"], ["iptables-save"]):
        output = run(words).stdout.splitlines()
        found += [li for li in output if any(s + "." in li for s in subnets) or names.tag in li]
    found += [str(path) for path in cgroups.remains(names)] + network.remains(names)
    if instances.owner(number) is not None:
        found.append(f"claim of instance {number}")
    return found


def outside_files() -> set[str]:
    """Files in folders where the daemons would like to write."""
    folders = ("/run/containerd", "/run/nri", "/var/log/pods", "/var/log/containers")
    more = ("/var/lib/cni", "/var/lib/kubelet", "/etc/cni", "/run/munge", "/run/slurm")
    return {str(p) for folder in (*folders, *more) for p in Path(folder).glob("**/*")}


@pytest.fixture
def state() -> Iterator[Path]:
    """A state folder of a playground that the test starts; always taken away."""
    folder = config("two").state
    yield folder
    quiet(Config(state=folder, instance=None)).down()


def start_in_background(state: Path) -> subprocess.Popen[bytes]:
    """`up` in a process of its own, to be killed half way."""
    code = (
        "import sys; from pathlib import Path; from playground.cluster import Config, Playground;"
        "Playground(Config(state=Path(sys.argv[1]), instance=None)).up()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(state)],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def test_two_playgrounds_do_not_meet_and_the_second_leaves_nothing(
    playground: Playground, state: Path
) -> None:
    before = outside_files()
    forward = network.IP_FORWARD.read_text()
    job = submit(playground, "sleep 300")
    pod = pods(playground)[0]
    second = quiet(Config(state=state, instance=None, slurm_nodes=2))
    second.up()
    number = second.instance
    assert number != playground.instance
    assert second.kubectl("get", "deployments").strip() == ""
    assert second.slurm.command("squeue", "-h", "--states=all").strip() == ""
    code = f"import socket; socket.create_connection(('{pod['ip']}', 8000), timeout=5)"
    with pytest.raises(PlaygroundError, match=r"refused|unreachable"):
        second.slurm.run_on("gpu01", "python3", "-c", code)
    sleeper = ["create", "deployment", "web", f"--image={image.SGLANG_IMAGE}", "--", "sleep", "99"]
    second.kubectl(*sleeper)
    second.kubectl("wait", "--for=condition=Available", "deploy/web", "--timeout=60s")
    submit(second, "sleep 300")
    with pytest.raises(PlaygroundError, match=str(playground.instance)):
        quiet(Config(state=Path(f"{state}-3"), instance=playground.instance)).up()

    second.down()

    assert traces(state, number) == []
    assert outside_files() == before
    assert network.IP_FORWARD.read_text() == forward
    assert job_state(playground, job) in ("RUNNING", "PENDING")
    assert fetch(f"http://{pod['ip']}:8000/") == pod["name"]
    assert playground.stopped() == ("operator-test",) or playground.stopped() == ()
    second.down()  # again: nothing happens
    playground.slurm.command("scancel", job)


SOAK = pytest.mark.soak
REACHED = [  # in this order; those between what comes first and last are for `make soak`
    "instance",
    pytest.param("run/node-gpu-1.pid", marks=SOAK),
    pytest.param("run/kube-apiserver.pid", marks=SOAK),
    "run/kubelet-gpu-2.pid",
]


@pytest.mark.parametrize("reached", REACHED)
def test_killed_start_is_cleaned_up(state: Path, reached: str) -> None:
    before = outside_files()
    with start_in_background(state) as starting:
        try:
            wait_until((state / reached).exists, what=f"{reached} is there", interval=0.002)
        finally:
            os.kill(starting.pid, signal.SIGKILL)
    number = int((state / "instance").read_text())

    quiet(Config(state=state, instance=None)).down()

    assert traces(state, number) == []
    assert outside_files() == before


def test_down_works_without_the_state_folder(state: Path) -> None:
    started = quiet(Config(state=state, instance=None, slurm_nodes=1))
    started.up()
    number = started.instance
    assert marked(state)
    started.components.kill("etcd")
    started.components.kill("containerd-gpu-1")
    shutil.rmtree(state / "run")
    (state / "instance").unlink()
    shutil.rmtree(state / "slurm")

    quiet(Config(state=state, instance=None)).down()

    assert traces(state, number) == []


def test_only_the_api_server(state: Path) -> None:
    started = quiet(Config(state=state, instance=None, parts=parse_parts("apiserver")))
    started.up()
    assert "default" in started.kubectl("get", "namespaces")
    assert started.running() == ("etcd", "kube-apiserver")
    started.up()
    assert started.running() == ("etcd", "kube-apiserver"), "a second start changes nothing"


def test_second_start_brings_back_what_died_and_refuses_other_settings(
    playground: Playground,
) -> None:
    pid = playground.slurm.controller_pid()
    playground.components.kill("kube-scheduler")
    playground.components.kill("slurmd-gpu01")
    playground.up()
    assert "kube-scheduler" in playground.running()
    assert "slurmd-gpu01" in playground.running()
    assert playground.slurm.controller_pid() == pid
    with pytest.raises(PlaygroundError, match="nodes is 2"):
        quiet(Config(state=playground.state, instance=None, nodes=3, slurm_nodes=2)).up()
