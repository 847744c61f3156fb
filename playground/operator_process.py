"""The operator as a process of the job user, never of root: started, stopped, killed by tests.

It gets a kubeconfig of its own ServiceAccount with the rights of deploy/, so that a missing right
shows here and not first in production.
"""

import hashlib
import os
import pwd
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from playground import kubernetes_files
from playground.cluster import Playground
from playground.commands import SYSTEM_PATH, wait_until
from playground.errors import PlaygroundError
from playground.files import write_secret
from playground.python_environment import REPOSITORY, python_environment

NAMESPACE = "isthmus-system"
SERVICE_ACCOUNT = "isthmus"
LEASE = "isthmus"
TOKEN_AGE = 6 * 3600.0
"""Seconds for which a token is used that is good for 24 h."""
# Workloads of deploy/ need a published image; here the operator runs as a process.
NOT_APPLIED = frozenset({"Deployment", "StatefulSet", "DaemonSet"})


def manifests(repository: Path = REPOSITORY) -> list[dict[str, object]]:
    """Every object of crds/*.yaml and deploy/*.yaml but the workloads, in the order of files."""
    found = []
    for folder in ("crds", "deploy"):
        for path in sorted((repository / folder).glob("*.yaml")):
            documents = yaml.safe_load_all(path.read_text(encoding="utf-8"))
            found += [d for d in documents if d and d.get("kind") not in NOT_APPLIED]
    return found


def install_manifests(playground: Playground) -> None:
    """Apply the custom resource definitions and the operator's rights, and wait for the kinds.

    Nothing is done where the same ones have been applied and no release was removed since.

    Raises:
        PlaygroundError: the API server refused one.
    """
    objects, record = manifests(), installed_record(playground)
    digest = hashlib.sha256(repr(objects).encode()).hexdigest()
    if record.exists() and record.read_text(encoding="utf-8") == digest:
        return
    first = [o for o in objects if o["kind"] in ("Namespace", "CustomResourceDefinition")]
    apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"]
    for group in (first, [o for o in objects if o not in first]):
        if group:
            playground.kubectl(*apply, stdin=yaml.safe_dump_all(group), timeout=60)
    if any(o["kind"] == "CustomResourceDefinition" for o in objects):
        playground.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    account = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {SERVICE_ACCOUNT}, namespace: {NAMESPACE}}}
