"""Isthmus as a release of its chart in the playground: what an administrator does with helm.

Apart from operator_process.py, which runs the operator as a process that tests kill and trace.
"""

from collections.abc import Mapping
from pathlib import Path

import yaml

from playground import build
from playground.cluster import Playground
from playground.commands import clean_environment, run
from playground.images import REGISTRY
from playground.operator_process import NAMESPACE, installed_record
from playground.python_environment import REPOSITORY

CHART = REPOSITORY / "charts" / "isthmus"
RELEASE = "isthmus"
INSTALLATION = "playgrnd"
WAIT = 120.0


def values(*, tag: str, installation_id: str = INSTALLATION) -> dict[str, object]:
    """Values of the chart for the images with a tag, which are in every node."""
    image = {"repository": f"{REGISTRY}/isthmus", "tag": tag, "pullPolicy": "Never"}
    return {
        "installationId": installation_id,
        "operator": {"image": image},
        "tunnels": {"image": image},
        "front": {"image": {"repository": f"{REGISTRY}/isthmus-front", "tag": tag}},
    }


class Release:
    """The release `isthmus` in the namespace isthmus-system."""

    def __init__(self, playground: Playground, *, name: str = RELEASE) -> None:
        self.playground = playground
        self.name = name

    def helm(self, *arguments: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        """Run helm as administrator and return its output; raises PlaygroundError."""
        config = self.playground.config
        program = build.ensure_helm(config.cache, self.playground.progress, state=config.state)
        folders = {
            f"HELM_{n}_HOME": str(config.state / "helm") for n in ("CACHE", "CONFIG", "DATA")
        }
        kubeconfig = {"KUBECONFIG": str(self.playground.kubernetes.kubeconfig)}
        environment = clean_environment(config.state, extra=folders | kubeconfig)
        command: list[str | Path] = [program, *arguments, f"--namespace={NAMESPACE}"]
        return run(command, stdin=stdin, timeout=timeout, environment=environment).stdout

    def install(self, given: Mapping[str, object], *, wait: bool = True) -> str:
        """`helm upgrade --install`, and wait until the pods are ready; returns what it said.

        Raises:
            PlaygroundError: helm failed, or the pods were not ready in time.
        """
        installed_record(self.playground).unlink(missing_ok=True)  # it owns them now
        options = ["--create-namespace", "--take-ownership", "--force-conflicts", "--values=-"]
        if wait:
            options += ["--wait", f"--timeout={WAIT:.0f}s"]
        return self.helm(
            "upgrade", "--install", self.name, str(CHART), *options,
            stdin=yaml.safe_dump(dict(given)), timeout=WAIT + 30,
        )  # fmt: skip

    def uninstall(self) -> str:
        """`helm uninstall`, and wait until its objects are gone."""
        installed_record(self.playground).unlink(missing_ok=True)
        return self.helm(
            "uninstall", self.name, "--wait", f"--timeout={WAIT:.0f}s", timeout=WAIT + 30
        )
