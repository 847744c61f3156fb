"""Ways to SLURM: forwards and who asks for them, the bastion, ssh, and what login shells do."""

import asyncio
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from isthmus.api import names
from isthmus.apiserver.resources import MODEL_DEPLOYMENTS, SLURM_CLUSTERS, SLURM_JOBS
from isthmus.backends.slurm import parsing
from isthmus.backends.slurm.ssh import REMOTE_SHELL, remote_script
from isthmus.routing.tunnel_slices import tunnel_of
from isthmus.ssh.files import PrivateFolder
from isthmus.ssh.options import Target
from isthmus.tunnels.bastion import authorized_keys, sshd_config
from isthmus.tunnels.desired import parsed, wanted_forwards
from isthmus.tunnels.rules import Health, Outcome, View
from tests.before.findings import any_of, built, finding, takes
from tests.before.memory import MemoryApi


def _slurm_job(*, host: str, public_key: str = "", owned: bool = True) -> dict[str, Any]:
    """One that runs and asks for a forward."""
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": "ModelDeployment",
        "name": "llama",
        "uid": "uid-llama",
        "controller": True,
    }
    job_name = names.slurm_job_name(
        installation_id="isthmus0",
        namespace="team-a",
        deployment="llama",
        uid="uid-llama",
        slot=0,
        attempt="abcdef",
    )
    spec = {
        "clusterRef": {"namespace": "isthmus-system", "name": "hpc"},
        "deployment": "llama",
        "pool": "hpc",
        "slot": 0,
        "attempt": "abcdef",
        "revision": "0123456789",
        "jobName": job_name,
    }
    forward = {"mode": "Reverse" if public_key else "Tunnel", "port": 20001, "inTraffic": True}
    if public_key:
        forward["publicKey"] = public_key
    return {
        "apiVersion": names.API_VERSION,
        "kind": "SlurmJob",
        "metadata": {
            "namespace": "team-a",
            "name": "llama-0",
            "uid": "uid-job",
            "resourceVersion": "1",
            "ownerReferences": [owner] if owned else [],
        },
        "spec": spec,
        "status": {"phase": "Starting", "host": host, "port": 41007, "forward": forward},
    }


def _held(job: dict[str, Any]) -> Any:
    """The forwards that a supervisor holds of one SlurmJob."""
    if not takes(wanted_forwards, "admits"):
        return wanted_forwards([parsed(job)], held={})
    api = MemoryApi(SLURM_JOBS, SLURM_CLUSTERS, MODEL_DEPLOYMENTS)
    api.put(SLURM_JOBS, job)
    api.put(MODEL_DEPLOYMENTS, {"metadata": {"namespace": "team-a", "name": "llama"}})
    spec = {
        "login": {"local": {}},
        "files": {"workDirectory": "/work"},
        "access": {"allowedNamespaces": {"names": ["team-a"]}},
        "network": {"nodeCIDRs": ["10.20.0.0/16"], "ports": {"first": 41000, "last": 41999}},
    }
    cluster = {"metadata": {"namespace": "isthmus-system", "name": "hpc"}, "spec": spec}
    api.put(SLURM_CLUSTERS, cluster)
    admission = built(
        "isthmus.tunnels.admission:Admission", store=api.store, first=20000, last=20999
    )
    return wanted_forwards([parsed(job)], held={}, admits=admission.admits)


@finding("H4", "a SlurmJob that nobody of ours made leads a forward to loopback of a login host")
def anybody_leads_a_forward() -> bool:
    assert _held(_slurm_job(host="10.20.0.7")), "those of ours are held"
    return bool(_held(_slurm_job(host="127.0.0.1", owned=False)))


@finding("H4", "a public key with a line feed becomes a second line of authorized_keys")
def key_becomes_two_lines() -> bool:
    (one,) = _held(_slurm_job(host="10.20.0.7", public_key="ssh-ed25519 AAAA"))
    assert len(authorized_keys([one]).splitlines()) == 1
    odd = type(one)(**{**_fields(one), "public_key": "ssh-ed25519 AAAA\nssh-rsa BBBB"})
    return len(authorized_keys([odd]).splitlines()) > 1


def _fields(one: Any) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__slots__}


@finding("M2", "a slice with a port that has no number ends the supervisor of all tunnels")
def slice_ends_the_supervisor() -> bool:
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_TUNNEL_HOST: "x"}
    odd = {
        "metadata": {"namespace": "team-b", "name": "odd", "labels": labels},
        "endpoints": [{"addresses": ["10.0.0.9"]}],
        "ports": [{"name": "http"}],
    }
    try:
        tunnel_of(odd)
    except KeyError:
        return True
    return False