"""
    playground.kubectl(*apply, stdin=account)  # where deploy/ has none (yet)
    record.write_text(digest, encoding="utf-8")


def installed_record(playground: Playground) -> Path:
    """Says which manifests were applied last; whoever changes them otherwise takes it away."""
    return playground.state / "installed-manifests"


def lease_rights(name: str) -> list[dict[str, object]]:
    """The Role and its binding for a Lease of another name than that of deploy/rbac.yaml."""
    metadata = {"name": f"isthmus-lease-{name}", "namespace": NAMESPACE}
    group = "rbac.authorization.k8s.io"
    rule = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [name],
        "verbs": ["get", "patch"],
    }
    role: dict[str, object] = {
        "apiVersion": f"{group}/v1",
        "kind": "Role",
        "metadata": metadata,
        "rules": [rule],
    }
    binding: dict[str, object] = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": metadata["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": NAMESPACE}],
    }
    return [role, binding]


class Operator:
    """One operator process: `start()`, `stop()`, `kill()`, `restart()`."""

    def __init__(
        self,
        playground: Playground,
        *,
        arguments: Sequence[str] = (),
        installation_id: str = "playgrnd",
        name: str = "operator",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Describe it; nothing happens yet.

        Args:
            playground: where it runs.
            arguments: further arguments of `isthmus run`.
            installation_id: the operator's setting that names its jobs.
            name: of the process, its log and its folder; give two operators two names.
            environment: further variables.
        """
        self.playground = playground
        self.arguments = tuple(arguments)
        self.installation_id = installation_id
        self.name = name
        self.extra = dict(environment or {})
        self._wanted = False

    @property
    def folder(self) -> Path:
        """The operator's own folder, with its kubeconfig; only the job user can read it."""
        return self.playground.state / self.name

    @property
    def kubeconfig(self) -> Path:
        """With a token of the ServiceAccount isthmus-system/isthmus."""
        return self.folder / "kubeconfig"

    @property
    def log(self) -> Path:
        """Its output, of all starts."""
        return self.playground.components.log(self.name)

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.playground.components.process(self.name) is not None

    @property
    def pid(self) -> int:
        """Its pid; raises PlaygroundError when it does not run."""
        return self.playground.components.pid(self.name)

    def output(self) -> str:
        """All it has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def prepare(self) -> Path:
        """Install definitions, rights, code and kubeconfig; returns the command `isthmus`."""
        config = self.playground.config
        install_manifests(self.playground)
        for lease in self._leases():
            rights = yaml.safe_dump_all(lease_rights(lease))
            self.playground.kubectl("apply", "--server-side", "-f", "-", stdin=rights)
        command = python_environment(config, self.playground.progress)
        entry = pwd.getpwnam(config.user)
        if self._has_token():
            return command
        self.folder.mkdir(parents=True, exist_ok=True)
        kubernetes = self.playground.kubernetes
        token = self.playground.kubectl(
            "create", "token", SERVICE_ACCOUNT, f"--namespace={NAMESPACE}", "--duration=24h"
        ).strip()
        text = kubernetes_files.kubeconfig(
            server=kubernetes.server,
            authority=kubernetes.authority,
            token=token,
            user=SERVICE_ACCOUNT,
        )
        write_secret(self.kubeconfig, text)
        for path in (self.kubeconfig, self.folder):
            os.chown(path, entry.pw_uid, entry.pw_gid)
        self.folder.chmod(0o700)
        return command

    def _leases(self) -> set[str]:
        """Names that its arguments give to its Lease, other than the usual one."""
        given = (word.partition("=") for word in self.arguments)
        return {value for name, _, value in given if name == "lease-name"} - {LEASE}

    def _has_token(self) -> bool:
        """Whether its token is one of the ServiceAccount that is there, for hours to come."""
        try:
            made = self.kubeconfig.stat().st_mtime
        except OSError:
            return False
        installed = installed_record(self.playground).stat().st_mtime
        return made > installed and time.time() - made < TOKEN_AGE

    def start(self) -> None:
        """Start `isthmus run` as the job user, with the working tree's code as it is now.

        Raises:
            PlaygroundError: something of `prepare` failed, or the process ended at once.
        """
        self._wanted = True
        if self.running:
            return
        command = self.prepare()
        entry = pwd.getpwnam(self.playground.config.user)
        environment = {
            "HOME": entry.pw_dir,
            "USER": entry.pw_name,
            "PATH": f"{self.playground.bin_folder}:{SYSTEM_PATH}",
            "PYTHONUNBUFFERED": "1",
            "ISTHMUS_LOCAL_LOGIN": "true",  # SLURM's commands are on this machine
        }
        if "slurm" in self.playground.config.parts:
            environment["SLURM_CONF"] = str(self.playground.slurm.configuration)
        where: list[str | Path] = [
            "--kubeconfig",
            self.kubeconfig,
            "--installation-id",
            self.installation_id,
        ]
        self.playground.components.start(
            self.name,
            [command, "run", *where, *self.arguments],
            environment=environment | self.extra,
            user=entry.pw_name,
        )

    def stop(self, *, timeout: float = 20.0) -> None:
        """TERM, then KILL after the time limit."""
        self._wanted = False
        self.playground.components.stop(self.name, grace=timeout)

    def kill(self) -> None:
        """KILL at once, as a lost machine."""
        self._wanted = False
        self.playground.components.kill(self.name)

    def restart(self) -> None:
        """Stop and start, with the working tree's code as it is now."""
        self.stop()
        self.start()

    def supervise(self) -> None:
        """Start it again where it chose to end, as after a lost Lease: a kubelet would.

        Raises:
            PlaygroundError: it ended by something that it did not foresee.
        """
        if not self._wanted or self.running:
            return
        ends = [line for line in self.output().splitlines() if " Ending" in line]
        if not ends or " Ending: " not in ends[-1]:
            self.require_running()
        self.start()

    def wait_for_output(self, text: str, *, timeout: float = 30.0) -> None:
        """Wait until the log holds a text; raises PlaygroundError, also when the process ends."""

        def seen() -> bool:
            if text in self.output():
                return True
            self.playground.components.require(self.name)
            return False

        wait_until(seen, what=f"the operator writes {text!r}", timeout=timeout)

    def require_running(self) -> None:
        """Raise PlaygroundError with the end of its output when it has ended."""
        if not self.running:
            tail = self.playground.components.tail(self.name, lines=25)
            raise PlaygroundError(f"the operator ended; {self.log} says:\n{tail}")