@finding("M2", "a slice of Kubernetes' own is taken for a forward, and deleted for ever")
def slice_of_a_service_is_a_forward() -> bool:
    """The labels are copied from a Service, by whom anybody may write; the owner is not."""
    labels = {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_TUNNEL_HOST: "x",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    owner = {"apiVersion": "v1", "kind": "Service", "name": "s", "uid": "u"}
    made = {
        "metadata": {
            "namespace": "team-b",
            "name": "s-abcde",
            "labels": labels,
            "ownerReferences": [owner],
        },
        "endpoints": [{"addresses": ["10.0.0.9"]}],
        "ports": [{"name": "http", "port": 8000}],
    }
    return tunnel_of(made) is not None


@finding("F8", "a forward that sshd forbids is told as a way that works")
def forbidden_way_works() -> bool:
    health = Health().after(Outcome.CLOSED)
    common = {"key": "a", "service": ("team-a", "llama"), "in_traffic": True, "established": True}
    assert View(health=health, **common).up, "the engine loads: nobody listens yet"  # type: ignore[arg-type]
    try:
        forbidden = any_of("isthmus.tunnels.rules:forbidden")(health, forbids=True)
    except LookupError:
        forbidden = False  # what ssh says of it is heard by nobody
    one = built("isthmus.tunnels.rules:View", health=health, forbidden=forbidden, **common)
    return bool(one.up)


@finding("L2", "idle connections to the bastion take the places of all jobs for two minutes")
def bastion_waits_for_ever() -> bool:
    words = sshd_config(address="127.0.0.1", port=22, folder=Path("/tmp")).splitlines()
    limits = ("LoginGraceTime ", "PerSourceMaxStartups ")
    return not all(any(line.startswith(limit) for line in words) for limit in limits)


@finding("L6", "the host of a jump is read by a shell unquoted")
def jump_is_read_by_a_shell() -> bool:
    target = Target(host="login", port=22, user="u")
    host = "fe80::1%$(touch canary)"
    jump_command = any_of("isthmus.ssh.options:jump_command")
    socket = Path("/tmp/s")
    if takes(jump_command, "to"):
        to = Target(host=host, port=22, user="u")
        made = jump_command(target, control_path=socket, to=to).replace("%%", "%")
    else:
        # As ssh does before it gives the line to a shell.
        made = jump_command(target, control_path=socket).replace("%h", host).replace("%p", "22")
    return f"[{host}]:22" not in shlex.split(made)


@finding("F9", "where a startup file reads the first line of a script, the rest of it runs")
def rest_of_a_script_runs() -> bool:
    script = remote_script(["true"], stdin="x\ntouch canary; exit\n", seconds=5, environment=())
    with tempfile.TemporaryDirectory(prefix="isthmus-before-") as folder:
        subprocess.run(
            ["/bin/bash", "-c", f"read -r line; {REMOTE_SHELL}"],
            input=script,
            text=True,
            cwd=folder,
            capture_output=True,
            timeout=20,
            check=False,
        )
        return (Path(folder) / "canary").exists()


@finding("F9", "what a forced command prints instead is not shown")
def forced_command_is_not_shown() -> bool:
    try:
        parsing.sections("This account may only run rsync\n", marker="mark", count=1)
    except ValueError as error:
        return "may only run rsync" not in str(error)
    raise AssertionError("there is no answer in it")


@finding("F14", "a private key with line ends of Windows is written as it is, and refused by ssh")
def windows_key_is_written() -> bool:
    with tempfile.TemporaryDirectory(prefix="isthmus-before-") as parent:
        folder = PrivateFolder(parent=Path(parent))
        folder.write(key=b"-----BEGIN\r\nAAAA\r\n", known_hosts=b"")
        return b"\r" in folder.identity.key.read_bytes()


@finding("B9", "a full disk at one cluster's files ends all tunnels")
async def full_disk_ends_all_tunnels() -> bool:
    links = any_of("isthmus.tunnels.links:Links")
    key = any_of("isthmus.tunnels.links:LinkKey")
    reference = any_of("isthmus.api.desired:ClusterReference")
    ssh = {
        "hosts": ["login"],
        "user": "u",
        "keySecretRef": {"name": "s"},
        "knownHostsRef": {"name": "s"},
    }
    raw = {
        "metadata": {"namespace": "hpc", "name": "a", "uid": "uid-a", "resourceVersion": "1"},
        "spec": {"login": {"ssh": ssh}, "files": {"workDirectory": "/work"}},
    }
    made = links(
        secrets=None,
        on_change=lambda: None,
        clock=lambda: 0.0,
        connect_timeout=1.0,
        pause=1.0,
        parent=Path("/nonexistent"),  # no folder can be made there
    )
    place = key(reference(namespace="hpc", name="a"))
    try:
        made.set({place: {}}, clusters={("hpc", "a"): raw})
    except OSError:
        return True
    finally:
        await made.close()
        await asyncio.sleep(0)
    assert "OSError" in made.problem(place) or "FileNotFound" in made.problem(place)
    return False
